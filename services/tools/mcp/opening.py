"""Opens the entries of kind `mcp:`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.common.config import ToolsSettings

from .entry import read_entry
from .server import McpServer, Pace

_STOP_S = 8.0


@asynccontextmanager
async def open_entry(
    entry: Mapping[str, Any], place: str, settings: ToolsSettings, pace: Pace | None = None
) -> AsyncIterator[McpServer]:
    """The server of an entry, connected in the background: the worker's other tools do not wait for it.

    Raises SettingsError.
    """
    server = McpServer(read_entry(entry, place, Path(settings.tools).parent), settings.timeout_s, pace)
    keeping = asyncio.create_task(server.keep(), name=f"MCP server {server.name}")
    try:
        yield server
    finally:
        server.stop()
        await asyncio.wait([keeping], timeout=_STOP_S)
        server.stop(now=True)
        await asyncio.wait([keeping], timeout=_STOP_S)
        keeping.cancel()
