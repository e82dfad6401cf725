"""A cache in memory, for tests: it keeps at once, and as bytes, as the one in NATS does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)


class MemoryCache:
    def __init__(self) -> None:
        self.values: dict[tuple[str, str], bytes] = {}
        self.asked: list[str] = []
        self._puts: list[asyncio.Task[None]] = []

    async def get(self, kind: str, digest: str, form: type[S]) -> S | None:
        self.asked.append(digest)
        data = self.values.get((kind, digest))
        return None if data is None else msgspec.msgpack.decode(data, type=form)

    def put(
        self, kind: str, digest: str, value: msgspec.Struct, still: Callable[[], Awaitable[bool]] | None = None
    ) -> None:
        data = msgspec.msgpack.encode(value)
        if still is None:
            self.values[kind, digest] = data
        else:
            self._puts.append(asyncio.create_task(self._put((kind, digest), data, still)))

    async def settled(self) -> None:
        """Wait until everything is kept that is to be kept."""
        puts, self._puts = self._puts, []
        await asyncio.gather(*puts)

    async def _put(self, at: tuple[str, str], data: bytes, still: Callable[[], Awaitable[bool]]) -> None:
        if await still():
            self.values[at] = data
