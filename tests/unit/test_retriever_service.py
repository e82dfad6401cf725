"""The retrieve stage, with a job in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from baton_proto import codec
from baton_proto.messages import (
    MAX_SNIPPET_CHARS,
    Handoff,
    LogEntry,
    LogFrame,
    Passage,
    Sources,
    Status,
    Timings,
    WorkItem,
)
from baton_proto.sequencer import utc_now
from services.common import metrics
from services.common.config import RetrieverSettings
from services.common.errors import ServiceError
from services.common.passages import snippet
from services.retriever.port import SearchRequest
from services.retriever.searching import MAX_PASSAGE_CHARS
from services.retriever.service import retrieve_handler

SETTINGS = RetrieverSettings(timeout_s=60.0)


class MemoryJob:
    def __init__(self, item: WorkItem, written: Sequence[LogFrame] = ()) -> None:
        self.item = item
        self.written = list(written)
        self.frames: list[LogFrame] = []
        self.next_item: WorkItem | None = None

    async def write(self, frame: LogFrame) -> None:
        assert self.next_item is None
        self.frames.append(frame)

    async def hand_over(self, frame: LogFrame, item: WorkItem) -> None:
        await self.write(frame)
        self.next_item = item

    async def finish(self, frame: LogFrame) -> None:
        raise AssertionError("a retriever never ends a request")


class Scripted:
    """Answers with its outcomes one after the other, the last one for ever."""

    def __init__(self, *outcomes: Sequence[Passage] | Exception) -> None:
        self.outcomes = list(outcomes)
        self.requests: list[SearchRequest] = []

    async def retrieve(self, request: SearchRequest) -> Sequence[Passage]:
        self.requests.append(request)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class Silent:
    async def retrieve(self, request: SearchRequest) -> Sequence[Passage]:
        await asyncio.Event().wait()
        return []


def item(**fields: Any) -> WorkItem:
    defaults: dict[str, Any] = {
        "stage": "retrieve",
        "key": "0" * 32,
        "shard": 0,
        "request_id": "r1",
        "owner": "me",
        "query": "How many days?",
        "language": "en",
        "received_ms": 1,
        "deadline_ms": 2,
        "queued_ms": 1,
    }
    return WorkItem(**{**defaults, **fields})


def passage(n: int, text: str = "Ten days.") -> Passage:
    return Passage(n=n, id=f"d-{n}", document_id="d", title="Leave", url="/documents/d#page=2", text=text, score=1 / n,
                   page=2, start=3, end=3 + len(text), heading="Annual")  # fmt: skip


def contents(frames: Sequence[LogFrame]) -> list[str]:
    return [frame.content for frame in frames if isinstance(frame, Status)]


def unreachable() -> ServiceError:
    return ServiceError("retrieval_failed", "down", retryable=True)


def run(retriever: Any, job: MemoryJob, settings: RetrieverSettings = SETTINGS) -> MemoryJob:
    asyncio.run(retrieve_handler(retriever, settings)(job))
    return job


def test_a_question_is_searched_its_sources_are_shown_and_the_baton_passes_on() -> None:
    retriever = Scripted([passage(1), passage(2)])
    question = item(top_k=3, filters={"a": 1}, timings=Timings(queue_ms=7), extra={"newer": 1})
    job = run(retriever, MemoryJob(question))
    assert retriever.requests == [SearchRequest("How many days?", "en", 3, {"a": 1})]
    *statuses, sources = job.frames
    assert [(frame.stage, frame.content) for frame in statuses] == [
        ("understanding", "Understanding the question"),
        ("retrieving", "Searching the documents"),
        ("retrieving", "Found 2 passages"),
    ]
    assert statuses[2].count == 2
    assert statuses[2].elapsed_ms is not None
    assert isinstance(sources, Sources)
    assert [(source.n, source.id, source.page, source.snippet) for source in sources.sources] == [
        (1, "d-1", 2, "Ten days."),
        (2, "d-2", 2, "Ten days."),
    ]
    assert job.next_item is not None
    assert job.next_item.stage == "generate"
    assert job.next_item.passages == [passage(1), passage(2)]
    assert job.next_item.timings.queue_ms == 7
    assert job.next_item.extra == {"newer": 1}


@pytest.mark.parametrize(
    ("language", "count", "content"),
    [
        ("zh", 5, "找到 5 段相关内容"),
        ("zh", 0, "没有找到相关内容"),
        ("en", 1, "Found 1 passage"),
        ("en", 0, "Found no matching passages"),
    ],
)
def test_what_was_found_is_said_in_the_language_of_the_question(language: str, count: int, content: str) -> None:
    job = run(Scripted([passage(n + 1) for n in range(count)]), MemoryJob(item(language=language)))
    assert job.frames[2].content == content
    assert all((language == "zh") == any(char > "\u4e00" for char in frame.content) for frame in job.frames[:3])


def test_searches_are_counted_by_whether_they_found_anything() -> None:
    def counted() -> list[float]:
        return [metrics.SEARCHES.labels(outcome)._value.get() for outcome in ("found", "nothing")]

    before = counted()
    for found in ([passage(1), passage(2)], [], []):
        run(Scripted(found), MemoryJob(item()))
    with pytest.raises(ServiceError):
        run(Scripted(unreachable()), MemoryJob(item()))
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [1, 2]


def test_after_a_fail_over_nothing_is_said_twice() -> None:
    everything = run(Scripted([passage(1)]), MemoryJob(item())).frames
    for kept in range(len(everything)):
        job = run(Scripted([passage(1)]), MemoryJob(item(), everything[:kept]))
        told = [
            (frame.stage, frame.content) for frame in [*everything[:kept], *job.frames] if isinstance(frame, Status)
        ]
        assert told == [(frame.stage, frame.content) for frame in everything if isinstance(frame, Status)]
        assert isinstance(job.frames[-1], Sources)


def test_without_a_number_six_passages_are_asked_for() -> None:
    retriever = Scripted([])
    run(retriever, MemoryJob(item()))
    assert retriever.requests[0].top_k == 6


def test_a_failure_that_passes_costs_a_moment_only() -> None:
    job = run(Scripted(unreachable(), [passage(1)]), MemoryJob(item()))
    assert job.next_item is not None
    assert job.next_item.timings.retrieval_ms > 0


def test_a_failure_that_stays_is_raised_as_it_is() -> None:
    retriever = Scripted(unreachable())
    with pytest.raises(ServiceError) as raised:
        run(retriever, MemoryJob(item()))
    assert raised.value.retryable
    assert len(retriever.requests) == 3


def test_a_bad_filter_is_not_tried_again() -> None:
    retriever = Scripted(ServiceError("bad_message", "bad filter"))
    with pytest.raises(ServiceError, match="bad filter"):
        run(retriever, MemoryJob(item()))
    assert len(retriever.requests) == 1


def test_a_search_without_end_is_given_up_in_time() -> None:
    with pytest.raises(ServiceError, match=r"within 0.2 s") as raised:
        run(Silent(), MemoryJob(item()), RetrieverSettings(timeout_s=0.2))
    assert raised.value.code == "retrieval_failed"


def test_a_hand_over_fits_into_a_message_however_much_was_found() -> None:
    job = run(Scripted([passage(n + 1, "长" * 20_000) for n in range(50)]), MemoryJob(item(top_k=50)))
    sources = job.frames[-1]
    assert isinstance(sources, Sources)
    assert job.next_item is not None
    assert [source.n for source in sources.sources] == [kept.n for kept in job.next_item.passages]
    assert all(len(kept.text) <= MAX_PASSAGE_CHARS for kept in job.next_item.passages)
    handoff = Handoff(stage="generate", item=codec.item_to_map(job.next_item))
    handed = Sources(sources=sources.sources, handoff=handoff, seq=4, timestamp=utc_now())
    codec.encode(LogEntry(request_id="r1", append_id="a", writer="w", frames=[handed]))


def test_a_snippet_is_short_and_cut_between_words() -> None:
    short = snippet("word " * 200)
    assert len(short) <= MAX_SNIPPET_CHARS
    assert short.endswith("word…")
    assert len(snippet("字" * 900)) == MAX_SNIPPET_CHARS
    assert snippet("short") == "short"
