"""Opening MCP servers in tests and calling their tools without a worker around them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any

from baton_proto.messages import Language
from services.common.config import ToolsSettings
from services.tools.mcp import open_entry
from services.tools.mcp.server import McpServer, Pace
from services.tools.port import Tool, ToolContext, ToolError
from tests.servers.processes import PATIENCE_S, eventually

QUICK = Pace(connect_s=30.0, first_wait_s=0.05, longest_wait_s=0.3, relist_s=0.1)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Every wait inside has a bound of its own; this one is for what has none by mistake."""

    async def bounded() -> None:
        async with asyncio.timeout(100):
            await scenario

    asyncio.run(bounded())


@contextlib.asynccontextmanager
async def opened(pace: Pace = QUICK, timeout_s: float = 20.0, **entry: Any) -> AsyncIterator[McpServer]:
    """A server that is on its way."""
    settings = ToolsSettings(timeout_s=timeout_s)
    async with open_entry({"mcp": {"name": "srv", **entry}}, "here", settings, pace) as server:
        yield server


@contextlib.asynccontextmanager
async def connected(pace: Pace = QUICK, timeout_s: float = 20.0, **entry: Any) -> AsyncIterator[McpServer]:
    async with opened(pace, timeout_s, **entry) as server:
        await arrives(server)
        yield server


async def arrives(server: McpServer, name: str = "") -> None:
    await eventually(lambda: name in names(server) if name else server.tools(), f"the tools {name} are there")


async def leaves(server: McpServer, within_s: float = PATIENCE_S) -> None:
    await eventually(lambda: not server.tools(), "the tools are gone", within_s)


def names(server: McpServer) -> list[str]:
    return [tool.spec.name for tool in server.tools()]


def tool(server: McpServer, name: str) -> Tool:
    (found,) = [one for one in server.tools() if one.spec.name == name]
    return found


def context(
    lines: list[str] | None = None, language: Language = "en", claims: Mapping[str, Any] | None = None
) -> ToolContext:
    progress = lines.append if lines is not None else lambda text: None
    return ToolContext(call_id="c1", owner="lin.yue", language=language, progress=progress, claims=claims or {})


async def call(server: McpServer, name: str, /, **arguments: Any) -> str:
    return await tool(server, name).call(arguments, context())


async def refusal(coroutine: Coroutine[Any, Any, str]) -> str:
    """What a call that fails says."""
    try:
        answer = await coroutine
    except ToolError as error:
        return str(error)
    raise AssertionError(f"it did not fail, but gave {answer[:200]}")
