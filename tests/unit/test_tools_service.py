from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from baton_proto.messages import Status, Timings, ToolCalled, ToolOutcome, ToolResult, ToolTurn
from services.common.config import ToolsSettings
from services.common.errors import ServiceError
from services.tools.port import Tool, ToolContext
from services.tools.service import MAX_PROGRESS_LINES, tools_handler
from services.tools.toolbox import Toolbox
from tests.jobs import MemoryJob, call, tools_item
from tests.sample_tools import SampleTool, echo, hang, raising, returning


def handle(job: MemoryJob, *tools: Tool, settings: ToolsSettings | None = None) -> MemoryJob:
    asyncio.run(tools_handler(Toolbox(tools), settings or ToolsSettings())(job))
    return job


def kinds(job: MemoryJob) -> list[tuple[str, str | None]]:
    names = {ToolCalled: "call", Status: "status", ToolResult: "result"}
    return [(names[type(frame)], frame.call_id) for frame in job.frames]


def test_a_call_is_shown_run_and_handed_back() -> None:
    async def report(arguments: dict[str, Any], context: ToolContext) -> str:
        context.progress("正在查询…")
        return "8.5 天"

    earlier = ToolTurn(calls=[], results=[], text="first")
    item = tools_item(
        call("leave", year=2026),
        language="zh",
        text="稍等。",
        turns=[earlier],
        timings=Timings(tool_calls=2, queue_ms=7),
    )
    job = handle(MemoryJob(item), SampleTool("leave", report))
    assert kinds(job) == [("call", "c1"), ("status", "c1"), ("result", "c1")]
    assert job.frames[0].arguments == {"year": 2026}
    assert job.progress == [("c1", "正在查询…")]
    following = job.handed_over
    assert (following.stage, following.calls, following.text) == ("generate", [], "")
    assert following.turns[0] == earlier
    turn = following.turns[1]
    assert (turn.calls, turn.text) == (item.calls, "稍等。")
    assert [(result.call_id, result.ok, result.content) for result in turn.results] == [("c1", True, "8.5 天")]
    assert following.timings == Timings(tool_calls=3, queue_ms=7)


def test_calls_run_side_by_side_and_results_keep_the_order_of_the_calls() -> None:
    second_done = asyncio.Event()

    async def first(arguments: dict[str, Any], context: ToolContext) -> str:
        await second_done.wait()
        return "one"

    async def second(arguments: dict[str, Any], context: ToolContext) -> str:
        second_done.set()
        return "two"

    item = tools_item(call("first", "a"), call("second", "b"))
    job = handle(MemoryJob(item), SampleTool("first", first), SampleTool("second", second))
    assert kinds(job) == [("call", "a"), ("call", "b"), ("result", "b"), ("result", "a")]
    assert [result.content for result in job.handed_over.turns[-1].results] == ["one", "two"]


def test_failures_are_results_beside_the_others() -> None:
    item = tools_item(call("broken", "a"), call("nowhere", "b"), call("echo", "c", text="fine"))
    job = handle(MemoryJob(item), SampleTool("broken", raising(RuntimeError("secret"))), SampleTool("echo", echo))
    assert {key: result.ok for key, result in job.results.items()} == {"a": False, "b": False, "c": True}
    assert job.handed_over.timings.tool_calls == 3


def test_progress_of_one_call_is_relayed_while_another_runs() -> None:
    relayed = asyncio.Event()

    def on_write(frame) -> None:
        if isinstance(frame, Status):
            relayed.set()

    async def reporting(arguments: dict[str, Any], context: ToolContext) -> str:
        context.progress("half way")
        await relayed.wait()  # the line is out while the call still runs
        return "done"

    job = handle(MemoryJob(tools_item(call("reporting")), on_write=on_write), SampleTool("reporting", reporting))
    assert job.progress == [("c1", "half way")]


def test_progress_is_bounded_in_number_and_length() -> None:
    async def chatty(arguments: dict[str, Any], context: ToolContext) -> str:
        for _ in range(10_000):
            context.progress("x" * 10_000 + "\n\ud800")
        return "done"

    job = handle(MemoryJob(tools_item(call("chatty"))), SampleTool("chatty", chatty))
    assert len(job.progress) == MAX_PROGRESS_LINES
    assert all(len(content) <= 300 for _, content in job.progress)


def test_progress_after_the_result_is_dropped() -> None:
    late: list[ToolContext] = []

    async def early(arguments: dict[str, Any], context: ToolContext) -> str:
        late.append(context)
        return "done"

    async def other(arguments: dict[str, Any], context: ToolContext) -> str:
        await first.started.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        late[0].progress("too late")
        for _ in range(20):
            await asyncio.sleep(0)
        return "done"

    first = SampleTool("early", early)
    item = tools_item(call("early", "a"), call("other", "b"))
    job = handle(MemoryJob(item), first, SampleTool("other", other))
    assert job.progress == []


def test_progress_may_come_from_a_thread() -> None:
    async def threaded(arguments: dict[str, Any], context: ToolContext) -> str:
        thread = threading.Thread(target=context.progress, args=("from afar",))
        thread.start()
        await asyncio.to_thread(thread.join)
        await asyncio.sleep(0)
        return "done"

    job = handle(MemoryJob(tools_item(call("threaded"))), SampleTool("threaded", threaded))
    assert job.progress == [("c1", "from afar")]


def test_the_owner_reaches_the_tool_and_cannot_be_changed_by_it() -> None:
    seen = []

    async def nosy(arguments: dict[str, Any], context: ToolContext) -> str:
        seen.append((context.owner, dict(context.claims), context.language))
        arguments["list"].append("changed")
        with pytest.raises(TypeError):
            context.claims["role"] = "admin"
        return "ok"

    item = tools_item(call("nosy", list=[]), owner="lin.yue", claims={"role": "user"}, language="zh")
    job = handle(MemoryJob(item), SampleTool("nosy", nosy))
    assert job.results["c1"].ok
    assert seen == [("lin.yue", {"role": "user"}, "zh")]
    assert job.handed_over.turns[-1].calls[0].arguments == {"list": []}


def test_all_calls_of_a_turn_share_one_time_limit() -> None:
    settings = ToolsSettings(turn_timeout_s=0.1, concurrency=1)
    item = tools_item(*(call("slow", f"c{n}") for n in range(5)))
    job = handle(MemoryJob(item), SampleTool("slow", hang), settings=settings)
    assert not any(result.ok for result in job.results.values())
    assert len(job.handed_over.turns[-1].results) == 5


def test_calls_with_the_same_id_count_once() -> None:
    item = tools_item(call("echo", "a", text="1"), call("echo", "a", text="2"))
    job = handle(MemoryJob(item), SampleTool("echo", echo))
    assert kinds(job) == [("call", "a"), ("result", "a")]
    assert [result.content for result in job.handed_over.turns[-1].results] == ["1"]


# --- fail-over --------------------------------------------------------------------------------------------------------


def called(call_id: str, name: str = "echo") -> ToolCalled:
    return ToolCalled(call_id=call_id, name=name, arguments={})


def result(call_id: str, content: str = "stored", name: str = "echo") -> ToolResult:
    return ToolResult(call_id=call_id, name=name, ok=True, elapsed_ms=9, content=content)


def test_a_call_with_a_stored_result_is_not_run_again() -> None:
    tool = SampleTool("echo", echo)
    item = tools_item(call("echo", "a", text="new"), call("echo", "b", text="new"))
    job = handle(MemoryJob(item, written=[called("a"), called("b"), result("a")]), tool)
    assert kinds(job) == [("result", "b")]
    assert tool.calls == 1
    assert job.handed_over.turns[-1].results[0] == ToolOutcome(
        call_id="a", name="echo", ok=True, content="stored", elapsed_ms=9
    )
    assert [outcome.content for outcome in job.handed_over.turns[-1].results] == ["stored", "new"]


def test_frames_that_are_missing_are_added() -> None:
    item = tools_item(call("echo", "a"), call("echo", "b"))
    job = handle(MemoryJob(item, written=[called("a")]), SampleTool("echo", echo))
    assert kinds(job)[0] == ("call", "b")
    assert sorted(kinds(job)[1:]) == [("result", "a"), ("result", "b")]


@pytest.mark.parametrize(("language", "word"), [("en", "interrupted"), ("zh", "中断")])
def test_a_call_that_may_have_happened_is_not_repeated_unless_that_is_harmless(language: str, word: str) -> None:
    once = SampleTool("once", returning("booked"), idempotent=False)
    again = SampleTool("again", returning("looked up"))
    item = tools_item(call("once", "a"), call("again", "b"), language=language)
    job = handle(MemoryJob(item, written=[called("a", "once"), called("b", "again")]), once, again)
    assert (once.calls, again.calls) == (0, 1)
    assert not job.results["a"].ok
    assert word in job.results["a"].content
    assert job.results["b"].content == "looked up"
    assert [outcome.call_id for outcome in job.handed_over.turns[-1].results] == ["a", "b"]


def test_a_call_of_a_tool_that_has_gone_since_is_not_made_again() -> None:
    """It may have been made, it may be harmful, and its server may be back in a moment."""
    job = handle(MemoryJob(tools_item(call("gone", "a")), written=[called("a", "gone")]), SampleTool("echo", echo))
    assert "interrupted" in job.results["a"].content


def test_a_call_that_must_not_be_repeated_starts_after_its_frame_is_stored() -> None:
    stored_at_start: list[int | None] = []

    async def book(arguments: dict[str, Any], context: ToolContext) -> str:
        stored_at_start.append(job.flushed)
        return "booked"

    job = MemoryJob(tools_item(call("book")))
    handle(job, SampleTool("book", book, idempotent=False))
    assert stored_at_start == [1]


def test_when_only_the_hand_off_was_lost_it_is_made_up_for() -> None:
    tool = SampleTool("echo", echo)
    job = handle(MemoryJob(tools_item(call("echo", "a")), written=[called("a"), result("a")]), tool)
    assert tool.calls == 0
    assert [type(frame) for frame in job.frames] == [Status]
    assert job.handed_over.stage == "generate"
    assert job.handed_over.turns[-1].results[0].content == "stored"


# --- the end comes from outside ---------------------------------------------------------------------------------------


def test_a_cancel_stops_every_tool_before_the_handler_returns() -> None:
    tools = [SampleTool(f"slow{n}", hang) for n in range(3)]
    job = MemoryJob(tools_item(*(call(f"slow{n}", f"c{n}") for n in range(3))))

    async def cancelled() -> None:
        task = asyncio.create_task(tools_handler(Toolbox(tools), ToolsSettings())(job))
        for tool in tools:
            await tool.started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(cancelled())
    assert [tool.cancelled for tool in tools] == [1, 1, 1]
    assert job.handed_over is None


def test_a_log_that_refuses_stops_every_tool() -> None:
    def on_write(frame) -> None:
        if isinstance(frame, ToolResult):
            raise ServiceError("internal", "the baton is gone")

    slow = SampleTool("slow", hang)
    job = MemoryJob(tools_item(call("echo", "a"), call("slow", "b")), on_write=on_write)
    with pytest.raises(ServiceError):
        handle(job, SampleTool("echo", echo), slow)
    assert slow.cancelled == 1
