"""The tool that the tiny model calls, for the whole system."""

from __future__ import annotations

from typing import Any

from services.tools.port import ToolContext

from .dialogues import DAYS_LEFT, RESULTS


class DaysLeft:
    spec = DAYS_LEFT
    timeout_s = 5.0

    async def call(self, arguments: dict[str, Any], _: ToolContext) -> str:
        return RESULTS[arguments["leave_type"]]


def open_days_left(_: Any) -> DaysLeft:
    return DaysLeft()
