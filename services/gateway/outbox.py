"""What waits to be sent on one connection: bounded, in order, and joined when the client is slow."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from baton_proto import codec

JOIN_ABOVE_BYTES = 64 * 1024
"""Chunks are joined only while more than this waits: a client that keeps up sees every frame by itself."""


class Outbox:
    """Messages for one client. `put` never waits; `take` waits for the next one.

    Args:
        limit: bytes that may wait. Beyond it `overrun` is set and nothing more is taken.
    """

    def __init__(self, *, binary: bool, limit: int) -> None:
        self._binary = binary
        self._limit = limit
        self._waiting: deque[dict[str, Any]] = deque()
        self._sizes: deque[int] = deque()
        self._last_chunk: dict[str, dict[str, Any]] = {}  # request id -> its waiting chunk that may still grow
        self._ready = asyncio.Event()
        self._drained = asyncio.Event()
        self.bytes = 0
        self.overrun = asyncio.Event()

    def put(self, message: dict[str, Any]) -> None:
        """Queue a message as a map (see `codec.client_map`)."""
        if self.overrun.is_set():
            return
        size = _size(message)
        if self.bytes + size > self._limit:
            self.overrun.set()
            return
        self.bytes += size
        if not self._joined(message, size):
            self._waiting.append(message)
            self._sizes.append(size)
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
        message = self._waiting.popleft()
        self.bytes -= self._sizes.popleft()
        request_id = message.get("request_id", "")
        if self._last_chunk.get(request_id) is message:
            del self._last_chunk[request_id]
        if (parts := message.pop("parts", None)) is not None:
            message["content"] = "".join(parts)
            self.bytes -= sum(map(len, parts[1:]))
        return codec.client_bytes(message, binary=self._binary)

    @property
    def empty(self) -> bool:
        return not self._waiting

    def _joined(self, message: dict[str, Any], size: int) -> bool:
        """Whether the message went into the waiting chunk of its request instead of the queue."""
        request_id = message.get("request_id", "")
        if message["type"] != "answer_chunk":
            self._last_chunk.pop(request_id, None)
            return False
        last = self._last_chunk.get(request_id)
        if last is None or self.bytes <= JOIN_ABOVE_BYTES:
            self._last_chunk[request_id] = message
            return False
        last.setdefault("from_seq", last["seq"])
        last.setdefault("parts", [last["content"]]).append(message["content"])
        last["seq"], last["timestamp"] = message["seq"], message["timestamp"]
        # Only its text stays; the rest of the frame costs nothing any more.
        self.bytes -= size - len(message["content"])
        return True


def _size(message: dict[str, Any]) -> int:
    """About how many bytes a message holds. Exact sizes would cost an encoding per frame."""
    if message["type"] == "answer_chunk":
        return 128 + len(message["content"])
    return len(codec.client_bytes(message, binary=False))
