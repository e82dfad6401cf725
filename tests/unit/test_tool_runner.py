from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from baton_proto import codec
from baton_proto.messages import Language, LogEntry, ToolOutcome, ToolResult
from baton_proto.sequencer import utc_now
from services.tools import runner as runner_module
from services.tools.port import Tool, ToolContext, ToolError
from services.tools.runner import Runner
from services.tools.toolbox import Toolbox
from tests.jobs import call
from tests.sample_tools import SampleTool, echo, exit_process, hang, raising, refuse, returning, stubborn

SECRET = "postgres://admin:hunter2@db"
TEXT = {
    "type": "object",
    "properties": {"text": {"type": "string", "maxLength": 5}, "size": {"enum": ["s", "m"]}},
    "required": ["text"],
    "additionalProperties": False,
}


def run(tool: Tool, language: Language = "en", *, wait_s: float = 60.0, **arguments: Any) -> ToolOutcome:
    async def once() -> ToolOutcome:
        context = ToolContext(call_id="c1", owner="o", language=language, progress=lambda text: None)
        runner = Runner(Toolbox([tool]), timeout_s=60.0, max_result_chars=200)
        return await runner.run(call(tool.spec.name, **arguments), context, wait_s)

    return asyncio.run(once())


def test_a_result_comes_back_with_its_time() -> None:
    outcome = run(SampleTool("echo", echo), text="你好")
    assert (outcome.ok, outcome.content, outcome.call_id, outcome.name) == (True, "你好", "c1", "echo")
    assert 0 <= outcome.elapsed_ms < 30_000


def test_an_unknown_tool_names_the_known_ones() -> None:
    async def once() -> ToolOutcome:
        context = ToolContext(call_id="c1", owner="o", language="en", progress=lambda text: None)
        runner = Runner(Toolbox([SampleTool("echo", echo)]), timeout_s=60, max_result_chars=200)
        return await runner.run(call("ecko"), context, 60)

    outcome = asyncio.run(once())
    assert not outcome.ok
    assert outcome.content == "There is no tool named ecko. Available: echo."


@pytest.mark.parametrize(
    ("arguments", "en", "zh"),
    [
        ({}, "The argument text is missing.", "缺少参数 text。"),
        ({"text": 5}, "The argument text is wrong: expected string; it was 5.", "应为字符串；收到的是 5"),
        ({"text": "123456"}, "at most 5 characters are allowed", "最多 5 个字符"),
        ({"text": "1", "size": "xl"}, "The argument size is wrong: expected one of s, m; it was 'xl'.", "s, m"),
        ({"text": "1", "owner": "boss"}, "There is no argument owner; known arguments: size, text.", "没有参数 owner"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_runs(arguments: dict, en: str, zh: str) -> None:
    tool = SampleTool("echo", echo, parameters=TEXT)
    for language, message in (("en", en), ("zh", zh)):
        outcome = run(tool, language, **arguments)
        assert not outcome.ok
        assert message in outcome.content
    assert tool.calls == 0


def test_a_huge_wrong_argument_gives_a_short_message() -> None:
    outcome = run(SampleTool("echo", echo, parameters=TEXT), text=["x" * 1_000_000])
    assert not outcome.ok
    assert len(outcome.content) < 200


def test_a_schema_that_points_elsewhere_fetches_nothing() -> None:
    tool = SampleTool("echo", echo, parameters={"type": "object", "$ref": "http://127.0.0.1:9/schema.json"})
    outcome = run(tool)
    assert not outcome.ok
    assert "127.0.0.1" not in outcome.content


def test_a_tool_error_is_shown() -> None:
    outcome = run(SampleTool("t", refuse("The office is closed.")))
    assert (outcome.ok, outcome.content) == (False, "The office is closed.")


class _Unprintable(ToolError):
    def __str__(self) -> str:
        raise RuntimeError(SECRET)


@pytest.mark.parametrize(
    "body",
    [
        raising(RuntimeError(SECRET)),
        raising(RecursionError(SECRET)),
        raising(ExceptionGroup(SECRET, [ValueError(SECRET)])),
        raising(asyncio.CancelledError(SECRET)),
        raising(TimeoutError(SECRET)),
        raising(_Unprintable()),
        exit_process,
        returning(None),
        returning({"password": SECRET}),
        returning(SECRET.encode()),
    ],
    ids=["error", "recursion", "group", "cancelled", "timeout", "unprintable", "exit", "none", "dict", "bytes"],
)
@pytest.mark.parametrize("language", ["zh", "en"])
def test_any_other_failure_leaks_nothing(body, language: Language) -> None:
    outcome = run(SampleTool("broken", body), language)
    assert not outcome.ok
    assert "hunter2" not in outcome.content
    assert "broken" in outcome.content


def test_a_failure_is_logged_for_the_operator(caplog) -> None:
    run(SampleTool("broken", raising(RuntimeError(SECRET))))
    assert "hunter2" in caplog.text
    assert "c1" in caplog.text


def test_a_tool_that_hangs_is_stopped_in_time() -> None:
    tool = SampleTool("slow", hang, timeout_s=0.05)
    outcome = run(tool)
    assert outcome.content == "The tool slow did not finish within 0.1 seconds and was stopped."
    assert tool.cancelled == 1
    assert outcome.elapsed_ms < 30_000


def test_the_common_limit_holds_for_a_tool_that_allows_itself_more() -> None:
    started = time.monotonic()
    outcome = run(SampleTool("slow", hang, timeout_s=3600), wait_s=0.05)
    assert not outcome.ok
    assert time.monotonic() - started < 30


def test_a_tool_that_ignores_its_cancellation_holds_up_nobody(monkeypatch) -> None:
    monkeypatch.setattr(runner_module, "STOP_GRACE_S", 0.05)
    started = time.monotonic()
    assert not run(SampleTool("stubborn", stubborn, timeout_s=0.05)).ok
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("language", ["zh", "en"])
def test_ten_megabytes_are_cut_with_an_honest_mark(language: Language) -> None:
    outcome = run(SampleTool("large", returning("好" * 10_000_000)), language)
    assert outcome.ok
    assert len(outcome.content) <= 200
    kept = outcome.content.count("好")
    assert f"{kept}" in outcome.content
    assert "10000000" in outcome.content


def test_a_result_at_the_limit_is_whole() -> None:
    assert run(SampleTool("exact", returning("x" * 200))).content == "x" * 200


def test_a_result_that_is_no_unicode_still_travels() -> None:
    outcome = run(SampleTool("broken", returning("a\ud800b")))
    frame = ToolResult(
        call_id="c1", name="broken", ok=True, elapsed_ms=0, content=outcome.content, seq=0, timestamp=utc_now()
    )
    assert codec.encode(LogEntry(request_id="r", append_id="a", writer="w", frames=[frame]))


def test_no_more_calls_run_at_once_than_allowed() -> None:
    running, most = 0, 0

    async def count(arguments: dict[str, Any], context: ToolContext) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return "ok"

    async def many() -> list[ToolOutcome]:
        runner = Runner(Toolbox([SampleTool("count", count)]), timeout_s=60, max_result_chars=200, concurrency=3)
        context = ToolContext(call_id="c1", owner="o", language="en", progress=lambda text: None)
        return await asyncio.gather(*(runner.run(call("count", str(n)), context, 60) for n in range(20)))

    assert all(outcome.ok for outcome in asyncio.run(many()))
    assert most == 3


def test_a_call_that_finds_no_slot_in_time_says_so() -> None:
    async def crowded() -> ToolOutcome:
        runner = Runner(Toolbox([SampleTool("slow", hang)]), timeout_s=60, max_result_chars=200, concurrency=1)
        context = ToolContext(call_id="c1", owner="o", language="en", progress=lambda text: None)
        first = asyncio.create_task(runner.run(call("slow", "a"), context, 60))
        await asyncio.sleep(0)
        outcome = await runner.run(call("slow", "b"), context, 0.02)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        return outcome

    outcome = asyncio.run(crowded())
    assert (outcome.ok, outcome.content) == (False, "Too many tools are running; this call was not started.")


def test_cancelling_a_call_cancels_its_tool() -> None:
    tool = SampleTool("slow", hang)

    async def cancelled() -> None:
        runner = Runner(Toolbox([tool]), timeout_s=60, max_result_chars=200)
        context = ToolContext(call_id="c1", owner="o", language="en", progress=lambda text: None)
        task = asyncio.create_task(runner.run(call("slow"), context, 60))
        await tool.started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert tool.cancelled == 1
