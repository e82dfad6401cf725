"""What every generator must do, whatever is behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from baton_proto.messages import ToolCall, ToolOutcome, ToolSpec, ToolTurn
from services.common.config import GeneratorSettings
from services.generator import extractive, openai_chat
from services.generator.port import Calls, Continued, Event, Finish, Generator, Prompt, Text
from tests.answer_job import passage
from tests.servers.llm import aimock, continuing_llm

LEAVE = ToolSpec(
    name="leave_balance",
    description="Days left",
    parameters={
        "type": "object",
        "properties": {"leave_type": {"type": "string", "enum": ["annual", "sick"]}},
        "additionalProperties": False,
    },
)
PASSAGES = [
    passage(1, "You can carry over at most 5 days of unused annual leave into the next year.", title="Annual leave"),
    passage(2, "当年没有休完的年假，最多可以结转 5 天到下一年。", title="年假政策"),
]
CARRY_OVER = Prompt("How many days of annual leave can I carry over?", "en", PASSAGES, [LEAVE])
CARRY_OVER_ZH = Prompt("没休完的年假可以结转几天?", "zh", PASSAGES, [LEAVE])
BALANCE = Prompt("How many vacation days do I have left?", "en", PASSAGES, [LEAVE])

FIXTURES: list[dict[str, Any]] = [
    {
        "match": {"userMessage": "Question: How many days of annual"},
        "response": {"content": "You can carry over at most 5 days. [1]"},
    },
    {"match": {"userMessage": "问题：没休完"}, "response": {"content": "最多可以结转 5 天到下一年。[2]"}},
    {
        "match": {"userMessage": "Question: How many vacation", "hasToolResult": False},
        "response": {"toolCalls": [{"id": "c1", "name": "leave_balance", "arguments": {"leave_type": "annual"}}]},
    },
    {
        "match": {"userMessage": "Question: How many vacation", "hasToolResult": True},
        "response": {"content": "You have 8.5 days left."},
    },
]
Opener = Callable[[], AbstractAsyncContextManager[Generator]]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with aimock(tmp_path_factory.mktemp("aimock"), FIXTURES, "-c", "6", "-l", "2") as url:
        yield url


@pytest.fixture(scope="module")
def continuing() -> Iterator[str]:
    with continuing_llm("You can carry over at most 5 days. [1]") as llm:
        yield llm.url


@pytest.fixture(params=["extractive", "openai", "continuing"])
def any_opener(request: pytest.FixtureRequest) -> Opener:
    if request.param != "continuing":
        return _opener(request)
    url = request.getfixturevalue("continuing")
    settings = GeneratorSettings(llm_url=url, llm_model="m", llm_continue="vllm")
    return lambda: openai_chat.open_generator(settings)


@pytest.fixture(params=["extractive", "openai"])
def opener(request: pytest.FixtureRequest) -> Opener:
    return _opener(request)


def _opener(request: pytest.FixtureRequest) -> Opener:
    if request.param == "extractive":
        return lambda: extractive.open_generator(GeneratorSettings(chunk_delay_ms=1))
    url = request.getfixturevalue("llm")
    return lambda: openai_chat.open_generator(GeneratorSettings(llm_url=url, llm_model="gpt-4o-mini"))


def run(opener: Opener, *prompts: Prompt) -> list[list[Event]]:
    """The events of each prompt, asked at the same time."""

    async def one(generator: Generator, prompt: Prompt) -> list[Event]:
        return [event async for event in generator.generate(prompt)]

    async def scenario() -> list[list[Event]]:
        async with opener() as generator:
            return await asyncio.gather(*(one(generator, prompt) for prompt in prompts))

    return asyncio.run(scenario())


def text(events: list[Event]) -> str:
    return "".join(event.content for event in events if isinstance(event, Text))


def test_an_answer_is_any_number_of_pieces_and_one_end(opener: Opener) -> None:
    (events,) = run(opener, CARRY_OVER)
    assert len(events) > 3
    assert all(isinstance(event, Text) and event.content for event in events[:-1])
    finish = events[-1]
    assert isinstance(finish, Finish)
    assert finish.reason == "stop"
    assert finish.usage.prompt_tokens > 0
    assert finish.usage.completion_tokens > 0
    assert "5 days" in text(events)
    assert "[1]" in text(events)


def test_the_language_of_the_question_is_the_language_of_the_answer(opener: Opener) -> None:
    (events,) = run(opener, CARRY_OVER_ZH)
    assert "5 天" in text(events)
    assert "[2]" in text(events)


def test_a_turn_that_needs_a_tool_ends_with_calls_that_fit_it(opener: Opener) -> None:
    (events,) = run(opener, BALANCE)
    calls = events[-1]
    assert isinstance(calls, Calls)
    (call,) = calls.calls
    assert (call.name, call.arguments) == ("leave_balance", {"leave_type": "annual"})
    assert call.call_id


def test_the_result_of_a_tool_leads_to_an_answer(opener: Opener) -> None:
    call = ToolCall(call_id="c1", name="leave_balance", arguments={"leave_type": "annual"})
    outcome = ToolOutcome(call_id="c1", name="leave_balance", ok=True, content="Annual leave: 8.5 days remaining.")
    turn = ToolTurn(calls=[call], results=[outcome])
    (events,) = run(opener, Prompt(BALANCE.question, "en", PASSAGES, [LEAVE], [turn]))
    assert isinstance(events[-1], Finish)
    assert "8.5" in text(events)


def test_what_a_lost_holder_has_stored_is_continued_or_said_again(any_opener: Opener) -> None:
    (whole,) = run(any_opener, CARRY_OVER)
    said = text(whole)
    cuts = [0, 1, len(said) // 2, len(said) - 3, len(said)]
    for cut, events in zip(
        cuts, run(any_opener, *(replace(CARRY_OVER, written=said[:cut]) for cut in cuts)), strict=True
    ):
        kinds = [type(event) for event in events]
        assert kinds.count(Continued) <= 1
        if Continued in kinds:
            assert kinds[0] is Continued
            assert said[:cut] + text(events) == said
        else:
            assert text(events) == said
        assert events[-1].usage.completion_tokens > 0


def test_prompts_are_answered_side_by_side(opener: Opener) -> None:
    english, chinese, calls, again = run(opener, CARRY_OVER, CARRY_OVER_ZH, BALANCE, CARRY_OVER)
    assert text(english) == text(again)
    assert "天" in text(chinese)
    assert isinstance(calls[-1], Calls)


def test_closing_the_iterator_ends_it_at_once(opener: Opener) -> None:
    async def scenario() -> None:
        async with opener() as generator, _closed_after_one(generator) as first:
            assert isinstance(first, Text)

    asyncio.run(asyncio.wait_for(scenario(), 60))


@asynccontextmanager
async def _closed_after_one(generator: Generator) -> AsyncIterator[Event]:
    events = generator.generate(CARRY_OVER)
    try:
        yield await anext(events)
    finally:
        await events.aclose()  # type: ignore[attr-defined]
        assert [event async for event in events] == []
