"""Which state of the documents is searched: the corpus version. Whoever changes documents says so on the collection, in
its properties; whoever searches works the version out from the documents themselves.

- `baton.generation` is another random text after every change. Without it nobody can know.
- `baton.changing.<token>` is there while somebody changes documents, one for each that does, and is renewed every few
  seconds. While one is there the version is unknown. One that has not been renewed for `DEAD_S` belongs to somebody who
  was killed; from then on what is stored counts.

The version is a digest over the documents, so the same documents have the same version wherever they were ingested. It
is worked out once for each generation.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from services.common.bus import end_tasks, within
from services.common.errors import ServiceError

from .collection import Collection
from .connection import Unreachable
from .schema import DocumentInfo

log = logging.getLogger(__name__)

GENERATION = "baton.generation"
CHANGING = "baton.changing."
RENEW_S = 5.0
DEAD_S = 30.0
FORGET_S = 3600.0
"""Marks so old are removed by the next who changes documents."""
AGE_S = 0.25
"""For so long a version is believed before the collection is asked again."""
WAIT_S = 0.2
"""How long a search waits for the version. Working it out anew takes longer where there are very many documents."""
FIRST_WAIT_S = 2.0
"""The first searches after a start wait longer: there is a connection to be made."""
TRIES = 4
SETTLE_S = 6.0
"""Milvus may show a search what was there up to 5 s ago ("bounded" consistency). Lite shows what is there."""


def corpus_digest(documents: Iterable[DocumentInfo]) -> str | None:
    """The version that these documents make; None where one of them is not stored completely.

    A document's id stands for its name, content and metadata, and for how it was cut into passages.
    """
    lines = []
    for info in documents:
        if not info.passages:
            return None
        lines.append(f"{info.document_id} {info.content_hash} {info.passages}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class _State:
    """What is known of the documents: nothing while they change."""

    version: str | None = None
    generation: str | None = None


class Marks:
    """What the properties say over time, without I/O."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, float]] = {}

    def settled(self, properties: Mapping[str, str], now: float) -> str | None:
        """The generation, if nobody is changing documents.

        Args:
            now: in seconds, of any clock that only goes forward.
        """
        marks = {name: value for name, value in properties.items() if name.startswith(CHANGING)}
        self._seen = {
            name: self._seen[name] if self._seen.get(name, ("", 0.0))[0] == value else (value, now)
            for name, value in marks.items()
        }
        if any(now - since < DEAD_S for _, since in self._seen.values()):
            return None
        return properties.get(GENERATION) or None


class Corpus:
    """The version of a collection's documents, for those who search it."""

    def __init__(self, collection: Collection, clock: Callable[[], float] = time.monotonic) -> None:
        self._collection = collection
        self._clock = clock
        self._marks = Marks()
        self._state = _State()
        self._known: tuple[str, str | None, float] = ("", None, 0.0)
        self._looked_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None

    async def version(self) -> str | None:
        """The version as it was at most `AGE_S` ago; None while documents change, and where nobody can know."""
        return (await self._current()).version

    async def generation(self) -> str | None:
        """Another one after every change, also one that led back to an earlier version; as old as `version`, and None
        where that is None because documents change or Milvus does not answer."""
        return (await self._current()).generation

    async def close(self) -> None:
        if self._looking is not None:
            await end_tasks(self._looking)

    async def _current(self) -> _State:
        oldest = self._clock() - AGE_S
        try:
            async with asyncio.timeout(FIRST_WAIT_S if self._looked_at == float("-inf") else WAIT_S):
                # A look that is under way may have begun too long ago: what it has read was true then.
                while self._looked_at < oldest:
                    if self._looking is None or self._looking.done():
                        self._looking = asyncio.create_task(self._look())
                    await asyncio.wait([self._looking])
                    if self._looking.cancelled():
                        return _State()
        except TimeoutError:
            return _State()
        return self._state

    async def _look(self) -> None:
        started = self._clock()
        try:
            self._state = await self._worked_out(started)
        except ServiceError as error:
            log.debug("the corpus version is unknown: %s", error)
            self._state = _State()
        except Exception:
            log.exception("the corpus version cannot be worked out")
            self._state = _State()
        self._looked_at = started

    async def _worked_out(self, now: float) -> _State:
        properties = await self._collection.properties()
        if properties is None:
            return _State(corpus_digest([]), "")
        generation = self._marks.settled(properties, now)
        if generation is None:
            return _State()
        if generation != self._known[0]:
            version = corpus_digest(await self._collection.documents())
            after = await self._collection.properties()
            if after is None or self._marks.settled(after, self._clock()) != generation:
                return _State()
            settle_s = 0.0 if await self._collection.is_lite() else SETTLE_S
            self._known = (generation, version, self._clock() + settle_s)
        _, version, from_when = self._known
        return _State(version if self._clock() >= from_when else None, generation)


class Change:
    """Says on the collection that documents are changing. `begin` must come before the first change."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._mark = CHANGING + secrets.token_hex(6)
        self._renewed = float("-inf")
        self._renewing: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()

    async def begin(self) -> None:
        """Mark the change as under way, if that has not been done or may have been taken for dead.

        Raises:
            ServiceError: Milvus did not take the mark; nothing must be changed then.
        """
        if time.monotonic() - self._renewed < DEAD_S / 2:
            return
        try:
            if self._renewing is None:
                await self._sweep()
            await self._set()
            if self._renewing is None:
                self._renewing = asyncio.create_task(self._renew())
        except Unreachable:
            raise
        except ServiceError as error:
            # A Milvus that keeps no such properties has never told anybody a version: nothing can be out of date.
            if (await self._collection.properties() or {}).get(GENERATION):
                raise
            log.warning("Milvus does not keep the corpus version, so nothing that is found will be cached: %s", error)
            self._renewed = time.monotonic()

    async def ensure_known(self) -> None:
        """Let the version be known of a collection whose documents were ingested before there were versions."""
        if self._renewing is None and not (await self._collection.properties() or {}).get(GENERATION):
            await self.begin()

    async def end(self) -> None:
        """Every change is stored. Where Milvus does not take that, the mark is taken for dead in a while."""
        if self._renewing is None:
            return
        await self._stop_renewing()
        try:
            await self._set()
            await _tried(lambda: self._collection.drop_properties([self._mark]))
        except ServiceError as error:
            log.warning("the corpus version stays unknown for %g s: %s", DEAD_S, error)

    async def abandon(self) -> None:
        """A change may still be on its way to Milvus: leave the mark, it is taken for dead in a while."""
        if self._renewing is not None:
            await end_tasks(self._renewing)

    async def _set(self) -> None:
        started = time.monotonic()
        value = f"{int(time.time())}.{secrets.token_hex(4)}"

        async def set_and_seen() -> None:
            await self._collection.set_properties({GENERATION: secrets.token_hex(8), self._mark: value})
            # Milvus Lite can lose one of two changes that are made at once.
            if (await self._collection.properties() or {}).get(self._mark) != value:
                raise ServiceError("retrieval_failed", "The collection does not keep its properties.", retryable=True)

        await _tried(set_and_seen)
        self._renewed = started

    async def _renew(self) -> None:
        while not self._ended.is_set():
            with suppress(TimeoutError):
                await within(RENEW_S, self._ended.wait())
                return
            with suppress(ServiceError):
                await self._set()

    async def _stop_renewing(self) -> None:
        """Not by cancelling: a call that is on its way would go on in its thread, beside the next one."""
        self._ended.set()
        if self._renewing is not None:
            await self._renewing

    async def _sweep(self) -> None:
        """Remove marks of those who were killed long ago."""
        properties = await self._collection.properties() or {}
        old = [name for name, value in properties.items() if name.startswith(CHANGING) and _age_s(value) > FORGET_S]
        if old:
            await self._collection.drop_properties(old)


@asynccontextmanager
async def changing(collection: Collection) -> AsyncIterator[Change]:
    """A change of documents; left without an error, it has ended."""
    change = Change(collection)
    try:
        yield change
    except BaseException:
        await change.abandon()
        raise
    await change.end()


async def _tried(call: Callable[[], Awaitable[None]]) -> None:
    """Do it, again where it fails at once: Milvus Lite does when somebody else changes properties at the same time."""
    for _ in range(TRIES - 1):
        try:
            return await call()
        except Unreachable:
            raise
        except ServiceError:
            await asyncio.sleep(random.uniform(0.01, 0.1))
    return await call()


def _age_s(value: str) -> float:
    try:
        return time.time() - int(value.partition(".")[0])
    except ValueError:
        return float("inf")
