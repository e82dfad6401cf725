"""Cheap WebSocket clients for benchmarks: they cost a fraction of a full one, so the server is measured.

Of a gateway, and of nats-server's own WebSocket listener, which the gateway is compared with.
"""

from __future__ import annotations

import asyncio
import base64
import os
import resource
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

BUFFER_BYTES = 32_768


class Frame(msgspec.Struct):
    """What a benchmark looks at in a message from the gateway."""

    type: str
    request_id: str = ""
    seq: int = -1
    from_seq: int = -1
    content: str = ""
    code: str = ""
    stage: str = ""
    conversation_id: str = ""
    finish_reason: str = ""
    variant: str | None = None

    @property
    def first(self) -> int:
        return self.seq if self.from_seq < 0 else self.from_seq


_decoder = msgspec.json.Decoder(Frame)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a gateway is, and the token it wants."""

    port: int
    host: str = "127.0.0.1"
    path: str = "/ws"
    tls: bool = False
    token: str = ""

    @staticmethod
    def of(url: str, token: str = "") -> Address:
        """Raises ValueError: it is none of a WebSocket."""
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise ValueError(f"{url}: expected ws://HOST[:PORT]/ws or wss://…")
        tls = parts.scheme == "wss"
        return Address(parts.port or (443 if tls else 80), parts.hostname, parts.path or "/ws", tls, token)


class RawSocket(asyncio.Protocol):
    """One connection. Each message is given to `receive` as it is, with the time of its arrival."""

    def __init__(self, receive: Callable[[bytes, float], None], address: Address) -> None:
        self._receive = receive
        self._address = address
        self._buffer = bytearray()
        self._open = False
        self._transport: asyncio.Transport | None = None
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[int] = loop.create_future()
        """Its close code; 1006 where there was none."""

    def send(self, message: object) -> None:
        self._write(1, msgspec.json.encode(message))

    def _write(self, opcode: int, data: bytes) -> None:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
        length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack("!H", len(data))
        assert self._transport is not None
        self._transport.write(bytes([0x80 | opcode]) + length + mask + masked)

    def pause(self) -> None:
        """Read nothing for now: the gateway sees a slow client once the buffers between are full."""
        assert self._transport is not None
        self._transport.pause_reading()

    def go_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio's side -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        address = self._address
        token = f"Authorization: Bearer {address.token}\r\n" if address.token else ""
        transport.write(
            f"GET {address.path} HTTP/1.1\r\nHost: {address.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"{token}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._buffer += data
        if not self._open:
            head, found, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            if not found:
                return
            if b" 101 " not in (status := head.split(b"\r\n", 1)[0]):
                self._refused(status.decode(errors="replace"))
                return
            self._buffer, self._open = bytearray(rest), True
            self.opened.set_result(None)
        at = 0
        while (message := self._message(at)) is not None:
            opcode, body, at = message
            if opcode == 8:
                self._ended(struct.unpack("!H", body[:2])[0] if len(body) >= 2 else 1005)
                break
            if opcode == 9:
                self._write(10, body)  # a ping that is not answered ends the connection
            elif opcode in (1, 2):
                self._receive(body, now)
        del self._buffer[:at]

    def connection_lost(self, _: Exception | None) -> None:
        self._ended(1006)

    def _message(self, at: int) -> tuple[int, bytes, int] | None:
        """The whole message at an offset: opcode, body, where the next one begins. Neither server fragments."""
        buffer = self._buffer
        if len(buffer) < at + 2:
            return None
        opcode, length, start = buffer[at] & 15, buffer[at + 1], at + 2
        if length == 126:
            start += 2
        elif length == 127:
            start += 8
        if len(buffer) < start:
            return None
        if length >= 126:
            length = int.from_bytes(buffer[at + 2 : start], "big")
        if len(buffer) < start + length:
            return None
        return opcode, bytes(buffer[start : start + length]), start + length

    def _ended(self, code: int) -> None:
        if not self.closed.done():
            self.closed.set_result(code)
        self._refused(f"closed with {code} while it was opened")

    def _refused(self, why: str) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionError(why))
            self.opened.exception()
            self.close()


class Socket(RawSocket):
    """A gateway's client. Each message is decoded and given to `receive`."""

    def __init__(self, receive: Callable[[Socket, Frame, float], None], address: Address) -> None:
        super().__init__(lambda body, now: receive(self, _decoder.decode(body), now), address)


class NatsSocket(RawSocket):
    """A client of nats-server's WebSocket listener with one subscription. What comes is given to `receive` as the NATS
    protocol has it, one or several operations at once."""

    def __init__(self, subject: str, receive: Callable[[bytes, float], None], address: Address) -> None:
        super().__init__(self._on_operations, address)
        self._subject = subject
        self._give = receive
        self.subscribed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def _on_operations(self, body: bytes, now: float) -> None:
        if body.startswith(b"INFO ") and not self.subscribed.done():
            options = b'{"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1}'
            self._write(2, b"CONNECT %b\r\nSUB %b 1\r\nPING\r\n" % (options, self._subject.encode()))
        elif body.startswith(b"PONG") and not self.subscribed.done():
            self.subscribed.set_result(None)
        if body.endswith(b"PING\r\n"):
            self._write(2, b"PONG\r\n")
        self._give(body, now)


S = TypeVar("S", bound=RawSocket)


async def subscribe(port: int, subject: str, receive: Callable[[bytes, float], None]) -> NatsSocket:
    """A connection to the WebSocket listener of a nats-server of this machine, subscribed. Raises OSError."""
    address = Address(port, path="/")
    one = await opened(address, lambda: NatsSocket(subject, receive, address))
    await one.subscribed
    return one


async def connect(
    address: Address | int, receive: Callable[[Socket, Frame, float], None], buffer_bytes: int = BUFFER_BYTES
) -> Socket:
    """An open connection to a gateway. Raises OSError.

    Args:
        address: a number is a port of this machine.
        buffer_bytes: as for `opened`.
    """
    place = Address(address) if isinstance(address, int) else address
    return await opened(place, lambda: Socket(receive, place), buffer_bytes)


async def opened(address: Address, make: Callable[[], S], buffer_bytes: int = BUFFER_BYTES) -> S:
    """What `make` gives as an open connection, with segments as small as on a real network. Raises OSError.

    Args:
        buffer_bytes: what the kernel holds here for a client that does not read.
    """
    loop = asyncio.get_running_loop()
    family, kind, protocol, _, place = (
        await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, family=socket.AF_UNSPEC)
    )[0]
    plain = socket.socket(family, kind, protocol)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    # On loopback segments of 64 KiB let the sender's kernel hold megabytes for one slow client.
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1_400)
    plain.setblocking(False)
    try:
        await loop.sock_connect(plain, place)
    except OSError:
        plain.close()
        raise
    tls, name = (ssl.create_default_context(), address.host) if address.tls else (None, None)
    _, connection = await loop.create_connection(make, sock=plain, ssl=tls, server_hostname=name)
    await connection.opened
    return connection


def allow_open_files(wanted: int) -> None:
    """Every connection is an open file, here and in the server, which inherits the bound if it is started afterwards.

    Raises:
        OSError: this process may not have so many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise OSError(f"connections: a process may have {hard} open files here (ulimit -n); lower them or raise it")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
