"""A WebSocket server that follows a script: what a real gateway does rarely, told to a client exactly."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from websockets.asyncio.server import ServerConnection, serve

HELLO = {"type": "hello", "protocol": "baton.v1", "auth": "off"}
Script = Callable[[ServerConnection], Awaitable[None]]


async def send(connection: ServerConnection, frame: dict[str, Any], request_id: str, seq: int | None = None) -> None:
    """A frame of a request; without `seq` one about a message."""
    numbered = {} if seq is None else {"seq": seq}
    await connection.send(json.dumps({**frame, "request_id": request_id, **numbered}, ensure_ascii=False))


@contextlib.asynccontextmanager
async def gateway(script: Script, port: int = 0) -> AsyncIterator[str]:
    """Runs the script for each connection, then waits until its client leaves; gives the URL."""

    async def handle(connection: ServerConnection) -> None:
        await script(connection)
        await connection.wait_closed()

    async with serve(handle, "127.0.0.1", port) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"
