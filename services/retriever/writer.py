"""Writing a document's passages, so that a cut at any point can be seen and repaired."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from services.common.errors import ServiceError

from .embedding import Embedder
from .stored import StoredPassage
from .stores.port import Store

T = TypeVar("T")
BATCH = 128
TRIES = 5
_FIRST_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class PassageWriter:
    """Writes to one store; with vectors where there is an embedder."""

    store: Store
    embedder: Embedder | None

    async def prepare(self) -> None:
        """Make the store's collection, or check that it fits the embedder."""
        dimension = None
        if self.embedder is not None:
            dimension = len((await self.embedder.embed(["dimension"]))[0])
        await persistently(lambda: self.store.ensure(dimension))

    async def write(
        self, passages: Sequence[StoredPassage], on_progress: Callable[[int, int], Awaitable[None]] | None = None
    ) -> None:
        """Write all passages of one document, telling after each batch how many of how many are written.

        The first row says how many there are. Where one batch does not hold them all, it says 0 until the others are
        known to be stored; so a document that was cut off is never taken for a whole one.
        """
        total = len(passages)
        said = total if total <= BATCH else 0
        first = await self._put(passages, said, on_progress)
        # Milvus Lite can lose rows when two processes write at once: nothing is believed that was not read back.
        for _ in range(TRIES):
            stored = await persistently(lambda: self.store.ordinals(passages[0].document.document_id))
            missing = [passage for passage in passages if passage.ordinal not in stored]
            if not missing:
                break
            await self._put(missing, said)
        else:
            raise ServiceError("retrieval_failed", "The document store does not keep what is written to it.")
        if total > BATCH:
            await persistently(lambda: self.store.upsert([first], total))

    async def _put(
        self,
        passages: Sequence[StoredPassage],
        total: int,
        on_progress: Callable[[int, int], Awaitable[None]] | None = None,
    ) -> StoredPassage:
        """Write these, and return the first as it was written."""
        written: list[StoredPassage] = []
        for start in range(0, len(passages), BATCH):
            batch = await self._embedded(passages[start : start + BATCH])
            await persistently(partial(self.store.upsert, batch, total))
            written = written or [batch[0]]
            if on_progress is not None:
                await on_progress(start + len(batch), len(passages))
        return written[0]

    async def _embedded(self, passages: Sequence[StoredPassage]) -> Sequence[StoredPassage]:
        if self.embedder is None:
            return passages
        texts = [
            "\n".join(part for part in (passage.document.title, passage.lead, passage.heading, passage.text) if part)
            for passage in passages
        ]
        vectors = await self.embedder.embed(texts)
        return [replace(passage, vector=vector) for passage, vector in zip(passages, vectors, strict=True)]


async def persistently(call: Callable[[], Awaitable[T]]) -> T:
    """What `call` returns; repeated with growing, jittered pauses, about 8 s in all, while its failure may pass."""
    pause = _FIRST_PAUSE_S
    for _ in range(TRIES - 1):
        try:
            return await call()
        except ServiceError as error:
            if not error.retryable:
                raise
        await asyncio.sleep(random.uniform(0.75, 1.25) * pause)
        pause *= 2
    return await call()
