from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace

import pytest

from baton_proto.messages import ToolOutcome
from services.tools import retries as retries_module
from services.tools import runner as runner_module
from services.tools.port import RetryableError, ToolContext
from services.tools.retries import MAX_ATTEMPTS, MAX_PAUSE_S, Retries
from services.tools.runner import Runner
from services.tools.toolbox import Toolbox
from tests.jobs import call
from tests.sample_tools import Body, SampleTool


def failing(times: int, after_s: float | None = None) -> Body:
    left = [times]

    async def body(arguments, context) -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise RetryableError("busy", after_s)
        return "worked"

    return body


def run(tool: SampleTool, timeout_s: float = 60.0) -> ToolOutcome:
    async def once() -> ToolOutcome:
        context = ToolContext(call_id="c1", owner="o", language="en", progress=lambda text: None)
        return await Runner(Toolbox([tool]), timeout_s=timeout_s, max_result_chars=200).run(call("t"), context, 60)

    return asyncio.run(once())


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries_module, "_FIRST_PAUSE_S", 0.001)


@pytest.mark.parametrize(
    ("idempotent", "failures", "calls", "content"),
    [(True, 1, 2, "worked"), (True, 2, 3, "worked"), (True, 9, MAX_ATTEMPTS, "busy"), (False, 1, 1, "busy")],
)
def test_a_failure_in_passing_is_repeated_only_where_that_is_harmless(
    idempotent: bool, failures: int, calls: int, content: str
) -> None:
    tool = SampleTool("t", failing(failures), idempotent=idempotent)
    assert run(tool).content == content
    assert tool.calls == calls


def test_all_attempts_share_the_time_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, fails = [0.0], failing(9)
    monkeypatch.setattr(runner_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    async def takes_20_s(arguments, context) -> str:
        clock[0] += 20
        return await fails(arguments, context)

    tool = SampleTool("t", takes_20_s, timeout_s=30)
    assert run(tool, timeout_s=30).content == "busy"
    assert tool.calls == 2


def test_pauses_grow_and_keep_to_what_was_asked_for(monkeypatch) -> None:
    monkeypatch.setattr(retries_module, "_FIRST_PAUSE_S", 0.2)
    retries = Retries(random.Random(1))
    first, second = retries.pause_s("t", 1, None, 60), retries.pause_s("t", 2, None, 60)
    assert first is not None
    assert second is not None
    assert 0.1 <= first <= 0.3
    assert 0.4 <= second <= 1.2
    assert retries.pause_s("t", 1, 3.0, 60) == 3.0
    assert retries.pause_s("t", 1, MAX_PAUSE_S + 1, 60) is None
    assert retries.pause_s("t", 1, 3.0, 2.9) is None


def test_a_tool_in_trouble_is_not_asked_three_times_as_often() -> None:
    retries = Retries()
    made = 0
    for _ in range(200):
        retries.begun("t")
        made += retries.pause_s("t", 1, None, 60) is not None
    assert 25 <= made <= 31
    retries.begun("other")
    assert retries.pause_s("other", 1, None, 60) is not None
