"""Tools of two MCP servers in a whole answer: a model's server, a generator and a tools worker, all as processes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from baton_proto import subjects
from baton_proto.messages import AnswerChunk, Done, Status, ToolCalled, ToolResult
from services.common.cancelling import order_cancel
from services.common.presence import watch
from tests.rig import Rig, rig
from tests.servers.llm import aimock
from tests.servers.mcp import TIME_STDIO, Tap, children, everything_http, is_running, tap
from tests.servers.nats import Nats
from tests.servers.processes import eventually, running

LONG = "trigger-long-running-operation"
BOTH = [
    {"id": "call_a", "name": "time_get_current_time", "arguments": {"timezone": "Asia/Tokyo"}},
    {"id": "call_b", "name": LONG, "arguments": {"duration": 0.3, "steps": 3}},
]
ENDLESS = [{"id": "call_c", "name": LONG, "arguments": {"duration": 30, "steps": 600}}]
FIXTURES: list[dict[str, Any]] = [
    {"match": {"userMessage": "what time", "hasToolResult": False}, "response": {"toolCalls": BOTH}},
    {"match": {"userMessage": "what time"}, "response": {"content": "It is late in Tokyo."}},
    {"match": {"userMessage": "for ever"}, "response": {"toolCalls": ENDLESS}},
]


@asynccontextmanager
async def answering(nats: Nats, folder: Path) -> AsyncIterator[tuple[Rig, Tap]]:
    """A generator with a scripted model, and a tools worker whose MCP tools are there."""
    with everything_http(folder) as everything, aimock(folder / "llm", FIXTURES) as llm:
        async with rig(nats.url) as one, tap(everything.port) as wire:
            clock = {"name": "time", "command": TIME_STDIO, "prefix": "time_"}
            entries = [{"mcp": clock}, {"mcp": {"name": "all", "url": wire.url}, "timeout_s": 15}]
            tools = folder / "tools.yaml"
            tools.write_text(yaml.safe_dump({"tools": entries}), encoding="utf-8")
            env = {
                "BATON_NATS_URL": nats.url,
                "BATON_LOG_SHARDS": str(one.settings.shards),
                "BATON_GENERATOR": "openai",
                "BATON_LLM_URL": llm,
                "BATON_LLM_MODEL": "scripted",
                "BATON_TOOLS": str(tools),
            }
            with (
                running([sys.executable, "-m", "services.tools"], folder / "tools.log", env) as worker,
                running([sys.executable, "-m", "services.generator"], folder / "generator.log", env),
            ):
                async with watch(one.bus) as presence:

                    def there() -> bool:
                        names = {spec.name for specs in presence.tools().values() for spec in specs}
                        return {LONG, "time_get_current_time"} <= names and bool(presence.live(subjects.GENERATE))

                    await eventually(there, "both workers and the MCP tools are announced", 60.0)
                yield one, wire
                (program,) = children("mcp_server_time", worker.pid)
                # Away from this loop: the tap must go on for a good-bye to arrive.
                assert await asyncio.to_thread(worker.stop) == 0, worker.text()
                assert not is_running(program)
                assert "Traceback" not in worker.text()
            # It was sent before the worker ended; the tap may not have read it yet.
            await eventually(lambda: any(b"DELETE /mcp" in sent for sent in wire.sent), "a good-bye is said")


def test_a_model_calls_tools_of_both_servers_and_a_cancel_reaches_one(nats: Nats, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with answering(nats, tmp_path) as (one, wire):
            item = one.item(stage=subjects.GENERATE, query="what time is it?")
            await one.start(item)
            frames = await one.ended(item)
            called = [frame.name for frame in frames if isinstance(frame, ToolCalled)]
            assert called == ["time_get_current_time", LONG]
            progress = [
                (frame.call_id, frame.content) for frame in frames if isinstance(frame, Status) and frame.call_id
            ]
            assert progress[:2] == [("call_b", "1/3"), ("call_b", "2/3")]
            results = {frame.call_id: frame for frame in frames if isinstance(frame, ToolResult)}
            assert json.loads(results["call_a"].content)["timezone"] == "Asia/Tokyo"
            assert (results["call_b"].ok, results["call_b"].content[:22]) == (True, "Long running operation")
            assert (
                "".join(frame.content for frame in frames if isinstance(frame, AnswerChunk))
                == FIXTURES[1]["response"]["content"]
            )

            item = one.item(stage=subjects.GENERATE, query="go on for ever")
            await one.start(item)

            async def under_way() -> bool:
                frames = await one.frames(item)
                return any(isinstance(frame, Status) and frame.content == "1/600" for frame in frames)

            await eventually(under_way, "the call makes progress")
            await order_cancel(one.bus, item.key)
            last = (await one.ended(item))[-1]
            assert isinstance(last, Done)
            assert last.finish_reason == "cancelled"
            await eventually(lambda: wire.posts("notifications/cancelled"), "the server is told")
            (cancelled,) = wire.posts("notifications/cancelled")
            # By its arguments: the posts of one connection come before those of the next, whenever they were sent.
            (endless,) = [post for post in wire.posts("tools/call") if post["params"]["arguments"].get("steps") == 600]
            assert cancelled["params"]["requestId"] == endless["id"]

    asyncio.run(scenario())
