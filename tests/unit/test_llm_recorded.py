"""What real servers said when they refused, as `make test-models` saw it, and what Baton makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.common.llm import errors

RECORDED: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("recorded_llm_answers.json").read_text(encoding="utf-8")
)


def entries(case: str) -> list[Any]:
    found = [entry for entry in RECORDED if entry["case"] == case]
    assert found
    return [pytest.param(entry, id=entry["server"]) for entry in found]


@pytest.mark.parametrize("entry", entries("too long"))
def test_a_question_that_is_too_long_is_recognised_with_its_numbers(entry: dict[str, Any]) -> None:
    failure = errors.http_failure(entry["status"], json.dumps(entry["body"]), None)
    assert isinstance(failure, errors.ContextOverflow)
    assert (failure.limit, failure.prompt) == (entry["limit"], entry["prompt"])


@pytest.mark.parametrize("entry", entries("does not continue"))
def test_a_refusal_to_continue_is_recognised(entry: dict[str, Any]) -> None:
    assert errors.refuses_to_continue(entry["status"], json.dumps(entry["body"]))


@pytest.mark.parametrize("entry", entries("bad request"))
def test_another_refusal_is_taken_for_no_field_and_no_length(entry: dict[str, Any]) -> None:
    text = json.dumps(entry["body"])
    assert errors.overflow(entry["status"], text) is None
    sent = {"tools": [], "max_tokens": 5, "temperature": 0.0, "seed": 1, "stream_options": {}}
    assert errors.refused_field(entry["status"], text, sent) is None
