"""A tool that takes a moment, so that its worker can be met in the middle of its work, and one with a large result."""

from __future__ import annotations

import asyncio
from typing import Any

from baton_proto.messages import ToolSpec
from services.tools.port import ToolContext

PARAMETERS = {"type": "object", "properties": {"seconds": {"type": "number", "default": 0.3}}, "required": ["seconds"]}
LARGE = 2_000_000


class Slow:
    spec = ToolSpec(name="slow", description="Waits, and says how long.", parameters=PARAMETERS)
    timeout_s = 5.0

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> str:
        await asyncio.sleep(arguments["seconds"])
        return f"{arguments['seconds']} s"


class Large:
    spec = ToolSpec(name="large", description="Says more than a frame can carry.", parameters={"type": "object"})
    timeout_s = 5.0

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> str:
        return "x" * LARGE


def slow(settings: dict[str, Any]) -> Slow:
    return Slow()


def large(settings: dict[str, Any]) -> Large:
    return Large()
