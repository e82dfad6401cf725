"""What has been worked out before: a cache for all workers, in a key-value bucket. It may fail, and nothing else does.

A cached value is found by a digest over everything that it depends on, so nothing in here ever becomes wrong: what
changes is looked for under another digest, and the old value expires unread.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

import msgspec

from baton_proto import subjects

from . import metrics
from .bus import Bus, Full, Unconfirmed, within

log = logging.getLogger(__name__)
S = TypeVar("S", bound=msgspec.Struct)

GET_TIMEOUT_S = 0.15
"""A cache that takes longer is slower than what it saves."""
PUT_TIMEOUT_S = 5.0
CLOSE_S = 1.0
"""How long leaving waits for what is being kept."""
MAX_VALUE_BYTES = 256 * 1024
MAX_PUTS = 64
DIGEST_CHARS = 32


class Cache(Protocol):
    """Keeps structs by kind and digest. A struct's tag names its form, so that one of another version is not found.

    Neither method raises, and `get` comes back soon: what fails is a miss, or is not kept.
    """

    async def get(self, kind: str, digest: str, form: type[S]) -> S | None:
        """The value that was kept, if it is there and of this form."""

    def put(
        self, kind: str, digest: str, value: msgspec.Struct, still: Callable[[], Awaitable[bool]] | None = None
    ) -> None:
        """Keep a value, in the background; if there is `still`, then only if it gives true."""


def digest(*parts: Any) -> str:
    """32 hex digits that are the same for the same parts, on every machine, and differ for others.

    Args:
        parts: structs and what JSON can say.
    """
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()[:DIGEST_CHARS]


@asynccontextmanager
async def open_cache(bus: Bus) -> AsyncIterator[Cache]:
    """The cache in NATS. At the end it waits a moment for what is being kept."""
    cache = BucketCache(bus)
    try:
        yield cache
    finally:
        await cache.close()


class BucketCache:
    """The key-value bucket `baton_cache`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._puts: set[asyncio.Task[None]] = set()

    async def get(self, kind: str, digest: str, form: type[S]) -> S | None:
        outcome, value = "miss", None
        try:
            data = await self._bus.direct_last(
                f"KV_{subjects.CACHE_BUCKET}", subjects.cached(kind, digest), GET_TIMEOUT_S
            )
            if data is not None:
                value = msgspec.msgpack.decode(data, type=form)
                outcome = "hit"
        except Unconfirmed as error:
            log.debug("the cache did not answer: %s", error)
            outcome = "failed"
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("a cached value cannot be read: %s", error)
            outcome = "unreadable"
        metrics.CACHE.labels(kind, outcome).inc()
        return value

    def put(
        self, kind: str, digest: str, value: msgspec.Struct, still: Callable[[], Awaitable[bool]] | None = None
    ) -> None:
        data = msgspec.msgpack.encode(value)
        if len(data) > MAX_VALUE_BYTES:
            metrics.CACHE.labels(kind, "too_large").inc()
        elif len(self._puts) >= MAX_PUTS:
            metrics.CACHE.labels(kind, "too_many").inc()
        else:
            task = asyncio.create_task(self._put(kind, subjects.cached(kind, digest), data, still))
            self._puts.add(task)
            task.add_done_callback(self._puts.discard)

    async def close(self) -> None:
        """Wait for what is being kept, `CLOSE_S` at most."""
        if self._puts:
            await asyncio.wait(self._puts, timeout=CLOSE_S)
        for task in self._puts:
            task.cancel()

    async def _put(self, kind: str, subject: str, data: bytes, still: Callable[[], Awaitable[bool]] | None) -> None:
        try:
            if still is not None and not await within(PUT_TIMEOUT_S, still()):
                outcome = "outdated"
            else:
                await self._bus.store(subject, data)
                outcome = "stored"
        except (Unconfirmed, Full, TimeoutError) as error:
            log.debug("not cached: %s", error or type(error).__name__)
            outcome = "not_stored"
        except Exception:
            log.exception("not cached")
            outcome = "not_stored"
        metrics.CACHE.labels(kind, outcome).inc()
