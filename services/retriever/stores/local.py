"""The embedded store for larger corpora on one machine: a SQLite file as the truth, tantivy and FAISS in memory.

Any number of processes on one machine may use one folder. Each keeps indexes of its own, which follow the file before
every search; so a process that is killed leaves nothing to be repaired, and what has been written is found by all at
once.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from services.common.config import RetrieverSettings
from services.common.errors import ServiceError
from services.retriever.stored import DocumentInfo, Hit, StoredPassage

from .cutting import words_of
from .local_index import LocalIndex
from .local_rows import Rows
from .port import StoreQuery, Unreachable, another_kind

log = logging.getLogger(__name__)
T = TypeVar("T")
THREADS = 4
MAX_QUERY_CHARS = 4_000


class LocalStore:
    """The passages in one folder."""

    def __init__(self, folder: Path, pool: ThreadPoolExecutor) -> None:
        self._rows = Rows(folder)
        self._index = LocalIndex(self._rows, folder)
        self._pool = pool
        self._made: str | None = None

    def close(self) -> None:
        self._rows.close()

    async def search(self, query: StoreQuery) -> list[Hit]:
        return await self._run(lambda: self._searched(query))

    def _searched(self, query: StoreQuery) -> list[Hit]:
        kind = self._made = self._made or self._rows.kind()
        if kind is None:
            return []
        asked = StoreQuery(query.text[:MAX_QUERY_CHARS], query.top_k, query.where, query.vector)
        return self._rows.hits(self._index.search(asked, _dimension(kind)))

    async def dimension(self) -> int | None:
        return await self._run(lambda: _dimension(self._rows.kind()))

    async def ensure(self, dimension: int | None) -> None:
        there = await self._run(lambda: _dimension(self._rows.make(_kind(dimension))))
        if there != dimension:
            raise another_kind("The store", there, dimension, "BATON_STORE_DIR")

    async def upsert(self, passages: Sequence[StoredPassage], total: int) -> None:
        if passages:
            await self._run(lambda: self._rows.upsert(passages, total, [" ".join(words_of(one)) for one in passages]))

    async def documents(self) -> list[DocumentInfo]:
        return await self._run(self._rows.documents)

    async def find(self, owner: str, name: str) -> list[DocumentInfo]:
        return await self._run(lambda: self._rows.find(owner, name))

    async def ordinals(self, document_id: str) -> set[int]:
        return await self._run(lambda: self._rows.ordinals(document_id))

    async def delete(self, document_id: str) -> None:
        await self._run(lambda: self._rows.delete(document_id))

    async def settle(self) -> None:
        await self._run(self._rows.tidy)

    async def shows_after_s(self) -> float:
        return 0.0

    async def properties(self) -> dict[str, str] | None:
        return await self._run(self._rows.properties)

    async def set_properties(self, properties: Mapping[str, str]) -> None:
        await self._run(lambda: self._rows.set_properties(properties))

    async def drop_properties(self, names: Sequence[str]) -> None:
        await self._run(lambda: self._rows.drop_properties(names))

    async def _run(self, call: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        except sqlite3.OperationalError as error:
            log.warning("the store's file cannot be used: %s", error)
            raise Unreachable("The document store is busy or cannot be opened. Try again in a moment.") from None
        except sqlite3.Error as error:
            log.error("the store's file is damaged: %s", error)
            raise ServiceError("retrieval_failed", "The document store failed.") from None


@asynccontextmanager
async def open_store(settings: RetrieverSettings) -> AsyncIterator[LocalStore]:
    """The store in the folder that `settings` name; made if it is not there."""
    pool = ThreadPoolExecutor(THREADS, "store")
    store: LocalStore | None = None
    try:
        folder = Path(settings.store_dir)
        store = await asyncio.get_running_loop().run_in_executor(pool, lambda: LocalStore(folder, pool))
        yield store
    finally:
        # A call that was cancelled still runs in its thread, and SQLite must not be closed below it.
        await asyncio.to_thread(pool.shutdown, wait=True, cancel_futures=True)
        if store is not None:
            store.close()


def _kind(dimension: int | None) -> str:
    return "words" if dimension is None else f"vectors {dimension}"


def _dimension(kind: str | None) -> int | None:
    return int(kind.partition(" ")[2]) if kind and kind.startswith("vectors ") else None
