"""Takes out of a server's list the tools that break the protocol. The SDK checks a list as a whole: because of one bad
tool all others would be lost."""

from __future__ import annotations

import contextvars
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any

from mcp.client._transport import ReadStream, TransportStreams
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCResponse
from mcp.types.methods import parse_server_result
from pydantic import ValidationError

from services.common.wording import shorten

_METHOD = "tools/list"


@asynccontextmanager
async def sifted(
    transport: AbstractAsyncContextManager[TransportStreams],
    version: Callable[[], str | None],
    tell: Callable[[str], None],
    heard: Callable[[], None],
) -> AsyncIterator[TransportStreams]:
    """`transport` without such tools. `version` gives the protocol version that was agreed on, None before that; `tell`
    is told of each tool, `heard` called for everything that arrives."""
    async with transport as (reading, writing):
        yield _Sifted(reading, version, tell, heard), writing


class _Sifted:
    """A `ReadStream` over another one."""

    def __init__(
        self,
        inner: ReadStream[SessionMessage | Exception],
        version: Callable[[], str | None],
        tell: Callable[[str], None],
        heard: Callable[[], None],
    ) -> None:
        self._inner = inner
        self._version = version
        self._tell = tell
        self._heard = heard

    @property
    def last_context(self) -> contextvars.Context | None:
        """The SDK looks for it."""
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        return self._sift(await self._inner.receive())

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> _Sifted:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        return self._sift(await self._inner.__anext__())

    async def __aenter__(self) -> _Sifted:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, trace)

    def _sift(self, item: SessionMessage | Exception) -> SessionMessage | Exception:
        self._heard()
        version = self._version()
        if version is None or isinstance(item, Exception) or not isinstance(item.message, JSONRPCResponse):
            return item
        result = item.message.result
        tools = result.get("tools")
        if not isinstance(tools, list) or _problem(result, version) is None:
            return item
        good = []
        for tool in tools:
            if (problem := _problem({**result, "tools": [tool]}, version)) is None:
                good.append(tool)
            else:
                name = tool.get("name") if isinstance(tool, dict) else tool
                self._tell(f"{shorten(str(name), 80)} is left out: {problem}")
        sifted = JSONRPCResponse(jsonrpc="2.0", id=item.message.id, result={**result, "tools": good})
        return SessionMessage(sifted, item.metadata)


def _problem(result: dict[str, Any], version: str) -> str | None:
    try:
        parse_server_result(_METHOD, version, result)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"][2:])) or "it"
        return shorten(f"{place}: {first['msg']}", 200)
    return None
