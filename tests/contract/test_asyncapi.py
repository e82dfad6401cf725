"""The AsyncAPI document is current, is AsyncAPI, and says the same as the golden vectors."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import msgpack
import pytest
import yaml

from baton_proto import asyncapi
from baton_proto.vectors.store import case_bytes

ROOT = Path(__file__).parents[2]
DOCUMENT = yaml.safe_load((ROOT / "proto" / "asyncapi.yaml").read_text("utf-8"))
OFFICIAL = ROOT / "tests" / "node" / "node_modules" / "@asyncapi" / "specs" / "schemas" / "3.0.0.json"

BEYOND_SCHEMAS = {
    "entry: seq skips",
    "entry: seq repeats",
    "entry: frame after the end",
    "entry: frame after a hand-off",
    "entry: arguments: 17 levels",
    "entry: request_id with a line feed",  # jsonschema searches with Python's `$`, which lets one through
}
"""Rejected vectors that break a rule no JSON Schema can state."""


def cases(name: str) -> list[Any]:
    loaded = json.loads((ROOT / "proto" / "vectors" / "v1" / f"{name}.json").read_text("utf-8"))
    return [pytest.param(case, id=case["name"]) for case in loaded]


@cache
def validator(schema: str) -> jsonschema.Draft7Validator:
    whole = {"$ref": f"#/components/schemas/{schema}", "components": DOCUMENT["components"]}
    return jsonschema.Draft7Validator(whole)


def as_json(case: dict[str, Any]) -> Any:
    """The message as JSON would have it; None where it cannot be, or is refused for its size alone."""
    if "build" in case:
        return None
    try:
        value = msgpack.unpackb(case_bytes(case), max_ext_len=0)
        return json.loads(json.dumps(value, allow_nan=False)) if isinstance(value, dict) else None
    except (ValueError, TypeError):
        return None


def test_the_document_is_current(capsys: pytest.CaptureFixture) -> None:
    assert asyncapi.main(["--check"]) == 0, capsys.readouterr().err


def test_a_document_that_is_not_current_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    old = tmp_path / "asyncapi.yaml"
    old.write_text(asyncapi.render().replace("Baton", "Button"))
    assert asyncapi.main(["--check", "--file", str(old)]) == 1
    assert "python -m baton_proto.asyncapi" in capsys.readouterr().err
    assert asyncapi.main(["--file", str(old)]) == 0
    assert asyncapi.main(["--check", "--file", str(old)]) == 0


def test_the_document_is_asyncapi_3() -> None:
    assert OFFICIAL.exists(), "the official schema is missing: run `npm ci` in tests/node"
    official = json.loads(OFFICIAL.read_text("utf-8"))
    found = [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message[:300]}"
        for error in jsonschema.Draft7Validator(official).iter_errors(DOCUMENT)
    ]
    assert found == []


def test_every_reference_in_the_document_leads_somewhere() -> None:
    def check(part: Any) -> None:
        if isinstance(part, dict):
            if isinstance(target := part.get("$ref"), str):
                found = DOCUMENT
                for step in target.removeprefix("#/").split("/"):
                    found = found[step]
            for inner in part.values():
                check(inner)
        elif isinstance(part, list):
            for inner in part:
                check(inner)

    check(DOCUMENT)


def test_every_schema_is_a_json_schema() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft7Validator.check_schema(schema)


def test_nothing_internal_is_in_what_a_client_sees() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        if name.startswith("client."):
            assert "handoff" not in schema["properties"]


@pytest.mark.parametrize("case", cases("accepted"))
def test_the_meaning_of_a_vector_fits_its_schema(case: dict[str, Any]) -> None:
    validator(case["kind"]).validate(case["meaning"])
    names = {schema["properties"]["type"]["enum"][0]: name for name, schema in client_schemas().items()}
    for frame in case.get("shown", []):
        validator(names[frame["type"]]).validate(frame)


def client_schemas() -> dict[str, Any]:
    """The frames of a log as clients see them, by the name of their schema."""
    schemas = DOCUMENT["components"]["schemas"]
    return {
        name: schemas[name] for name in schemas if name.startswith("client.") and "seq" in schemas[name]["required"]
    }


@pytest.mark.parametrize("case", [case for case in cases("rejected") if as_json(case.values[0]) is not None])
def test_a_rejected_vector_does_not_fit_its_schema(case: dict[str, Any]) -> None:
    assert validator(case["kind"]).is_valid(as_json(case)) is (case["name"] in BEYOND_SCHEMAS)


@pytest.mark.parametrize("case", cases("client_accepted"))
def test_a_clients_message_fits_its_schema(case: dict[str, Any]) -> None:
    kind = case["meaning"]["type"].capitalize()
    validator(kind).validate(json.loads(case["json"]))
    validator(kind).validate(case["meaning"])


@pytest.mark.parametrize("case", cases("connection"))
def test_a_connection_frame_fits_its_schema(case: dict[str, Any]) -> None:
    name = "client.ConnectionError" if case["kind"] == "ConnectionError" else case["kind"]
    validator(name).validate(json.loads(case["json"]))


def test_examples_fit_their_schemas() -> None:
    shown = 0
    for message in DOCUMENT["components"]["messages"].values():
        for example in message.get("examples", []):
            validator(message["payload"]["$ref"].rpartition("/")[2]).validate(example["payload"])
            shown += 1
    assert shown >= 5
