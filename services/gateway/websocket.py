"""uvicorn's WebSocket, but messages that go out one behind the other are written to the connection together: each write
is a system call by itself, which costs as much as making the message."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState

MORE = "baton.more"
"""Set in an ASGI message `websocket.send`: another one follows at once, and this one is written with it."""


class WebSocketProtocol(WebSocketsSansIOProtocol):
    async def send(self, message: Any) -> None:
        if not message.get(MORE):
            await super().send(message)
            return
        await self.writable.wait()
        if self.disconnected:
            raise ClientDisconnected
        try:
            if (text := message.get("text")) is not None:
                self.conn.send_text(text.encode())
            else:
                self.conn.send_binary(message["bytes"])
        except InvalidState:
            raise ClientDisconnected from None
