"""What waits to be sent on one connection: bounded, in order, and joined when the client is slow."""

from __future__ import annotations

import asyncio
import io
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from baton_proto import codec
from services.common import metrics

JOIN_ABOVE_BYTES = 64 * 1024
"""Chunks are joined only while more than this waits: a client that keeps up sees every frame by itself."""
REPLAY_BYTES = JOIN_ABOVE_BYTES // 2
"""A message that may wait for its turn does while more than this waits: so it neither joins chunks nor overruns."""
STALLED_S = 30.0
"""A client that takes nothing for so long while a message waits for its turn is too slow."""
MAX_LAST_BYTES = 64 * 1024
"""A terminal frame up to this size is taken beyond the limit; there is one for each request."""


@dataclass(slots=True)
class _Waiting:
    """One message: encoded already, or a chunk that may still grow."""

    size: int
    data: bytes = b""
    chunk: dict[str, Any] | None = None
    text: io.StringIO | None = None
    request_id: str = ""
    last: bool = False

    def join(self, message: dict[str, Any]) -> int:
        """Append a later chunk; returns how much this one grew."""
        assert self.chunk is not None
        if self.text is None:
            # One buffer: a list of the pieces would hold ten times their bytes.
            self.text = io.StringIO()
            self.text.write(self.chunk["content"])
            self.chunk["from_seq"] = self.chunk["seq"]
        self.text.write(message["content"])
        self.chunk["seq"], self.chunk["timestamp"] = message["seq"], message["timestamp"]
        grown = len(message["content"])
        self.size += grown
        return grown

    def encoded(self, *, binary: bool) -> bytes:
        if self.chunk is None:
            return self.data
        if self.text is not None:
            self.chunk["content"] = self.text.getvalue()
        return codec.client_bytes(self.chunk, binary=binary)


class Outbox:
    """Messages for one client. `put` never waits; `take` waits for the next one.

    Args:
        limit: bytes that may wait. Beyond it `overrun` is set and nothing more is taken. A message that finds nothing
            waiting is always taken, however large: otherwise it could never be delivered.
    """

    def __init__(self, *, binary: bool, limit: int) -> None:
        self._binary = binary
        self._limit = limit
        self._room_below = min(REPLAY_BYTES, limit // 2)
        self._waiting: deque[_Waiting] = deque()
        self._growing: dict[str, _Waiting] = {}  # request id -> its waiting chunk that may still grow
        self._ready = asyncio.Event()
        self._drained = asyncio.Event()
        self._room = asyncio.Event()
        self._taken = 0
        self._closed = False
        self.bytes = 0
        self.overrun = asyncio.Event()

    def put(self, message: dict[str, Any]) -> None:
        """Queue a message as a map (see `codec.client_map`)."""
        one = self._made(message)
        if self._waiting and self.bytes + one.size > self._limit and not (one.last and one.size <= MAX_LAST_BYTES):
            self.overrun.set()
        else:
            self._add(one)

    def put_in_turn(self, message: dict[str, Any], wanted: Callable[[], bool]) -> Awaitable[None] | None:
        """Queue a message as soon as there is room: None when it has been, otherwise what to await.

        Args:
            wanted: asked after a wait; then it may not be wanted any more.
        """
        one = self._made(message)
        if not self._has_room(one):
            return self._add_later(one, wanted)
        self._add(one)
        return None

    async def _add_later(self, one: _Waiting, wanted: Callable[[], bool]) -> None:
        while not self._has_room(one) and not self._closed and not self.overrun.is_set():
            self._room.clear()
            taken = self._taken
            try:
                async with asyncio.timeout(STALLED_S):
                    await self._room.wait()
            except TimeoutError:
                if self._taken == taken:
                    self.overrun.set()
        if wanted():
            self._add(one)

    def _has_room(self, one: _Waiting) -> bool:
        return not self._waiting or (self.bytes <= self._room_below and self.bytes + one.size <= self._limit)

    def _made(self, message: dict[str, Any]) -> _Waiting:
        request_id = message.get("request_id", "")
        if message["type"] == "answer_chunk":
            # About what it holds: exact sizes would cost an encoding for each.
            return _Waiting(128 + len(message["content"]), chunk=message, request_id=request_id)
        data = codec.client_bytes(message, binary=self._binary)
        last = "seq" in message and message["type"] in ("done", "error")
        return _Waiting(len(data), data, request_id=request_id, last=last)

    def _add(self, one: _Waiting) -> None:
        if self._closed or self.overrun.is_set():
            return
        growing = self._growing.get(one.request_id)
        if one.chunk is not None and growing is not None and self.bytes > JOIN_ABOVE_BYTES:
            self.bytes += growing.join(one.chunk)
            metrics.JOINED.inc()
        else:
            self._waiting.append(one)
            self.bytes += one.size
            if one.chunk is not None:
                self._growing[one.request_id] = one
            else:
                self._growing.pop(one.request_id, None)
        self._drained.clear()
        self._ready.set()

    async def drained(self) -> None:
        """Wait until the last message has been taken and dealt with."""
        await self._drained.wait()

    async def take(self) -> bytes:
        """The next message, encoded."""
        while not self._waiting:
            self._ready.clear()
            self._drained.set()
            await self._ready.wait()
        one = self._waiting.popleft()
        self.bytes -= one.size
        self._taken += 1
        if self._growing.get(one.request_id) is one:
            del self._growing[one.request_id]
        if self.bytes <= self._room_below:
            self._room.set()
        return one.encoded(binary=self._binary)

    def close(self) -> None:
        """Nothing more is sent: forget what waits, and let nobody wait for room."""
        self._closed = True
        self._waiting.clear()
        self._growing.clear()
        self.bytes = 0
        self._room.set()

    @property
    def behind(self) -> bool:
        """Whether so much waits that chunks are joined."""
        return self.bytes > JOIN_ABOVE_BYTES

    @property
    def empty(self) -> bool:
        return not self._waiting
