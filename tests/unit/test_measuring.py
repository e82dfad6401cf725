"""What is counted and measured where: once, also when things end otherwise than they should."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from baton_proto.messages import Accepted, AnswerChunk, Done, Error, Status, Timings, ToolCall, Usage
from services.common.calls import observing
from services.common.config import GeneratorSettings
from services.common.lag import Pulse
from services.gateway.observer import Observer
from services.generator.port import Event, Finish, Prompt, Text
from services.generator.service import generate_handler
from services.retriever.steps import STEPS, step
from tests.answer_job import MemoryJob, work_item
from tests.measured import measured


def test_a_request_counts_once_however_its_follower_ends() -> None:
    names = ("baton_ttfb_seconds_count", "baton_ttft_seconds_count", "baton_answer_seconds_count")
    before = [measured(name) for name in names]
    stopped = measured("baton_requests_total", outcome="stop")
    observer = Observer("r")
    observer.see(Accepted(conversation_id="c"))
    observer.see(Status(stage="generating", content=""))
    observer.see(AnswerChunk(content="a"))
    observer.see(AnswerChunk(content="b"))
    observer.see(Done(finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=Timings()))
    observer.leave()
    assert [measured(name) - was for name, was in zip(names, before, strict=True)] == [1, 1, 1]
    assert measured("baton_requests_total", outcome="stop") == stopped + 1


def test_a_request_whose_log_is_lost_counts_as_failed() -> None:
    before = measured("baton_requests_total", outcome="log_lost")
    observer = Observer("r")
    observer.see(Error(code="log_lost", message="", retryable=True))
    assert measured("baton_requests_total", outcome="log_lost") == before + 1


class Speaker:
    async def generate(self, _: Prompt) -> AsyncIterator[Event]:
        for word in ("one ", "two ", "three ", "four"):
            yield Text(word)
        yield Finish("stop", Usage(completion_tokens=4))


def test_the_gaps_between_the_pieces_of_an_answer_are_measured_and_not_the_first_wait() -> None:
    before = measured("baton_token_gap_seconds_count")
    asyncio.run(generate_handler(Speaker(), GeneratorSettings(), lambda _: {})(MemoryJob(work_item())))
    assert measured("baton_token_gap_seconds_count") == before + 3


@pytest.mark.parametrize(("name", "known", "label"), [("pay", True, "pay"), ("invented", False, "unknown")])
def test_a_call_is_measured_under_the_name_of_its_tool_if_there_is_one(name: str, known: bool, label: str) -> None:
    before = measured("baton_tool_seconds_count", tool=label, ok="false")
    with observing(ToolCall(call_id="c", name=name, arguments={}), known=known) as observed:
        observed.ended(ok=False, result="")
    assert measured("baton_tool_seconds_count", tool=label, ok="false") == before + 1


def test_a_call_that_was_cut_off_is_neither_good_nor_bad() -> None:
    def counted() -> float:
        return sum(measured("baton_tool_seconds_count", tool="cut", ok=ok) for ok in ("true", "false"))

    with contextlib.suppress(asyncio.CancelledError), observing(ToolCall(call_id="c", name="cut", arguments={})):
        raise asyncio.CancelledError
    assert counted() == 0


def test_a_step_of_a_search_is_measured_also_when_it_fails() -> None:
    before = [measured("baton_retrieval_step_seconds_count", step=name) for name in STEPS]
    for name in STEPS:
        with pytest.raises(TimeoutError), step(name):
            raise TimeoutError
    assert [measured("baton_retrieval_step_seconds_count", step=name) for name in STEPS] == [was + 1 for was in before]


def test_a_loop_that_is_kept_busy_is_late() -> None:
    def late() -> float:
        return measured("baton_event_loop_lag_seconds_count") - measured(
            "baton_event_loop_lag_seconds_bucket", le="0.1"
        )

    async def scenario() -> None:
        measuring = asyncio.create_task(Pulse().beat())
        await asyncio.sleep(0)
        before = late()
        time.sleep(0.5)  # noqa: ASYNC251 - that is the point
        await asyncio.sleep(0.01)
        measuring.cancel()
        assert late() > before

    asyncio.run(scenario())
