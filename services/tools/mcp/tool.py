"""A tool of an MCP server, as the runner calls it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, Protocol

from baton_proto.messages import ToolSpec
from services.common.wording import choose
from services.tools.port import ToolContext, ToolError

from .entry import McpEntry
from .listing import Offered


class Caller(Protocol):
    """The server of a tool."""

    async def call(
        self, name: str, arguments: dict[str, Any], meta: dict[str, Any] | None, context: ToolContext
    ) -> str: ...


class McpTool:
    """What `inject` names comes from the user's token, whatever a model may have written there."""

    def __init__(self, server: Caller, entry: McpEntry, offered: Offered, timeout_s: float) -> None:
        self.spec: ToolSpec = offered.spec
        self.timeout_s = timeout_s
        self._server = server
        self._entry = entry
        self._offered = offered

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> str:
        own = {name: value for name, value in arguments.items() if name not in self._entry.inject}
        injected = {name: self._entry.inject[name] for name in self._offered.injected}
        own |= _from_token(injected, context)
        meta = _from_token(self._entry.meta, context)
        return await self._server.call(self._offered.remote_name, own, meta or None, context)


def _from_token(sources: Mapping[str, str], context: ToolContext) -> dict[str, Any]:
    """Raises ToolError when the token lacks one: a call that should know its user is not made without."""
    values = {}
    for name, source in sources.items():
        value = context.owner if source == "user.sub" else _claim(context.claims, source.split(".")[1:])
        if value in (None, ""):
            raise ToolError(
                choose(
                    context.language,
                    zh=f"您的登录信息中没有 {source}，这个工具需要它。",
                    en=f"Your sign-in carries no {source}, which this tool needs.",
                )
            )
        values[name] = deepcopy(value)
    return values


def _claim(claims: Mapping[str, Any], path: Iterable[str]) -> Any:
    value: Any = claims
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
