"""What a replay compares: everything but ids, times and where an answer came from."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.frames import Frame, first_difference
from evaluation.replay import QUESTIONS, CannotAsk, Result, Run, load_questions, report, report_text

FRAMES: list[Frame] = [
    {"type": "accepted", "request_id": "r1", "seq": 0, "timestamp": "t0", "conversation_id": "c1"},
    {"type": "status", "request_id": "r1", "seq": 1, "timestamp": "t1", "stage": "retrieving", "content": "Found 2",
     "count": 2, "elapsed_ms": 7},
    {"type": "sources", "request_id": "r1", "seq": 2, "timestamp": "t2", "sources": [
        {"n": 1, "id": "d-1", "title": "Leave", "score": 0.5}, {"n": 2, "id": "d-2", "title": "More", "score": 0.25}]},
    {"type": "tool_result", "request_id": "r1", "seq": 3, "timestamp": "t3", "call_id": "x", "elapsed_ms": 3,
     "content": "8.5"},
    {"type": "answer_chunk", "request_id": "r1", "seq": 4, "timestamp": "t4", "content": "Ten "},
    {"type": "answer_chunk", "request_id": "r1", "seq": 5, "timestamp": "t4", "content": "days. [1]"},
    {"type": "done", "request_id": "r1", "seq": 6, "timestamp": "t5", "finish_reason": "stop", "cited": [1],
     "citations": [{"n": 1, "start": 10, "end": 13}], "usage": {"prompt_tokens": 9, "completion_tokens": 4},
     "timings": {"ttft_ms": 5}, "fingerprint": "corpus=1 model=m", "cache": "miss"},
]  # fmt: skip


def other_run() -> list[Frame]:
    frames = copy.deepcopy(FRAMES)
    for frame in frames:
        frame |= {"request_id": "r2", "timestamp": "later"}
    frames[0]["conversation_id"] = "c2"
    frames[1]["elapsed_ms"] = 99
    frames[3] |= {"call_id": "y", "elapsed_ms": 4}
    frames[-1] |= {"timings": {"ttft_ms": 1, "generation_ms": 3}, "cache": "hit"}
    return frames


def test_what_is_a_runs_own_makes_no_difference() -> None:
    assert first_difference(FRAMES, other_run()) is None


@pytest.mark.parametrize(
    ("at", "path", "value", "where"),
    [
        (1, ["count"], 3, "count"),
        (2, ["sources", 1, "score"], 0.26, "sources[1].score"),
        (3, ["content"], "8", "content"),
        (5, ["content"], "days. [2]", "content"),
        (6, ["citations", 0, "end"], 14, "citations[0].end"),
        (6, ["usage", "completion_tokens"], 5, "usage.completion_tokens"),
        (6, ["fingerprint"], "corpus=2 model=m", "fingerprint"),
        (6, ["cited"], [1, 2], "length of cited"),
        (4, ["seq"], 9, "seq"),
        (4, ["new"], 1, "new"),
    ],
)
def test_the_first_difference_is_named(at: int, path: list[Any], value: Any, where: str) -> None:
    frames = other_run()
    inner: Any = frames[at]
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    found = first_difference(FRAMES, frames)
    assert found is not None
    assert (found.frame, found.where) == (at, where)


def test_a_frame_more_less_or_in_other_pieces_is_a_difference() -> None:
    missing = first_difference(FRAMES, other_run()[:-1])
    assert missing is not None
    assert (missing.frame, missing.where, missing.first, missing.second) == (6, "type", "done", "nothing")
    pieces = other_run()
    pieces[4]["content"], pieces[5]["content"] = "Ten d", "ays. [1]"
    assert first_difference(FRAMES, pieces) is not None


def test_the_order_of_fields_counts() -> None:
    frames = other_run()
    frames[4] = {name: frames[4][name] for name in reversed(frames[4])}
    found = first_difference(FRAMES, frames)
    assert found is not None
    assert found.where == "order of fields"


def test_pieces_that_the_server_has_joined_are_compared_as_one() -> None:
    frames = other_run()
    frames[4:6] = [{**frames[5], "from_seq": 4, "content": "Ten days. [1]"}]
    assert first_difference(FRAMES, frames) is None
    frames[4]["content"] = "Ten days [1]"
    assert first_difference(FRAMES, frames) is not None


@given(st.integers(0, len(FRAMES) - 1), st.text(min_size=1, max_size=3))
def test_any_other_field_is_a_difference(at: int, text: str) -> None:
    frames = other_run()
    frames[at]["content"] = frames[at].get("content", "") + text
    assert first_difference(FRAMES, frames) is not None
    assert first_difference(frames, FRAMES) is not None


def test_the_report_counts_and_names_what_differs() -> None:
    different = other_run()
    different[-1]["fingerprint"] = "corpus=2 model=m"
    failed = Run(FRAMES[:3], 5, "no_worker: nobody is there")
    results = [
        Result("a", "one?", Run(FRAMES, 30), Run(other_run(), 10)),
        Result("b", "two?", Run(FRAMES, 20), Run(different, 10)),
        Result("c", "three?", Run(FRAMES, 10), failed),
    ]
    told = report(results, "ws://x/ws")
    assert (told["questions"], told["equal"], told["different"], told["failed"], told["hits"]) == (3, 1, 1, 1, 2)
    assert json.loads(json.dumps(told)) == told
    text = report_text(told)
    assert "1 equal, 1 different, 1 failed; 2 of the second" in text
    assert 'frame 6, fingerprint: "corpus=1 model=m" / "corpus=2 model=m"' in text
    assert "no_worker: nobody is there" in text


def test_the_list_that_ships_has_a_hundred_questions_in_two_languages() -> None:
    questions = load_questions(QUESTIONS)
    assert len({entry["question"] for entry in questions}) == len({entry["id"] for entry in questions}) == 100
    assert [entry["language"] for entry in questions].count("zh") == 50
    assert [entry["language"] for entry in questions].count("en") == 50


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"query": "q"}', '{"question": 1}'])
def test_a_list_that_cannot_be_read_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "q").write_text(text)
    with pytest.raises(CannotAsk, match="q"):
        load_questions(tmp_path / "q")
