"""The tools stage between generators, with real workers on a real nats-server."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from baton_proto.messages import Done, Status, Timings, ToolCalled, ToolResult, Usage
from services.common.config import ToolsSettings
from services.common.job import Handler, Job
from services.common.log import push_ref
from services.tools.port import Tool, ToolContext
from services.tools.registry import open_tools
from services.tools.service import tools_handler
from services.tools.toolbox import Toolbox
from tests.jobs import call
from tests.rig import Rig, rig
from tests.sample_tools import SampleTool, hang, raising, returning
from tests.servers.hr_system import demo_erp
from tests.servers.nats import Nats
from tests.servers.processes import PATIENCE_S, running

STAGE = "tools.default"


async def generate(job: Job) -> None:
    """Ends the log, and shows what it was handed in a status frame."""
    (turn,) = job.item.turns
    assert (job.item.calls, job.item.text) == ([], "")
    content = " | ".join(f"{result.call_id}:{result.ok}:{result.content}" for result in turn.results)
    await job.write(Status(stage="generating", content=content, count=job.item.timings.tool_calls))
    await job.finish(Done(finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=Timings()))


def handler(*tools: Tool) -> Handler:
    return tools_handler(Toolbox(tools), ToolsSettings())


def run(nats: Nats, scenario: Any) -> None:
    async def main() -> None:
        async with rig(nats.url) as one:
            await scenario(one)

    asyncio.run(main())


def test_calls_travel_to_the_tools_and_back_in_one_log(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        item = one.item(
            stage=STAGE,
            owner="anonymous",
            calls=[call("leave_balance", "a", leave_type="annual"), call("calculator", "b", expression="8.5 - 3")],
        )
        with demo_erp() as url:
            settings = ToolsSettings(leave_url=url)
            async with (
                open_tools(settings) as tools,
                one.worker(tools_handler(tools, settings), STAGE),
                one.worker(generate, "generate"),
            ):
                await one.start(item)
                frames = await one.ended(item)
        assert [type(frame) for frame in frames[1:3]] == [ToolCalled, ToolCalled]
        assert {frame.call_id for frame in frames[3:] if isinstance(frame, ToolResult)} == {"a", "b"}
        report = frames[-2]
        assert "a:True:Leave balance for 2026:\n- Annual leave: 15 days a year, 6.5 used, 8.5" in report.content
        assert report.content.endswith("b:True:8.5 - 3 = 5.5")
        assert report.count == 2

    run(nats, scenario)


@pytest.mark.parametrize(("idempotent", "runs"), [(True, 2), (False, 1)])
def test_a_lost_worker_s_call_is_repeated_only_if_that_is_harmless(nats: Nats, idempotent: bool, runs: int) -> None:
    async def scenario(one: Rig) -> None:
        begun = SampleTool("book", hang, idempotent=idempotent)
        again = SampleTool("book", returning("booked"), idempotent=idempotent)
        item = one.item(stage=STAGE, calls=[call("book", "a")])
        # Its lease outlasts a pause of the machine; the next worker's shorter one holds for what it left behind.
        async with one.worker(handler(begun), STAGE, ack_wait_s=30.0) as first:
            await one.start(item)
            await asyncio.wait_for(begun.started.wait(), PATIENCE_S)
            if not idempotent:
                assert isinstance((await one.frames(item))[-1], ToolCalled)
            await first.die()
        async with one.worker(handler(again), STAGE, ack_wait_s=2.0), one.worker(generate, "generate"):
            frames = await one.ended(item)
        assert begun.calls + again.calls == runs
        assert [frame.call_id for frame in frames if isinstance(frame, ToolCalled)] == ["a"]
        (result,) = [frame for frame in frames if isinstance(frame, ToolResult)]
        assert (result.ok, "interrupted" in result.content) == (idempotent, not idempotent)

    run(nats, scenario)


def test_a_lost_hand_off_is_made_up_for_without_running_anything(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        tool = SampleTool("book", returning("booked twice"), idempotent=False)
        item = one.item(stage=STAGE, calls=[call("book", "a")])
        ref = await one.start(item, push=False)
        stored = ToolResult(call_id="a", name="book", ok=True, elapsed_ms=5, content="booked once")
        last = (await one.bus.tail(one.bus.address(item.key))).stream_seq
        await one.append(item, ToolCalled(call_id="a", name="book", arguments={}), stored, next_seq=1, last=last)
        await push_ref(one.bus, ref)
        async with one.worker(handler(tool), STAGE), one.worker(generate, "generate"):
            frames = await one.ended(item)
        assert tool.calls == 0
        assert frames[-2].content == "a:True:booked once"

    run(nats, scenario)


def test_trouble_in_tools_stays_in_their_results(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        async def chatty(arguments: dict[str, Any], context: ToolContext) -> str:
            for number in range(1_000):
                context.progress(f"step {number} of 1,000")
            return "x" * 10_000_000

        tools = [
            SampleTool("raises", raising(RuntimeError("secret"))),
            SampleTool("hangs", hang, timeout_s=0.2),
            SampleTool("large", chatty),
        ]
        item = one.item(stage=STAGE, calls=[call(tool.spec.name, tool.spec.name) for tool in tools])
        async with one.worker(handler(*tools), STAGE), one.worker(generate, "generate"):
            await one.start(item)
            frames = await one.ended(item)
        results = {frame.call_id: frame for frame in frames if isinstance(frame, ToolResult)}
        assert {name: result.ok for name, result in results.items()} == {"raises": False, "hangs": False, "large": True}
        assert "secret" not in results["raises"].content
        assert len(results["large"].content) <= 8_000
        assert "10000000" in results["large"].content

    run(nats, scenario)


def test_a_service_with_bad_tools_says_so_and_ends(nats: Nats, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "services.tools"]
    env = {"BATON_NATS_URL": nats.url, "BATON_TOOLS": str(tmp_path / "missing.yaml"), "BATON_TIMEZONE": "Mars/Base"}
    with running(argv, tmp_path / "tools.log", env) as process:
        assert process.ended() == 2, process.text()
        said = process.text()
    assert "BATON_TIMEZONE='Mars/Base': there is no time zone" in said
    assert "missing.yaml: cannot be read: No such file or directory" in said
    assert "Traceback" not in said
