"""A tool that takes a moment, so that its worker can be met in the middle of its work."""

from __future__ import annotations

import asyncio
from typing import Any

from baton_proto.messages import ToolSpec
from services.tools.port import ToolContext

PARAMETERS = {"type": "object", "properties": {"seconds": {"type": "number", "default": 0.3}}, "required": ["seconds"]}


class Slow:
    spec = ToolSpec(name="slow", description="Waits, and says how long.", parameters=PARAMETERS)
    timeout_s = 5.0

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> str:
        await asyncio.sleep(arguments["seconds"])
        return f"{arguments['seconds']} s"


def open_tool(settings: dict[str, Any]) -> Slow:
    return Slow()
