"""An MCP server over streamable HTTP, through the SDK's transport, with an eye on every response."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import httpx2
from mcp.client._transport import TransportStreams
from mcp.client.streamable_http import streamable_http_client

from .entry import McpEntry

MAX_BODY_BYTES = 4 * 1024 * 1024
"""One JSON answer. Events of a stream have the SDK's own bound, 1 MiB each."""
CONNECT_S = 10.0
GOODBYE_S = 2.0
"""Seconds for telling a server that its session has ended."""
_KEEP_ALIVE_S = 2.0
"""Below the five seconds after which node's servers close an idle connection: a request into one that is just being
closed would cost all calls of the session."""


@asynccontextmanager
async def reached(entry: McpEntry, trouble: Callable[[], None]) -> AsyncIterator[TransportStreams]:
    """The streams to the server at `entry.url`. `trouble` is called whenever something seems wrong with it: there is no
    connection that would end. The SDK follows a redirect only within the address's origin."""
    logging.getLogger("mcp.client.streamable_http").addFilter(_without_good_byes)
    limits = httpx2.Limits(max_connections=None, keepalive_expiry=_KEEP_ALIVE_S)
    # Without the environment's proxies: settings come from the YAML file only.
    transport = _Watched(httpx2.AsyncHTTPTransport(limits=limits, trust_env=False), trouble)
    async with (
        httpx2.AsyncClient(
            headers={**entry.headers, "Accept-Encoding": "identity"},
            # No time-out between two bytes: a call may be silent for as long as it may last.
            timeout=httpx2.Timeout(CONNECT_S, read=None),
            transport=transport,
            trust_env=False,
        ) as client,
        streamable_http_client(entry.url, http_client=client) as streams,
    ):
        yield streams


def _without_good_byes(record: logging.LogRecord) -> bool:
    """Not with a traceback what is no error: the SDK logs one when a session ends while something still arrives."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, anyio.BrokenResourceError | anyio.ClosedResourceError)


class _Watched(httpx2.AsyncBaseTransport):
    """Tells of connections that fail and of statuses that a healthy server does not send, and bounds JSON bodies."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, trouble: Callable[[], None]) -> None:
        self._inner = inner
        self._trouble = trouble

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            if request.method == "DELETE":
                with anyio.fail_after(GOODBYE_S):
                    response = await self._inner.handle_async_request(request)
            else:
                response = await self._inner.handle_async_request(request)
        except httpx2.TransportError:
            self._trouble()
            raise
        # 405: a server need not offer a stream of its own.
        if response.status_code >= 400 and response.status_code != httpx2.codes.METHOD_NOT_ALLOWED:
            self._trouble()
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        # A small compressed body may hide a large one: what comes compressed although we did not ask for it stays so.
        response.headers.pop("content-encoding", None)
        streamed = response.headers.get("content-type", "").lower().startswith("text/event-stream")
        body = _Body(response.stream, self._trouble, None if streamed else MAX_BODY_BYTES)
        return httpx2.Response(
            response.status_code, headers=response.headers, stream=body, extensions=response.extensions
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, trouble: Callable[[], None], room: int | None) -> None:
        self._inner = inner
        self._trouble = trouble
        self._room = room

    async def __aiter__(self) -> AsyncIterator[bytes]:
        room = self._room
        try:
            async for piece in self._inner:
                if room is not None:
                    room -= len(piece)
                    if room < 0:
                        raise httpx2.StreamError(f"more than {self._room} bytes")
                yield piece
        except httpx2.TransportError:
            self._trouble()
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()
