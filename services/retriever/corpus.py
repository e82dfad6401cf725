"""Which state of the documents is searched: the corpus version. Whoever changes documents says so on the store, in its
properties; whoever searches works the version out from the documents themselves.

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
import math
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from baton_proto.readers import may_read
from services.common.bus import end_tasks, within
from services.common.errors import ServiceError

from .stored import DocumentInfo
from .stores.port import NoProperties, Store, Unreachable

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
VIEWS = 1_000
"""Views that are remembered of one generation; beyond it they are worked out again."""


def corpus_digest(documents: Iterable[DocumentInfo]) -> str | None:
    """The version that these documents make; None where one of them is not stored completely.

    A document's id stands for its name, content, metadata and readers, and for how it was cut into passages.
    """
    lines = []
    for info in documents:
        if not info.passages:
            return None
        lines.append(f"{info.document_id} {info.content_hash} {info.passages}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()[:16]


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
    """The version of a store's documents as somebody sees them, for those who search it.

    What somebody may not read has no part in it: two users who see the same documents have the same version, and
    nobody can tell from it that a document which is hidden from them has changed.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._marks = Marks()
        self._latest: Snapshot | None = None
        self._known: tuple[Snapshot, float] | None = None
        self._looked_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None

    async def version(self, who: Collection[str]) -> str | None:
        """The version as it was at most `AGE_S` ago; None while documents change, and where nobody can know.

        Args:
            who: the principals of the request.
        """
        snapshot = await self._current()
        return None if snapshot is None else snapshot.version(who)

    async def generation(self) -> str | None:
        """Another one after every change, also one that led back to an earlier version; as old as `version`, and None
        where that is None because documents change or the store does not answer."""
        snapshot = await self._current()
        return None if snapshot is None else snapshot.generation

    async def close(self) -> None:
        if self._looking is not None:
            await end_tasks(self._looking)

    async def _current(self) -> Snapshot | None:
        oldest = self._clock() - AGE_S
        try:
            async with asyncio.timeout(FIRST_WAIT_S if self._looked_at == float("-inf") else WAIT_S):
                # A look that is under way may have begun too long ago: what it has read was true then.
                while self._looked_at < oldest:
                    if self._looking is None or self._looking.done():
                        self._looking = asyncio.create_task(self._look())
                    await asyncio.wait([self._looking])
                    if self._looking.cancelled():
                        return None
        except TimeoutError:
            return None
        return self._latest

    async def _look(self) -> None:
        started = self._clock()
        try:
            self._latest = await self._worked_out(started)
        except ServiceError as error:
            log.debug("the corpus version is unknown: %s", error)
            self._latest = None
        except Exception:
            log.exception("the corpus version cannot be worked out")
            self._latest = None
        self._looked_at = started

    async def _worked_out(self, now: float) -> Snapshot | None:
        shows_after_s = await self._store.shows_after_s()
        if math.isinf(shows_after_s):
            return None  # what is found may always be what was there before
        properties = await self._store.properties()
        if properties is None:
            return Snapshot([], "")
        generation = self._marks.settled(properties, now)
        if generation is None:
            return None
        if self._known is None or generation != self._known[0].generation:
            snapshot = Snapshot(await self._store.documents(), generation)
            after = await self._store.properties()
            if after is None or self._marks.settled(after, self._clock()) != generation:
                return None
            self._known = (snapshot, self._clock() + shows_after_s)
        known, from_when = self._known
        return known if self._clock() >= from_when else None


class Snapshot:
    """The documents of one moment, and the versions of those who look at them."""

    def __init__(self, documents: Sequence[DocumentInfo], generation: str) -> None:
        self.generation = generation
        self._documents = documents
        self._readers = frozenset(reader for info in documents for reader in info.readers)
        self._versions: dict[frozenset[str], str | None] = {}

    def version(self, who: Collection[str]) -> str | None:
        """The digest of what `who` may read. None where a document that they may read is not stored completely."""
        # Principals that no document names make no difference.
        seen = self._readers.intersection(who)
        if seen not in self._versions:
            if len(self._versions) >= VIEWS:
                self._versions.clear()
            self._versions[seen] = corpus_digest(info for info in self._documents if may_read(info.readers, seen))
        return self._versions[seen]


class Change:
    """Says on the collection that documents are changing. `begin` must come before the first change."""

    def __init__(self, store: Store) -> None:
        self._store = store
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
        except NoProperties:
            self._renewed = time.monotonic()  # nobody is ever told a version
        except ServiceError as error:
            # A Milvus that keeps no such properties has never told anybody a version: nothing can be out of date.
            if (await self._store.properties() or {}).get(GENERATION):
                raise
            log.warning("Milvus does not keep the corpus version, so nothing that is found will be cached: %s", error)
            self._renewed = time.monotonic()

    async def ensure_known(self) -> None:
        """Let the version be known of a collection whose documents were ingested before there were versions."""
        if self._renewing is None and not (await self._store.properties() or {}).get(GENERATION):
            await self.begin()

    async def end(self) -> None:
        """Every change is stored. Where Milvus does not take that, the mark is taken for dead in a while."""
        if self._renewing is None:
            return
        await self._stop_renewing()
        try:
            await self._set()
            await _tried(lambda: self._store.drop_properties([self._mark]))
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
            await self._store.set_properties({GENERATION: secrets.token_hex(8), self._mark: value})
            # Milvus Lite can lose one of two changes that are made at once.
            if (await self._store.properties() or {}).get(self._mark) != value:
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
        properties = await self._store.properties() or {}
        old = [name for name, value in properties.items() if name.startswith(CHANGING) and _age_s(value) > FORGET_S]
        if old:
            await self._store.drop_properties(old)


@asynccontextmanager
async def changing(store: Store) -> AsyncIterator[Change]:
    """A change of documents; left without an error, it has ended."""
    change = Change(store)
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
        except (Unreachable, NoProperties):
            raise
        except ServiceError:
            await asyncio.sleep(random.uniform(0.01, 0.1))
    return await call()


def _age_s(value: str) -> float:
    try:
        return time.time() - int(value.partition(".")[0])
    except ValueError:
        return float("inf")
