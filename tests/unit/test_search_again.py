"""`search_documents`, with a job in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from baton_proto import codec
from baton_proto.messages import (
    Handoff,
    LogEntry,
    LogFrame,
    Passage,
    Sources,
    Status,
    Timings,
    ToolCall,
    ToolCalled,
    ToolResult,
    ToolTurn,
    WorkItem,
)
from baton_proto.sequencer import utc_now
from services.common.config import RetrieverSettings
from services.common.errors import ServiceError
from services.generator.quoting.tool_rules import wanted_calls
from services.retriever.numbering import MAX_PASSAGES
from services.retriever.port import SearchRequest
from services.retriever.search_tool import MAX_SEARCHES, SEARCH_DOCUMENTS
from services.retriever.searching import MAX_TOTAL_CHARS
from services.retriever.service import retrieve_handler
from tests.answer_job import MemoryJob, passage, work_item

SETTINGS = RetrieverSettings(timeout_s=60.0)
HAD = [passage(1, "Ten days of annual leave."), passage(2, "Twelve days of sick leave.")]


class Shelf:
    """Finds, for each query, the passages with these ids, as a retriever numbers them; other queries fail."""

    def __init__(self, text: str = "words", **found: str) -> None:
        self.found = found
        self.text = text
        self.requests: list[SearchRequest] = []
        self.running = self.most = 0

    async def retrieve(self, request: SearchRequest) -> Sequence[Passage]:
        self.requests.append(request)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        if request.query not in self.found:
            raise ServiceError("retrieval_failed", "The document store failed.")
        ids = self.found[request.query].split()
        return [
            passage(n, f"{self.text} of {one}", id=one, document_id=f"doc-{one}", title=f"Title {one}", heading="Part")
            for n, one in enumerate(ids[: request.top_k], start=1)
        ]


def search(query: Any, call_id: str = "a", **arguments: Any) -> ToolCall:
    return ToolCall(call_id=call_id, name="search_documents", arguments={"query": query, **arguments})


def item(*calls: ToolCall, **fields: Any) -> WorkItem:
    return work_item(**{"stage": "retrieve", "passages": HAD, "calls": list(calls), "text": "Let me see.", **fields})


def run(
    shelf: Shelf, work: WorkItem, written: Sequence[LogFrame] = (), settings: RetrieverSettings = SETTINGS
) -> tuple[MemoryJob, ToolTurn]:
    job = MemoryJob(work, written)
    asyncio.run(retrieve_handler(shelf, settings)(job))
    assert job.next_item is not None
    assert job.next_item.stage == "generate"
    assert (job.next_item.calls, job.next_item.text) == ([], "")
    return job, job.next_item.turns[-1]


def test_what_is_new_gets_the_next_numbers_and_what_is_known_keeps_its_own() -> None:
    shelf = Shelf(parental="p2 x y")
    work = item(search(" parental "), filters={"department": "hr"}, timings=Timings(retrieval_ms=3, tool_calls=1))
    job, turn = run(shelf, work)
    assert shelf.requests == [SearchRequest("parental", "en", 5, {"department": "hr"})]
    called, sources, result = job.frames
    assert isinstance(called, ToolCalled)
    assert isinstance(sources, Sources)
    assert isinstance(result, ToolResult)
    assert (called.name, called.arguments) == ("search_documents", {"query": " parental "})
    assert [(source.n, source.id) for source in sources.sources] == [(3, "x"), (4, "y")]
    assert result.ok
    assert result.content.splitlines() == [
        "[2] Document 2: Twelve days of sick leave.",
        "[3] Title x / Part: words of x",
        "[4] Title y / Part: words of y",
    ]
    assert turn.text == "Let me see."
    assert turn.calls == work.calls
    assert turn.results[0].passages == [2, 3, 4]
    assert turn.results[0].content == result.content
    assert job.next_item is not None
    assert [(one.n, one.id) for one in job.next_item.passages] == [(1, "p1"), (2, "p2"), (3, "x"), (4, "y")]
    assert job.next_item.passages[2].text == "words of x"
    assert job.next_item.timings.tool_calls == 2
    assert job.next_item.timings.retrieval_ms >= 3


def test_searches_run_side_by_side_and_share_their_passages() -> None:
    shelf = Shelf(one="x y", two="y z")
    job, turn = run(shelf, item(search("one", "a"), search("two", "b", top_k=2)))
    assert shelf.most == 2
    assert [type(frame) for frame in job.frames] == [ToolCalled, ToolCalled, Sources, ToolResult, ToolResult]
    assert [result.passages for result in turn.results] == [[3, 4], [4, 5]]


def test_a_second_turn_goes_on_counting() -> None:
    shelf = Shelf(one="x", two="x y")
    job, _ = run(shelf, item(search("one")))
    assert job.next_item is not None
    again = msgspec.structs.replace(job.next_item, stage="retrieve", calls=[search("two", "b")])
    job, turn = run(shelf, again)
    assert turn.results[0].passages == [3, 4]
    assert job.next_item is not None
    assert len(job.next_item.turns) == 2


@pytest.mark.parametrize(("language", "words"), [("en", "No passage matches"), ("zh", "没有找到相关段落")])
def test_finding_nothing_is_a_result_without_further_sources(language: str, words: str) -> None:
    job, turn = run(Shelf(nothing=""), item(search("nothing"), language=language))
    assert [type(frame) for frame in job.frames] == [ToolCalled, ToolResult]
    assert turn.results[0].ok
    assert words in turn.results[0].content
    assert turn.results[0].passages == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "query is missing"),
        ({"query": ""}, "at least 1 characters"),
        ({"query": "   "}, "blank"),
        ({"query": "x" * 1001}, "at most 1000 characters"),
        ({"query": 5}, "expected string"),
        ({"query": "q", "top_k": 0}, "at least 1"),
        ({"query": "q", "top_k": 11}, "at most 10"),
        ({"query": "q", "filters": {"owner": "boss"}}, "no argument filters"),
    ],
)
def test_bad_arguments_are_answered_in_words_to_correct_them_by(arguments: dict[str, Any], words: str) -> None:
    shelf = Shelf()
    job, turn = run(shelf, item(ToolCall(call_id="a", name="search_documents", arguments=arguments)))
    assert shelf.requests == []
    assert not turn.results[0].ok
    assert words in turn.results[0].content
    assert isinstance(job.last, ToolResult)


def test_a_search_that_fails_is_a_failed_result_and_ends_nothing() -> None:
    job, turn = run(Shelf(good="x"), item(search("bad", "a"), search("good", "b")))
    assert [(result.ok, result.passages) for result in turn.results] == [(False, []), (True, [3])]
    assert turn.results[0].content == "The document store failed."
    assert len(job.frames) == 5


def test_a_search_without_end_is_given_up_in_time() -> None:
    class Silent(Shelf):
        async def retrieve(self, request: SearchRequest) -> Sequence[Passage]:
            await asyncio.Event().wait()
            return []

    _, turn = run(Silent(), item(search("q")), settings=RetrieverSettings(timeout_s=0.1))
    assert "within 0.1 s" in turn.results[0].content


def test_no_more_than_a_few_searches_of_a_turn_are_run() -> None:
    shelf = Shelf(q="x")
    bad = ToolCall(call_id="bad", name="search_documents", arguments={})
    _, turn = run(shelf, item(bad, *(search("q", f"c{n}") for n in range(MAX_SEARCHES + 2))))
    assert len(shelf.requests) == MAX_SEARCHES
    assert [result.ok for result in turn.results] == [False, *[True] * MAX_SEARCHES, False, False]
    assert f"At most {MAX_SEARCHES} searches" in turn.results[-1].content


def test_an_answer_holds_no_more_than_so_many_passages() -> None:
    had = [passage(n, "text") for n in range(1, MAX_PASSAGES)]
    job, turn = run(Shelf(q="x y z p1"), item(search("q"), passages=had))
    assert turn.results[0].passages == [MAX_PASSAGES, 1]
    job, turn = run(Shelf(q="x"), item(search("q"), passages=[*had, passage(MAX_PASSAGES, "text")]))
    assert turn.results[0].ok
    assert "none can be added" in turn.results[0].content
    assert [type(frame) for frame in job.frames] == [ToolCalled, ToolResult]


def test_the_hand_over_fits_into_a_message_however_much_was_found() -> None:
    shelf = Shelf("长" * 20_000, q=" ".join(f"x{n}" for n in range(10)), r=" ".join(f"y{n}" for n in range(10)))
    job, _ = run(shelf, item(search("q", "a", top_k=10), search("r", "b", top_k=10)))
    assert job.next_item is not None
    assert sum(len(one.text) for one in job.next_item.passages) <= MAX_TOTAL_CHARS
    handoff = Handoff(stage="generate", item=codec.item_to_map(job.next_item))
    frames = [msgspec.structs.replace(frame, seq=n, timestamp=utc_now()) for n, frame in enumerate(job.frames)]
    frames[-1] = msgspec.structs.replace(frames[-1], handoff=handoff)
    codec.encode(LogEntry(request_id="r1", append_id="a", writer="w", frames=frames))


def test_a_call_for_something_else_or_without_the_tool_is_refused() -> None:
    _, turn = run(Shelf(), item(ToolCall(call_id="a", name="delete_documents", arguments={})))
    assert "no tool named delete_documents" in turn.results[0].content
    _, turn = run(Shelf(q="x"), item(search("q")), settings=RetrieverSettings(search_tool=False))
    assert not turn.results[0].ok


def test_calls_with_the_id_of_another_are_left_out() -> None:
    _, turn = run(Shelf(one="x", two="y"), item(search("one", "a"), search("two", "a")))
    assert [call.arguments["query"] for call in turn.calls] == ["one"]


def everything() -> list[LogFrame]:
    job, _ = run(Shelf(one="x y", two="y z"), item(search("one", "a"), search("two", "b")))
    return job.frames


def timeless(frames: Sequence[LogFrame]) -> list[LogFrame]:
    return [
        msgspec.structs.replace(frame, elapsed_ms=0) if isinstance(frame, ToolResult) else frame for frame in frames
    ]


@pytest.mark.parametrize("kept", range(5))
def test_after_a_fail_over_nothing_is_written_twice_and_numbers_stay(kept: int) -> None:
    whole = everything()
    job, turn = run(Shelf(one="x y", two="y z"), item(search("one", "a"), search("two", "b")), whole[:kept])
    assert timeless([*whole[:kept], *job.frames]) == timeless(whole)
    assert [result.passages for result in turn.results] == [[3, 4], [4, 5]]
    assert job.next_item is not None
    assert [one.text for one in job.next_item.passages[2:]] == ["words of x", "words of y", "words of z"]


def test_when_only_the_hand_over_was_lost_it_is_made_up_for() -> None:
    job, turn = run(Shelf(one="x y", two="y z"), item(search("one", "a"), search("two", "b")), everything())
    (status,) = job.frames
    assert isinstance(status, Status)
    assert status.stage == "tool"
    assert [result.passages for result in turn.results] == [[3, 4], [4, 5]]


def test_after_a_fail_over_other_documents_do_not_move_numbers_that_were_shown() -> None:
    whole = everything()
    job, turn = run(Shelf(one="new x", two="z"), item(search("one", "a"), search("two", "b")), whole[:3])
    assert [type(frame) for frame in job.frames] == [ToolResult, ToolResult]
    assert [result.passages for result in turn.results] == [[3], [5]]
    assert job.next_item is not None
    passages = {one.n: one for one in job.next_item.passages}
    assert {n: one.id for n, one in passages.items()} == {1: "p1", 2: "p2", 3: "x", 4: "y", 5: "z"}
    assert passages[4].text == "words of y"  # its snippet: it is not found any more


def test_after_a_fail_over_a_search_that_fails_keeps_what_was_shown() -> None:
    whole = everything()
    job, turn = run(Shelf(), item(search("one", "a"), search("two", "b")), whole[:4])
    assert [(result.ok, result.passages) for result in turn.results] == [(True, [3, 4]), (False, [])]
    assert job.next_item is not None
    assert [one.n for one in job.next_item.passages] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "question", ["Search the documents for leave", "请用 search_documents 再查一次年假", "search_documents"]
)
def test_the_extractive_generator_never_calls_it(question: str) -> None:
    assert wanted_calls(question, [SEARCH_DOCUMENTS], []) == []
