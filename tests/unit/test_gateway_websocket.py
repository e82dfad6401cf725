"""Messages that wait for a client are written to its connection together, in order, and never held back."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from uvicorn.protocols.utils import ClientDisconnected
from websockets.frames import Frame, Opcode
from websockets.protocol import CLOSED, OPEN
from websockets.server import ServerProtocol

from services.common.config import GatewaySettings
from services.gateway import connection
from services.gateway.connection import Connection
from services.gateway.websocket import MORE, WebSocketProtocol


class Writes:
    """A transport that remembers."""

    def __init__(self) -> None:
        self.made: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.made.append(data)


def protocol() -> tuple[WebSocketProtocol, Writes]:
    """uvicorn's side of a connection that is open."""
    one, writes = WebSocketProtocol.__new__(WebSocketProtocol), Writes()
    one.writable = asyncio.Event()
    one.writable.set()
    one.conn = ServerProtocol(state=OPEN)
    one.transport = writes  # type: ignore[assignment]
    one.handshake_complete, one.disconnected, one.close_sent, one.initial_response = True, False, False, None
    return one, writes


def frame(opcode: Opcode, data: bytes) -> bytes:
    return Frame(opcode, data).serialize(mask=False)


def test_a_message_with_another_behind_it_is_written_with_that_one() -> None:
    async def scenario() -> None:
        one, writes = protocol()
        await one.send({"type": "websocket.send", "text": "年假", MORE: True})
        await one.send({"type": "websocket.send", "bytes": b"two", MORE: True})
        assert writes.made == []
        await one.send({"type": "websocket.send", "text": "three", MORE: False})
        await one.send({"type": "websocket.send", "text": "four"})
        first = frame(Opcode.TEXT, "年假".encode()) + frame(Opcode.BINARY, b"two") + frame(Opcode.TEXT, b"three")
        assert writes.made == [first, frame(Opcode.TEXT, b"four")]

    asyncio.run(scenario())


def test_a_slow_or_lost_client_is_noticed_at_every_message() -> None:
    async def scenario() -> None:
        one, _ = protocol()
        one.writable.clear()
        sending = asyncio.create_task(one.send({"type": "websocket.send", "text": "a", MORE: True}))
        await asyncio.sleep(0)
        assert not sending.done()
        one.disconnected = True
        one.writable.set()
        with pytest.raises(ClientDisconnected):
            await sending
        one.disconnected, one.conn.state = False, CLOSED
        with pytest.raises(ClientDisconnected):
            await one.send({"type": "websocket.send", "text": "a", MORE: True})

    asyncio.run(scenario())


def test_what_waits_goes_together_up_to_a_size_and_the_last_one_is_never_held_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        monkeypatch.setattr(connection, "WRITE_BYTES", 250)
        socket: Any = SimpleNamespace(scope={}, send=send)
        nobody: Any = None
        one = Connection(socket, nobody, nobody, GatewaySettings(), "gateway")
        for number in range(5):
            one._outbox.put({"type": "status", "content": f"{number}".ljust(100)})
        sending = asyncio.create_task(one._send())
        await one._outbox.drained()
        sending.cancel()
        assert [message[MORE] for message in sent] == [True, False, True, False, False]
        assert [json.loads(message["text"])["content"][0] for message in sent] == ["0", "1", "2", "3", "4"]

    asyncio.run(scenario())
