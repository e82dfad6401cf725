"""What every rewriter promises, asked of each implementation; the model's with a server and without one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest

from baton_proto.messages import PastTurn
from services.common.config import LlmSettings, RetrieverSettings
from services.retriever.rewriting.opening import open_auto, open_model, open_off, open_rule
from services.retriever.rewriting.port import MAX_STANDALONE_CHARS, Rewriter
from tests.servers.llm import DONE, delta, head, scripted_llm
from tests.servers.processes import free_port

T = TypeVar("T")
SETTINGS = RetrieverSettings(rewrite_timeout_s=60.0)
HISTORY = [
    PastTurn(query="公司年假政策有哪些?", answer="每年 10 天。"),
    PastTurn(query="What about sick leave?", answer=""),
]
AWKWARD = [
    "",
    "   ",
    "那病假呢?",
    "and for contractors?",
    "?",
    "\n\n",
    "💥" * 50,
    "那" * 10_000,
    "<question>\x00\x1b[31m</question>",
    "'; DROP TABLE passages; --",
]


@contextlib.asynccontextmanager
async def model() -> AsyncIterator[Rewriter]:
    async with (
        scripted_llm([head(), delta("病假有哪些政策?"), delta(finish="stop"), DONE]) as server,
        open_model(SETTINGS, LlmSettings(llm_url=server.url, llm_model="m")) as rewriter,
    ):
        yield rewriter


@contextlib.asynccontextmanager
async def model_away() -> AsyncIterator[Rewriter]:
    llm = LlmSettings(llm_url=f"http://127.0.0.1:{free_port()}/v1", llm_model="m")
    async with open_auto(RetrieverSettings(rewrite_timeout_s=0.2), llm) as rewriter:
        yield rewriter


OPENERS = {
    "rule": lambda: open_rule(SETTINGS, LlmSettings()),
    "auto": lambda: open_auto(SETTINGS, LlmSettings()),
    "off": lambda: open_off(SETTINGS, LlmSettings()),
    "model": model,
    "model away": model_away,
}


@pytest.fixture(params=OPENERS)
def opened(request: pytest.FixtureRequest) -> Callable[[Callable[[Rewriter], Awaitable[T]]], T]:
    """Runs a scenario with the rewriter open."""

    def run(use: Callable[[Rewriter], Awaitable[T]]) -> T:
        async def main() -> T:
            async with OPENERS[request.param]() as rewriter:
                return await use(rewriter)

        return asyncio.run(main())

    return run


def test_without_a_history_a_question_stays_as_it_is(opened: Callable[..., str]) -> None:
    assert opened(lambda rewriter: rewriter.rewrite("那病假呢?", [], "zh")) == "那病假呢?"


def test_whatever_is_asked_it_gives_a_bounded_text_and_does_not_raise(opened: Callable[..., list[str]]) -> None:
    async def ask_all(rewriter: Rewriter) -> list[str]:
        return [await rewriter.rewrite(question, HISTORY, "zh") for question in AWKWARD]

    for question, text in zip(AWKWARD, opened(ask_all), strict=True):
        assert len(text) <= MAX_STANDALONE_CHARS
        assert text.strip() or not question.strip()


def test_questions_at_the_same_time_do_not_disturb_each_other(
    opened: Callable[..., tuple[list[str], list[str]]],
) -> None:
    async def twice(rewriter: Rewriter) -> tuple[list[str], list[str]]:
        questions = ["那病假呢?", "怎么申请?", "去上海出差酒店每晚的报销上限是多少?"]
        one_by_one = [await rewriter.rewrite(question, HISTORY[:1], "zh") for question in questions]
        at_once = await asyncio.gather(*(rewriter.rewrite(question, HISTORY[:1], "zh") for question in questions * 5))
        return one_by_one * 5, list(at_once)

    one_by_one, at_once = opened(twice)
    assert at_once == one_by_one


def test_a_history_of_empty_turns_is_none(opened: Callable[..., str]) -> None:
    turns = [PastTurn(query="", answer="")] * 3
    text = opened(lambda rewriter: rewriter.rewrite("怎么申请年假?", turns, "zh"))
    assert "申请" in text
