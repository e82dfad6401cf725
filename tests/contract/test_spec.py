"""The spec's tables say what the code says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from baton_proto import messages, subjects

ROOT = Path(__file__).parents[2]
SPEC = (ROOT / "proto" / "README.md").read_text("utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without code marks."""
    below = SPEC.split(f"{heading}\n", 1)[1]
    table = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)
    assert table is not None, heading
    lines = table.group().strip().splitlines()[2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_limit_is_listed_with_its_value() -> None:
    listed = {name: int(value) for name, value, _ in rows("### Limits")}
    names = {name for name in vars(messages) if name.startswith(("MAX_", "PRESENCE_"))}
    assert listed == {name: getattr(messages, name) for name in names}


def test_every_error_code_has_a_meaning() -> None:
    assert [code for code, *_ in rows("### 6.5 Error codes")] == list(get_args(messages.ErrorCode))


def test_every_frame_has_its_writers() -> None:
    tags = [kind.__struct_config__.tag for kind in get_args(messages.LogFrame)]
    assert [frame for frame, *_ in rows("## 5. Who writes which frames")] == tags


def test_every_subject_is_one_that_the_document_has() -> None:
    document = yaml.safe_load((ROOT / "proto" / "asyncapi.yaml").read_text("utf-8"))
    addresses = {channel["address"] for channel in document["channels"].values()} - {"/ws"}
    listed = {re.sub(r"<n>", "{shard}", subject) for subject, *_ in rows("## 3. Subjects, streams and names")}
    assert {re.sub(r"<(\w+)>", r"{\1}", subject) for subject in listed} == addresses


@pytest.mark.parametrize(
    "name",
    [
        subjects.WORK_STREAM,
        subjects.DEAD_STREAM,
        subjects.CANCEL_STREAM,
        subjects.CENSUS,
        subjects.DOCUMENTS_BUCKET,
        subjects.log_stream(0).replace("0", "<n>"),
        subjects.handoff_object("<key>", 7).replace("7", "<seq>"),
        subjects.work_message_id("<key>", 7).replace("7", "<seq>"),
    ],
)
def test_a_name_of_the_code_is_in_the_spec(name: str) -> None:
    assert f"`{name}`" in SPEC or name in SPEC


def test_every_file_of_vectors_is_described() -> None:
    for path in (ROOT / "proto" / "vectors" / "v1").iterdir():
        assert f"`{path.name}`" in SPEC


def test_every_link_leads_to_a_file() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", SPEC):
        assert (ROOT / "proto" / target).exists(), target


def test_every_part_of_the_example_is_one_it_has() -> None:
    source = (ROOT / "examples" / "foreign_worker" / "echo_generator.py").read_text("utf-8")
    for names, *_ in rows("## 9. Write a worker in an afternoon"):
        for name in names.replace("`", "").split(", "):
            owner, _, method = name.partition(".")
            assert re.search(rf"^(?:async )?(?:def|class) {owner}\b", source, re.MULTILINE), name
            assert not method or f"async def {method}(" in source


def test_the_gateway_closes_with_codes_of_the_spec() -> None:
    source = (ROOT / "services" / "gateway" / "connection.py").read_text("utf-8")
    used = set(re.findall(r"\b(1009|101[0-9]|40[0-9]{2})\b", source))
    assert used <= {code for code, *_ in rows("### 6.4 Close codes")}
