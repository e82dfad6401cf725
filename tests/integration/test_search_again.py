"""A model that searches again: generator and retriever with real workers on a real nats-server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from baton_proto.messages import AnswerChunk, Done, Passage, Sources, Status, ToolCall, ToolCalled, ToolResult
from services.common.config import GeneratorSettings, RetrieverSettings
from services.common.presence import Presence, watch
from services.generator.port import Calls, Event, Finish, Prompt, Text
from services.generator.service import generate_handler
from services.retriever.port import SearchRequest
from services.retriever.search_tool import SEARCH_DOCUMENTS
from services.retriever.service import retrieve_handler
from tests.answer_job import passage
from tests.rig import Rig, rig
from tests.servers.nats import Nats
from tests.servers.processes import ROOT, eventually, running

SETTINGS = RetrieverSettings()
LIVE = {"retrieve": [SEARCH_DOCUMENTS]}


class Shelf:
    """Finds `a` for the question itself and `a`, `b` and `c` for further searches. `stuck` holds those up for ever."""

    def __init__(self, *, stuck: bool = False) -> None:
        self.stuck = stuck
        self.searching = asyncio.Event()

    async def retrieve(self, request: SearchRequest) -> Sequence[Passage]:
        ids = "a" if request.query == "q" else "abc"
        if self.stuck and request.query != "q":
            self.searching.set()
            await asyncio.Event().wait()
        return [passage(n, f"text {one}", id=one) for n, one in enumerate(ids, start=1)]


class SearchesTwice:
    """Asks for two searches, then cites everything that it was given, and a number that it was not."""

    def __init__(self) -> None:
        self.prompts: list[Prompt] = []

    async def generate(self, prompt: Prompt) -> AsyncIterator[Event]:
        self.prompts.append(prompt)
        if prompt.turns:
            yield Text("Found " + "".join(f"[{one.n}]" for one in prompt.passages) + "[9].")
            yield Finish()
            return
        assert [spec.name for spec in prompt.tools] == ["search_documents"]
        yield Text("Let me search.")
        yield Calls(
            [
                ToolCall(call_id="one", name="search_documents", arguments={"query": "more"}),
                ToolCall(call_id="two", name="search_documents", arguments={"top_k": 3}),
            ]
        )


def run(nats: Nats, scenario: Any) -> None:
    async def main() -> None:
        async with rig(nats.url) as one:
            await scenario(one)

    asyncio.run(main())


def check(frames: list[Any], generator: SearchesTwice) -> None:
    """That the log tells each step once, in order, and that the answer cites new passages by their numbers."""
    kinds = [type(frame) for frame in frames if not isinstance(frame, Status | AnswerChunk)]
    assert kinds[1:] == [Sources, ToolCalled, ToolCalled, Sources, ToolResult, ToolResult, Done]
    first, further = [frame for frame in frames if isinstance(frame, Sources)]
    assert [(source.n, source.id) for source in first.sources] == [(1, "a")]
    assert [(source.n, source.id) for source in further.sources] == [(2, "b"), (3, "c")]
    results = {frame.call_id: frame for frame in frames if isinstance(frame, ToolResult)}
    assert (results["one"].ok, results["two"].ok) == (True, False)
    assert "query is missing" in results["two"].content
    assert "".join(frame.content for frame in frames if isinstance(frame, AnswerChunk)) == (
        "Let me search.\n\nFound [1][2][3]."
    )
    assert frames[-1].cited == [1, 2, 3]
    assert frames[-1].timings.tool_calls == 2
    assert [outcome.passages for outcome in generator.prompts[-1].turns[0].results] == [[1, 2, 3], []]
    assert [one.text for one in generator.prompts[-1].passages] == ["text a", "text b", "text c"]


def test_a_model_s_search_travels_to_a_retriever_and_back_in_one_log(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        generator = SearchesTwice()
        answering = generate_handler(generator, GeneratorSettings(), lambda _: LIVE)
        async with (
            one.worker(retrieve_handler(Shelf(), SETTINGS)),
            one.worker(answering, "generate"),
        ):
            item = one.item()
            await one.start(item)
            frames = await one.ended(item)
            await one.settled()
        check(frames, generator)

    run(nats, scenario)


def test_another_retriever_goes_on_with_the_search_of_one_that_was_lost(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        generator, shelf = SearchesTwice(), Shelf(stuck=True)
        answering = generate_handler(generator, GeneratorSettings(), lambda _: LIVE)
        item = one.item()
        async with one.worker(answering, "generate"):
            async with one.worker(retrieve_handler(shelf, SETTINGS), ack_wait_s=30.0) as lost:
                await one.start(item)
                await asyncio.wait_for(shelf.searching.wait(), 30)
                await eventually(lambda: _called(one, item), "the calls are stored")
                await lost.die()
            async with one.worker(retrieve_handler(Shelf(), SETTINGS), ack_wait_s=2.0):
                frames = await one.ended(item)
        check(frames, generator)

    run(nats, scenario)


async def _called(one: Rig, item: Any) -> bool:
    return sum(isinstance(frame, ToolCalled) for frame in await one.frames(item)) == 2


@pytest.mark.parametrize(("setting", "names"), [("true", ["search_documents"]), ("false", [])])
def test_a_retriever_announces_that_it_can_search_again(
    nats: Nats, tmp_path: Any, setting: str, names: list[str]
) -> None:
    argv = [sys.executable, "-m", "services.retriever"]
    env = {"BATON_NATS_URL": nats.url, "BATON_SEARCH_TOOL": setting, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}

    async def scenario(one: Rig) -> None:
        async with watch(one.bus) as presence:
            await eventually(lambda: _live(presence), "a retriever is there", 60)
            assert [spec.name for spec in presence.tools().get("retrieve", [])] == names

    with running(argv, tmp_path / "retriever.log", env):
        run(nats, scenario)


async def _live(presence: Presence) -> bool:
    return bool(presence.live("retrieve"))
