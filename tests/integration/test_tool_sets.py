"""Two tools workers with different sets, as processes, and one answer that needs both."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import yaml

from baton_proto.messages import Done, Handoff, ToolCalled, ToolResult
from services.common.config import GeneratorSettings
from services.common.presence import watch
from services.generator.port import Calls, Event, Finish, Prompt, Text
from services.generator.service import generate_handler
from tests.jobs import call
from tests.rig import rig
from tests.servers.nats import Nats
from tests.servers.processes import eventually, running
from tests.servers.web import Web, web

WANTED = [
    call("calculator", "a", expression="6 * 7"),
    call("opening_hours", "b", shop="Mitte"),
    call("salaries", "c", shop="Mitte"),
]


class Scripted:
    """Asks for all calls in one turn, again for those without a result, and then tells the results."""

    async def generate(self, prompt: Prompt) -> AsyncIterator[Event]:
        results = {result.call_id: result for turn in prompt.turns for result in turn.results}
        missing = [one for one in WANTED if one.call_id not in results]
        if missing:
            yield Calls(missing)
            return
        yield Text(" | ".join(results[one.call_id].content for one in WANTED))
        yield Finish()


def tools_yaml(path: Path, server: Web) -> str:
    def http(name: str, target: str) -> dict[str, object]:
        return {
            "name": name,
            "description": name,
            "url": server.url + target,
            "hosts": [server.host],
            "private": ["127.0.0.0/8"],
            "parameters": {"properties": {"shop": {"type": "string"}}, "required": ["shop"]},
            "result": "{/target} for {/headers/x-who}",
            "headers": {"X-Who": "{user.sub}"},
        }

    content = {
        "builtin": [],
        "tools": [
            {"http": http("opening_hours", "/hours/{shop}")},
            {"http": http("salaries", "/salaries/{shop}"), "groups": ["board"]},
        ],
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def test_workers_of_two_sets_serve_the_calls_of_one_turn(nats: Nats, tmp_path: Path) -> None:
    with web() as server:
        asyncio.run(scenario(nats, tmp_path, server))
        assert [seen["target"] for seen in server.seen] == ["/hours/Mitte"]


async def scenario(nats: Nats, folder: Path, server: Web) -> None:
    argv, env = [sys.executable, "-m", "services.tools"], {"BATON_NATS_URL": nats.url, "BATON_LOG_SHARDS": "4"}
    web_env = {**env, "BATON_TOOL_SET": "web", "BATON_TOOLS": tools_yaml(folder / "web.yaml", server)}
    with contextlib.ExitStack() as processes:
        for name, one in (("default", env), ("web", web_env)):
            processes.enter_context(running(argv, folder / f"{name}.log", one))
        async with rig(nats.url) as one, watch(one.bus) as presence:

            async def served() -> bool:
                return {"tools.default", "tools.web"} <= set(presence.tools())

            await eventually(served, "both sets are announced", 60)
            assert {spec.name for spec in presence.tools()["tools.default"]} == {"calculator", "date_time"}
            groups = {spec.name: spec.groups for spec in presence.tools()["tools.web"]}
            assert groups == {"opening_hours": [], "salaries": ["board"]}

            handler = generate_handler(Scripted(), GeneratorSettings(), presence.tools)
            item = one.item(stage="generate", owner="lin.yue", claims={"groups": ["sales"]})
            async with one.worker(handler, "generate"):
                await one.start(item)
                frames = await one.ended(item)

    results = {frame.call_id: frame for frame in frames if isinstance(frame, ToolResult)}
    assert isinstance(frames[-1], Done)
    assert results["a"].content == "6 * 7 = 42"
    assert results["b"].content == "/hours/Mitte for lin.yue"
    # Whoever refuses it: a generator that knows the user's groups may not even hand the call over.
    assert "c" not in results or results["c"].content == "The tool salaries is not available to this user."
    # One set after the other: the calculator has answered before the other set is asked.
    order = [(type(frame), frame.call_id) for frame in frames if isinstance(frame, ToolCalled | ToolResult)]
    assert order.index((ToolResult, "a")) < order.index((ToolCalled, "b"))
    stages = [frame.handoff.stage for frame in frames if isinstance(getattr(frame, "handoff", None), Handoff)]
    assert stages == ["generate", "tools.default", "generate", "tools.web", "generate"]
