"""A TCP connection that can be cut as a network is: nothing is refused or closed, bytes just do not arrive."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Cable:
    """Forwards to `port` while `plugged` is set; what was sent meanwhile arrives when it is plugged in again."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.port = 0
        self.plugged = asyncio.Event()
        self.plugged.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self.plugged.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def cable(port: int) -> AsyncIterator[Cable]:
    """A cable to a server on this machine; connect to its `port`."""
    one = Cable(port)
    server = await asyncio.start_server(one._serve, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        one.plugged.set()
        server.close()
