"""What the real generator makes of real inference servers: streaming, tools, limits, cancel, continuing.

Where servers differ, the difference is written down here and in docs/models.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from baton_proto.messages import Sampling
from bench.usage import cpu_s
from services.common.config import LlmSettings
from services.common.llm.server import ChatServer
from services.common.llm.stream import ChatTurn
from services.common.llm.tokens import estimate_tokens
from services.generator.continuing import WAYS
from services.generator.port import Continued, Finish, Prompt, Text
from tests.servers.processes import eventually

from . import dialogues as taught
from .asking import ask, called, end, generator, prompt_of, text
from .dialogues import Dialogue
from .servers import CALLING, COUNTING, KINDS, ModelServer, model_server

LONG = 16_000
"""Tokens of context: the endless song lasts for seconds then, also on llama.cpp."""


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    with model_server(request.param, tmp_path_factory.mktemp("model"), LONG) as one:
        yield one


def body_of(server: ModelServer, dialogue: Dialogue, **fields: Any) -> dict[str, Any]:
    """A request as the generator sends it, with further fields."""
    messages = taught.taught(dialogue, tools=False)["messages"]
    return {"model": server.model, "messages": messages, "stream": True, "temperature": 0.0, **fields}


async def streamed(server: ModelServer, body: dict[str, Any]) -> tuple[str, ChatTurn]:
    """The text of one completion by the client code alone, and the whole turn."""
    async with httpx.AsyncClient(timeout=60) as client:
        chat = ChatServer(client, LlmSettings(llm_url=server.url, llm_model=server.model))
        pieces = [piece async for piece in chat.stream(body)]
    turn = pieces.pop()
    assert isinstance(turn, ChatTurn)
    return "".join(piece for piece in pieces if isinstance(piece, str)), turn


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialogue", [taught.ENGLISH, taught.CHINESE, taught.FOLLOW_UP], ids=["en", "zh", "follow-up"])
def test_an_answer_streams_as_the_model_gives_it(server: ModelServer, dialogue: Dialogue) -> None:
    events = asyncio.run(ask(server, dialogue))
    assert text(events) == dialogue.text
    assert len(events) > 10
    assert isinstance(end(events), Finish)
    assert end(events).reason == "stop"


def test_characters_that_are_cut_over_several_tokens_arrive_whole(server: ModelServer) -> None:
    pieces = [event.content for event in asyncio.run(ask(server, taught.CHINESE)) if isinstance(event, Text)]
    assert "\ufffd" not in "".join(pieces)
    assert "😀" in "".join(pieces)


def test_usage_is_what_the_server_counts_or_else_an_estimate(server: ModelServer) -> None:
    usage = end(asyncio.run(ask(server, taught.CHINESE))).usage
    if server.kind in COUNTING:
        # Every Chinese character is several tokens for this model.
        assert usage.completion_tokens > 1.5 * len(taught.CHINESE.text)
        assert usage.prompt_tokens > usage.completion_tokens
    else:
        assert usage.completion_tokens == estimate_tokens(taught.CHINESE.text)


def test_max_tokens_ends_an_answer_with_length(server: ModelServer) -> None:
    events = asyncio.run(ask(server, taught.SONG, sampling=Sampling(temperature=0.0, max_tokens=5)))
    assert text(events).split() == ["la"] * 5
    assert end(events).reason == "length"  # type: ignore[union-attr]
    if server.kind in COUNTING:
        assert end(events).usage.completion_tokens == 5


def test_a_stop_text_ends_an_answer(server: ModelServer) -> None:
    events = asyncio.run(ask(server, taught.COUNT, sampling=Sampling(temperature=0.0, stop=["four"])))
    assert end(events).reason == "stop"  # type: ignore[union-attr]
    # transformers stops behind the stop text and leaves it in.
    assert text(events) == ("one, two, three, four" if server.kind == "transformers" else "one, two, three, ")


def test_a_seed_repeats_what_was_drawn(server: ModelServer) -> None:
    if server.kind == "transformers":
        pytest.skip("it samples only where the model's generation_config says so")
    strange = Dialogue(Prompt("Improvise!", "en"))

    def draw(seed: int) -> str:
        fields = {"seed": seed, "temperature": 2.0, "max_tokens": 30}
        return asyncio.run(streamed(server, body_of(server, strange, **fields)))[0]

    assert draw(7) == draw(7)
    assert len({draw(seed) for seed in range(1, 6)}) > 1


def test_two_answers_at_once_do_not_mix(server: ModelServer) -> None:
    async def both() -> list[str]:
        asked = [taught.ENGLISH, taught.CHINESE, taught.COUNT]
        return [text(events) for events in await asyncio.gather(*(ask(server, dialogue) for dialogue in asked))]

    assert asyncio.run(both()) == [taught.ENGLISH.text, taught.CHINESE.text, taught.COUNT.text]


# --- tools ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialogue", [taught.CALL, taught.CALL_ZH, taught.BOTH, taught.STEPS, taught.STEPS_SECOND])
def test_tool_calls_come_as_the_model_makes_them(server: ModelServer, dialogue: Dialogue) -> None:
    if server.kind not in CALLING:
        pytest.skip("see the next test")
    events = asyncio.run(ask(server, dialogue))
    assert called(events) == [(call.name, call.arguments) for call in dialogue.calls]
    ids = [call.call_id for call in end(events).calls]  # type: ignore[union-attr]
    assert len(set(ids)) == len(ids)
    assert text(events).strip() == ""


def test_a_server_that_knows_no_tools_leaves_calls_in_the_text(server: ModelServer) -> None:
    if server.kind in CALLING:
        pytest.skip("it knows them")
    events = asyncio.run(ask(server, taught.CALL))
    assert isinstance(end(events), Finish)
    assert text(events).startswith("<tool_call>")


@pytest.mark.parametrize(
    "dialogue", [taught.CALL_RESULT, taught.CALL_ZH_RESULT, taught.BOTH_RESULT, taught.STEPS_RESULT]
)
def test_results_of_tools_reach_the_model(server: ModelServer, dialogue: Dialogue) -> None:
    if server.kind not in CALLING:
        pytest.skip("it calls none")
    events = asyncio.run(ask(server, dialogue))
    assert text(events) == dialogue.text
    assert end(events).reason == "stop"  # type: ignore[union-attr]


# --- cancel -----------------------------------------------------------------------------------------------------------


def test_a_cancel_stops_the_server(server: ModelServer) -> None:
    async def scenario() -> str:
        async with generator(server) as one:
            said = ""
            async with aclosing(one.generate(prompt_of(taught.SONG))) as events:
                async for event in events:
                    assert isinstance(event, Text), event
                    said += event.content
                    if said.count("la") >= 5:
                        break
            await eventually(lambda: _stands_still(server), "the server computes nothing any more", within_s=2)
        return said

    assert asyncio.run(scenario()).split()[:5] == ["la"] * 5
    # And it serves the next one.
    assert text(asyncio.run(ask(server, taught.ENGLISH))) == taught.ENGLISH.text


async def _stands_still(server: ModelServer) -> bool:
    before = cpu_s(server.process.pid)
    await asyncio.sleep(0.4)
    return cpu_s(server.process.pid) - before <= 0.05


# --- continuing -------------------------------------------------------------------------------------------------------

BEGUN = taught.ENGLISH.text[:26]


@pytest.mark.parametrize("way", ["vllm", "plain"])
def test_llama_server_goes_on_where_an_answer_was_cut(server: ModelServer, way: str) -> None:
    if server.kind != "llama-server":
        pytest.skip("the others cannot")
    events = asyncio.run(ask(server, taught.ENGLISH, settings={"llm_continue": way}, written=BEGUN))
    assert events[0] == Continued()
    assert BEGUN + text(events) == taught.ENGLISH.text


def test_transformers_refuses_to_go_on_and_is_asked_from_the_start(
    server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    if server.kind != "transformers":
        pytest.skip("only it refuses")
    with caplog.at_level(logging.WARNING):
        events = asyncio.run(ask(server, taught.ENGLISH, settings={"llm_continue": "vllm"}, written=BEGUN))
    assert Continued() not in events
    assert text(events) == taught.ENGLISH.text
    assert "BATON_LLM_CONTINUE" in caplog.text


@pytest.mark.parametrize("way", ["vllm", "plain", "prefix", "partial"])
def test_a_server_that_closes_the_message_does_not_go_on(server: ModelServer, way: str) -> None:
    """Why `off` is right for these: what the model says behind a closed message is not the rest of it."""
    if server.kind == "llama-server" or (server.kind, way) == ("transformers", "vllm"):
        pytest.skip("it goes on, or says that it does not")
    body = body_of(server, taught.ENGLISH)
    body["messages"].append({"role": "assistant", "content": BEGUN.rstrip(), **WAYS[way].message})
    said, _ = asyncio.run(streamed(server, {**body, **WAYS[way].body}))
    assert not said.strip().startswith("five days")
