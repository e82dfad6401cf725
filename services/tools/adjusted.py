"""A tool, or a source's tools, with what the YAML entry says of every kind: `groups` and `timeout_s`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, cast

import msgspec

from baton_proto.messages import ToolSpec

from .port import Tool, ToolContext, ToolSource


@dataclass(frozen=True, slots=True)
class Adjustment:
    """`None` leaves what the tool itself says."""

    groups: tuple[str, ...] | None = None
    timeout_s: float | None = None

    def of(self, opened: Tool | ToolSource) -> Tool | ToolSource:
        """`opened` as adjusted; itself where nothing is."""
        if self == Adjustment():
            return opened
        if is_source(opened):
            return AdjustedSource(opened, self)
        return AdjustedTool(cast(Tool, opened), self)


class AdjustedTool:
    def __init__(self, tool: Tool, adjustment: Adjustment) -> None:
        self._tool = tool
        self.spec: ToolSpec = tool.spec
        if adjustment.groups is not None:
            self.spec = msgspec.structs.replace(tool.spec, groups=list(adjustment.groups))
        self.timeout_s = tool.timeout_s if adjustment.timeout_s is None else adjustment.timeout_s

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> str:
        return await self._tool.call(arguments, context)


class AdjustedSource:
    def __init__(self, source: ToolSource, adjustment: Adjustment) -> None:
        self._source = source
        self._adjustment = adjustment

    def tools(self) -> Sequence[Tool]:
        return [AdjustedTool(tool, self._adjustment) for tool in self._source.tools()]


def is_source(opened: object) -> TypeGuard[ToolSource]:
    """Whether `opened` is a `ToolSource` and not one `Tool`."""
    return callable(getattr(opened, "tools", None)) and not hasattr(opened, "spec")
