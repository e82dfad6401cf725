"""The store on Pinecone: an index of sparse vectors for words, which is the truth, and where there are embeddings one
of dense vectors beside it. (An index that has both cannot be searched by words alone.)

Pinecone shows after a while what was written, and promises no bound. So a write waits until it is listed, and nobody is
ever told a corpus version: what changes unseen must not be cached.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from pinecone import AsyncIndex
from pinecone.errors.exceptions import PineconeError

from services.common.config import RetrieverSettings
from services.common.errors import ServiceError
from services.common.settings import SettingsError
from services.retriever.fusion import candidates, fused
from services.retriever.search_text import search_text
from services.retriever.stored import DocumentInfo, Hit, StoredPassage

from .cutting import cut
from .pinecone_index import Filter, Index, Record, too_late
from .pinecone_records import (
    COLLECTION,
    FIRST,
    collection_record,
    condition,
    of_document,
    of_file,
    requests,
    to_document,
    to_hit,
    to_records,
    with_vectors,
    written,
)
from .pinecone_words import Rarity, sparse
from .port import NoProperties, StoreQuery, Unreachable, another_kind

MAX_QUERY_CHARS = 4_000
SHOWN_S = 30.0
"""How long a write waits until it is listed."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
_HOST, _DENSE_HOST = "BATON_PINECONE_HOST", "BATON_PINECONE_DENSE_HOST"


class PineconeStore:
    """The passages of one namespace."""

    def __init__(self, words: Index, dense: Index | None, timeout_s: float) -> None:
        self._words = words
        self._dense = dense
        self._timeout_s = timeout_s
        self._rarity = Rarity(words, timeout_s / 4)
        self._collection: Mapping[str, Any] | None = None

    async def search(self, query: StoreQuery) -> list[Hit]:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._searched(query)
        except TimeoutError:
            raise too_late() from None

    async def _searched(self, query: StoreQuery) -> list[Hit]:
        readers, top_k = query.where.readers, query.top_k
        if readers is not None and not readers:
            return []
        words = await asyncio.to_thread(lambda: cut(search_text(query.text[:MAX_QUERY_CHARS])))
        where = condition(query.where)
        if query.vector is None or self._dense is None or await self.dimension() is None:
            return await self._by_words(words, where, top_k)
        wanted = candidates(top_k)
        by_words, by_nearness = await asyncio.gather(
            self._by_words(words, where, wanted),
            self._found(self._dense, where, wanted, vector=list(query.vector)),
        )
        return fused(by_words, by_nearness, wanted)[:top_k] if words else by_nearness[:top_k]

    async def _by_words(self, words: Sequence[str], where: Filter | None, limit: int) -> list[Hit]:
        if not words:
            return []
        weights = await self._rarity.weights(list(dict.fromkeys(words)))
        return await self._found(self._words, where, limit, sparse_vector=sparse(weights))

    async def _found(self, index: Index, where: Filter | None, limit: int, **vector: Any) -> list[Hit]:
        """What one route finds, best first."""
        matches = await index.query(limit, where, True, **vector)
        hits = [to_hit(one.id, one.score, one.metadata) for one in matches if one.score > 0 and one.metadata]
        return sorted(hits, key=lambda hit: -hit.score)

    async def dimension(self) -> int | None:
        made = await self._made()
        return None if made is None else int(made["dimension"]) or None

    async def ensure(self, dimension: int | None) -> None:
        await self._check_indexes(dimension)
        if await self._made() is None:
            await self._words.upsert([collection_record(dimension)])
            await _until(self._made, True)
        there = await self.dimension()
        if there != dimension:
            raise another_kind("The namespace", there, dimension, "BATON_PINECONE_NAMESPACE")

    async def _check_indexes(self, dimension: int | None) -> None:
        if (await self._words.stats()).vector_type not in (None, "sparse"):
            raise ServiceError("retrieval_failed", f"{_HOST} must name an index of sparse vectors; this one is dense.")
        if dimension is None:
            return
        if self._dense is None:
            raise ServiceError("retrieval_failed", f"{_DENSE_HOST}: needed for embeddings.")
        stats = await self._dense.stats()
        if stats.dimension != dimension or stats.metric not in (None, "cosine", "dotproduct"):
            raise ServiceError(
                "retrieval_failed",
                f"{_DENSE_HOST} must name an index of dense vectors of {dimension} numbers by cosine or dotproduct; "
                f"this one has {stats.dimension or 'none'} by {stats.metric}.",
            )

    async def upsert(self, passages: Sequence[StoredPassage], total: int) -> None:
        token = secrets.token_hex(8)
        records = await asyncio.to_thread(to_records, passages, total, token)
        if self._dense is not None:
            await _write(self._dense, with_vectors(records, passages), token)
        await _write(self._words, records, token)

    async def documents(self) -> list[DocumentInfo]:
        found = [to_document(kept) for kept in await self._words.listed(FIRST)]
        return sorted(found, key=lambda info: (info.name, info.ingested_ms))

    async def find(self, owner: str, name: str) -> list[DocumentInfo]:
        return [to_document(kept) for kept in await self._words.listed(of_file(owner, name))]

    async def ordinals(self, document_id: str) -> set[int]:
        return {int(kept["ordinal"]) for kept in await self._words.listed(of_document(document_id))}

    async def delete(self, document_id: str) -> None:
        # The truth last: while it is there, whoever comes after a crash knows what has to go.
        gone = of_document(document_id)
        if self._dense is not None:
            await self._dense.delete(gone)
        await self._words.delete(gone)
        for index in filter(None, (self._dense, self._words)):
            await _until(partial(index.has, gone), False)

    async def settle(self) -> None:
        """Nothing to do."""

    async def shows_after_s(self) -> float:
        return math.inf

    async def properties(self) -> dict[str, str] | None:
        return None if await self._made() is None else {}

    async def set_properties(self, properties: Mapping[str, str]) -> None:
        raise NoProperties("Pinecone may show properties that are out of date, so none are kept there.")

    async def drop_properties(self, names: Sequence[str]) -> None:
        """None are kept."""

    async def _made(self) -> Mapping[str, Any] | None:
        """What is known of the collection; None where there is none."""
        if self._collection is None:
            self._collection = await self._words.fetch(COLLECTION)
        return self._collection


@asynccontextmanager
async def open_store(settings: RetrieverSettings) -> AsyncIterator[PineconeStore]:
    """The namespace that `settings` name. Connects with the first call.

    Raises:
        SettingsError: a setting is missing or of no use.
    """
    chosen = "BATON_RETRIEVER=pinecone"
    needed = [("BATON_PINECONE_API_KEY", settings.pinecone_api_key, chosen), (_HOST, settings.pinecone_host, chosen)]
    if settings.embedder != "none":
        needed.append((_DENSE_HOST, settings.pinecone_dense_host, f"{chosen} and an embedder"))
    if missing := [f"{name}: needed with {because}" for name, value, because in needed if not value]:
        raise SettingsError(missing)
    async with AsyncExitStack() as stack:

        def opened(setting: str, host: str) -> Index:
            try:
                client = AsyncIndex(host=host, api_key=settings.pinecone_api_key, timeout=settings.timeout_s)
            except PineconeError as error:
                raise SettingsError([f"{setting}={host!r}, BATON_PINECONE_API_KEY: {error}"]) from None
            stack.push_async_callback(client.close)
            return Index(client, settings.pinecone_namespace, setting, settings.timeout_s)

        words = opened(_HOST, settings.pinecone_host)
        dense = opened(_DENSE_HOST, settings.pinecone_dense_host) if settings.pinecone_dense_host else None
        yield PineconeStore(words, dense, settings.timeout_s)


async def _write(index: Index, records: Sequence[Record], token: str) -> None:
    """Write these, and wait until the last of them is listed."""
    for batch in await asyncio.to_thread(lambda: list(requests(records))):
        await index.upsert(batch)
    if records:
        await _until(partial(index.has, written(token)), True)


async def _until(asked: Callable[[], Awaitable[object]], wanted: bool) -> None:
    """Wait until the answer is yes, or no where that is `wanted`.

    Raises:
        Unreachable: it is not for too long.
    """
    pause = FIRST_PAUSE_S
    try:
        async with asyncio.timeout(SHOWN_S):
            while bool(await asked()) is not wanted:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
    except TimeoutError:
        raise Unreachable("The document store does not show yet what was written. Try again in a moment.") from None
