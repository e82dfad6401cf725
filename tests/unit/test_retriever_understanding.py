"""Follow-ups in the retrieve stage, with a job in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from baton_proto.messages import Language, LogFrame, Passage, PastTurn, Sources, Status
from services.common.config import RetrieverSettings
from services.retriever.port import SearchRequest
from services.retriever.rewriting.opening import Off
from services.retriever.rewriting.port import Rewriter
from services.retriever.service import MAX_SHOWN_CHARS, retrieve_handler
from tests.answer_job import MemoryJob, passage, work_item

SETTINGS = RetrieverSettings(timeout_s=60.0, rewrite_timeout_s=0.1)
HISTORY = [PastTurn(query="公司年假政策有哪些?", answer="每年 10 天。")]


class Found:
    """Finds the same again and again, and keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[SearchRequest] = []

    async def retrieve(self, request: SearchRequest) -> Sequence[Passage]:
        self.requests.append(request)
        return [passage(1, "病假有 12 天。")]


class Says:
    """A rewriter that gives what it is told to, and counts."""

    def __init__(self, outcome: str | Exception) -> None:
        self.outcome = outcome
        self.calls = 0

    async def rewrite(self, question: str, history: Sequence[PastTurn], language: Language) -> str:
        self.calls += 1
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Hangs:
    async def rewrite(self, question: str, history: Sequence[PastTurn], language: Language) -> str:
        await asyncio.Event().wait()
        return ""


def run(
    retriever: Found, rewriter: Rewriter | None = None, written: Sequence[LogFrame] = (), **fields: Any
) -> MemoryJob:
    item = work_item(**{"query": "那病假呢?", "stage": "retrieve", "language": "zh", "history": HISTORY, **fields})
    job = MemoryJob(item, written)
    asyncio.run(retrieve_handler(retriever, SETTINGS, rewriter)(job))
    assert job.next_item is not None
    return job


def statuses(frames: Sequence[LogFrame]) -> list[tuple[str, str]]:
    return [(frame.stage, frame.content) for frame in frames if isinstance(frame, Status)]


def test_a_follow_up_is_told_as_it_was_understood_and_searched_for() -> None:
    retriever = Found()
    job = run(retriever)
    assert statuses(job.frames) == [
        ("understanding", "正在理解问题"),
        ("understanding", "理解为：公司病假政策有哪些?"),
        ("retrieving", "正在查找资料"),
        ("retrieving", "找到 1 段相关内容"),
    ]
    assert job.next_item is not None
    assert (job.next_item.query, job.next_item.standalone) == ("那病假呢?", "公司病假政策有哪些?")
    assert retriever.requests[0].query == "公司病假政策有哪些? 病假"


def test_it_is_told_in_the_language_of_the_request() -> None:
    history = [PastTurn(query="How long is maternity leave?", answer="")]
    job = run(Found(), query="and for fathers?", language="en", history=history)
    assert statuses(job.frames)[1] == ("understanding", "Understood as: How long is maternity leave for fathers?")


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"history": []}, id="the first question"),
        pytest.param({"query": "陪产假有多少天?"}, id="a whole question"),
    ],
)
def test_a_question_that_stands_alone_is_searched_for_as_it_is(fields: dict[str, Any]) -> None:
    retriever = Found()
    job = run(retriever, **fields)
    assert len(statuses(job.frames)) == 3
    assert job.next_item is not None
    assert job.next_item.standalone == ""
    assert retriever.requests[0].query == job.item.query


def test_without_a_history_no_rewriter_is_asked() -> None:
    rewriter = Says("something else")
    run(Found(), rewriter, history=[])
    assert rewriter.calls == 0


@pytest.mark.parametrize(
    "rewriter",
    [
        pytest.param(Says(RuntimeError("secret")), id="fails"),
        pytest.param(Hangs(), id="hangs"),
        pytest.param(Says(""), id="gives nothing"),
        pytest.param(Says("很" * (MAX_SHOWN_CHARS + 1)), id="gives too much"),
        pytest.param(Says("  那病假呢?\n"), id="changes white space only"),
        pytest.param(Off(), id="is off"),
    ],
)
def test_a_rewriter_that_is_no_use_leaves_the_question_as_it_is(
    rewriter: Rewriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.retriever.service._REWRITE_GRACE_S", 0.05)
    retriever = Found()
    job = run(retriever, rewriter)
    assert job.next_item is not None
    assert job.next_item.standalone == ""
    assert retriever.requests[0].query == "那病假呢?"


def test_a_question_of_several_lines_is_told_on_one() -> None:
    job = run(Found(), Says("病假\n  有几天?"))
    assert statuses(job.frames)[1] == ("understanding", "理解为：病假 有几天?")


def test_after_a_fail_over_nothing_is_said_twice_and_the_answer_stays_about_the_same() -> None:
    everything = run(Found(), Says("病假有几天?")).frames
    for kept in range(len(everything)):
        retriever, rewriter = Found(), Says("something else" if kept > 1 else "病假有几天?")
        job = run(retriever, rewriter, everything[:kept])
        assert statuses([*everything[:kept], *job.frames]) == statuses(everything)
        assert isinstance(job.frames[-1], Sources)
        assert job.next_item is not None
        assert job.next_item.standalone == "病假有几天?"
        assert retriever.requests[0].query.startswith("病假有几天?")
        assert rewriter.calls == (kept < 2)


def test_what_a_lost_holder_took_for_a_whole_question_stays_one() -> None:
    everything = run(Found(), Says("那病假呢?")).frames
    for kept in range(2, len(everything)):
        rewriter = Says("病假有几天?")
        job = run(Found(), rewriter, everything[:kept])
        assert job.next_item is not None
        assert (job.next_item.standalone, rewriter.calls) == ("", 0)
