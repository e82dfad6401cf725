"""What waits to be sent on one connection: bounded, in order, and joined when the client is slow."""

from __future__ import annotations

import asyncio
import io
from collections import deque
from dataclasses import dataclass
from typing import Any

from baton_proto import codec

JOIN_ABOVE_BYTES = 64 * 1024
"""Chunks are joined only while more than this waits: a client that keeps up sees every frame by itself."""
REPLAY_BYTES = JOIN_ABOVE_BYTES // 2
"""What is read from a log waits while more than this does: a replay alone neither joins chunks nor overruns."""
STALLED_S = 30.0
"""A client that takes nothing for so long while a replay waits for it is too slow."""
MAX_LAST_BYTES = 64 * 1024
"""A terminal frame up to this size is taken beyond the limit; there is one for each request."""


@dataclass(slots=True)
class _Waiting:
    """One message: encoded already, or a chunk that may still grow."""

    size: int
    data: bytes = b""
    chunk: dict[str, Any] | None = None
    text: io.StringIO | None = None

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
        if self.overrun.is_set() or self._closed:
            return
        chunk = message["type"] == "answer_chunk"
        data = b"" if chunk else codec.client_bytes(message, binary=self._binary)
        # About what a chunk holds: exact sizes would cost an encoding for each.
        size = 128 + len(message["content"]) if chunk else len(data)
        if self._waiting and self.bytes + size > self._limit and not _may_exceed(message, size):
            self.overrun.set()
            return
        request_id = message.get("request_id", "")
        growing = self._growing.get(request_id)
        if chunk and growing is not None and self.bytes > JOIN_ABOVE_BYTES:
            self.bytes += growing.join(message)
        else:
            one = _Waiting(size, data, message if chunk else None)
            self._waiting.append(one)
            self.bytes += size
            if chunk:
                self._growing[request_id] = one
            else:
                self._growing.pop(request_id, None)
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
        if one.chunk is not None and self._growing.get(one.chunk["request_id"]) is one:
            del self._growing[one.chunk["request_id"]]
        if not self.crowded:
            self._room.set()
        return one.encoded(binary=self._binary)

    @property
    def crowded(self) -> bool:
        """Whether what can wait, because it lies in a log, should."""
        return self.bytes > self._room_below

    async def room(self) -> None:
        """Wait while it is crowded. A client that takes nothing at all for `STALLED_S` is an overrun."""
        while self.crowded and not self._closed and not self.overrun.is_set():
            self._room.clear()
            taken = self._taken
            try:
                async with asyncio.timeout(STALLED_S):
                    await self._room.wait()
            except TimeoutError:
                if self._taken == taken:
                    self.overrun.set()

    def close(self) -> None:
        """Nothing more is sent: forget what waits, and let nobody wait for room."""
        self._closed = True
        self._waiting.clear()
        self._growing.clear()
        self.bytes = 0
        self._room.set()

    @property
    def empty(self) -> bool:
        return not self._waiting


def _may_exceed(message: dict[str, Any], size: int) -> bool:
    """Whether this is a request's last frame: it would be a pity to lose the connection over it."""
    return "seq" in message and message["type"] in ("done", "error") and size <= MAX_LAST_BYTES
