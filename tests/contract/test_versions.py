"""This version and the one before it read each other's messages, and what is released stays as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack

from baton_proto.vectors.store import Case, case_bytes
from baton_proto.vectors.store import read as read_cases
from tests.golden import previous, reading

VECTORS = Path("proto") / "vectors" / "v1"
HERE = Path(__file__).parents[2]
LATER = {"later": {"a": [1, "b"]}}


def messages() -> list[Case]:
    return read_cases(HERE / VECTORS / "accepted.json")


def released_messages() -> list[Case]:
    return read_cases(previous() / VECTORS / "accepted.json")


def asked_of_previous(asked: list[tuple[str, bytes]]) -> list[dict[str, Any]]:
    """What the version before makes of messages: `meaning` and the bytes it writes `again`, or why it `refused`."""
    root = previous()
    found = subprocess.run(
        [sys.executable, reading.__file__],
        input=json.dumps([(kind, data.hex()) for kind, data in asked]).encode(),
        env={**os.environ, "PYTHONPATH": str(root / "proto")},
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    answers: list[dict[str, Any]] = json.loads(found.stdout)
    return answers


def with_later_fields(case: Case) -> bytes:
    """The message as a later version may write it: with fields that nobody knows yet."""
    raw = msgpack.unpackb(case_bytes(case))
    if "frames" in raw:
        raw["frames"] = [{**frame, **LATER} for frame in raw["frames"]]
    return msgpack.packb({**raw, **LATER})


def later_meaning(case: Case) -> dict[str, Any]:
    """Fields that are not known are ignored, but those of a work item survive."""
    return {**case["meaning"], **(LATER if case["kind"] == "WorkItem" else {})}


def part_of(less: Any, more: Any) -> bool:
    """Whether `less` says nothing that `more` does not say, at any depth."""
    if isinstance(less, dict) and isinstance(more, dict):
        return all(name in more and part_of(value, more[name]) for name, value in less.items())
    if isinstance(less, list) and isinstance(more, list):
        return len(less) == len(more) and all(map(part_of, less, more))
    return bool(less == more)


def test_what_the_version_before_has_released_has_not_changed_since() -> None:
    files = sorted((previous() / VECTORS).iterdir())
    assert "accepted.json" in {path.name for path in files}
    for path in files:
        released = read_cases(path)
        assert read_cases(HERE / VECTORS / path.name)[: len(released)] == released, path.name


def test_the_version_before_reads_every_message_of_this_one_and_keeps_what_it_does_not_know_of_an_item() -> None:
    cases, known = messages(), {case["name"] for case in released_messages()}
    answers = asked_of_previous([(case["kind"], case_bytes(case)) for case in cases])
    for case, answer in zip(cases, answers, strict=True):
        assert "refused" not in answer, (case["name"], answer)
        meaning, written = answer["meaning"], reading.read(case["kind"], bytes.fromhex(answer["again"]))
        if case["name"] in known:
            assert (meaning, written) == (case["meaning"], case["meaning"]), case["name"]
        assert part_of(meaning, case["meaning"]), case["name"]
        assert part_of(written, case["meaning"]), case["name"]
        if case["kind"] == "WorkItem":
            assert written.keys() == case["meaning"].keys(), case["name"]


def test_this_version_ignores_fields_of_a_later_one_and_keeps_those_of_an_item() -> None:
    for case in messages():
        meaning = reading.read(case["kind"], with_later_fields(case))
        assert meaning == later_meaning(case), case["name"]
        written = msgpack.unpackb(reading.write(case["kind"], meaning))
        assert ("later" in written) is (case["kind"] == "WorkItem"), case["name"]


def test_the_version_before_ignores_fields_of_a_later_one_and_keeps_those_of_an_item() -> None:
    cases = released_messages()
    answers = asked_of_previous([(case["kind"], with_later_fields(case)) for case in cases])
    assert [answer.get("meaning", answer) for answer in answers] == list(map(later_meaning, cases))
