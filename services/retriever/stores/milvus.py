"""The store on Milvus. The same code serves Milvus Lite (as a server), standalone and distributed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from pymilvus import MilvusClient, MilvusException

from services.common.config import RetrieverSettings
from services.common.errors import ServiceError
from services.retriever.fusion import candidates, fused
from services.retriever.search_text import search_text
from services.retriever.stored import DocumentInfo, Hit, StoredPassage

from .milvus_connection import COLLECTION_MISSING, COLLECTION_RELEASED, Connection
from .milvus_filters import expression, literal
from .milvus_schema import (
    BLANK_ID,
    DENSE,
    DOCUMENT_FIELDS,
    MARKS,
    PASSAGE_FIELDS,
    SPARSE,
    blank_row,
    collection_schema,
    index_params,
    to_document,
    to_hit,
    to_row,
)
from .port import StoreQuery, another_kind

log = logging.getLogger(__name__)

WRITE_TIMEOUT_S = 60.0
MAX_QUERY_CHARS = 4_000
_PAGE = 1_000
_LITE_SEGMENTS = 4
BOUNDED_S = 6.0
"""Milvus may show a search what was there up to 5 s ago ("bounded" consistency). Lite shows what is there."""


class MilvusStore:
    """The passages of one Milvus collection."""

    def __init__(self, connection: Connection, name: str, timeout_s: float) -> None:
        self._connection = connection
        self._name = name
        self._timeout_s = timeout_s
        self._dimension: int | None = None
        self._known = False
        self._outdated = False
        self._lite: bool | None = None

    async def search(self, query: StoreQuery) -> list[Hit]:
        words = search_text(query.text[:MAX_QUERY_CHARS])
        vector, top_k = query.vector, query.top_k
        if vector is not None and await self.dimension() is None:
            vector = None
        if not words and vector is None:
            return []
        condition = expression(query.where, await self._is_lite())
        if vector is None:
            return await self._found(words, SPARSE, "BM25", condition, top_k)
        wanted = candidates(top_k)
        near = self._found(list(vector), DENSE, "COSINE", condition, wanted)
        if not words:
            return (await near)[:top_k]
        by_words, by_nearness = await asyncio.gather(self._found(words, SPARSE, "BM25", condition, wanted), near)
        return fused(by_words, by_nearness, wanted)[:top_k]

    async def _found(self, wanted: str | list[float], field: str, metric: str, condition: str, limit: int) -> list[Hit]:
        """What one route finds, best first."""

        def call(client: MilvusClient, timeout: float) -> list[Any]:
            found = client.search(
                self._name,
                data=[wanted],
                anns_field=field,
                filter=condition,
                limit=limit,
                output_fields=PASSAGE_FIELDS,
                search_params={"metric_type": metric},
                timeout=timeout,
            )
            return list(found[0]) if found else []

        rows = await self._run(call, self._timeout_s, missing=[])
        # Milvus Lite gives BM25 scores with a minus sign. A score of zero means that no word was found.
        found = ((str(row["id"]), float(row["distance"]), row["entity"]) for row in rows)
        scored = ((id, abs(score) if field == SPARSE else score, entity) for id, score, entity in found)
        hits = [to_hit(id, score, entity) for id, score, entity in scored if score > 0 and id != BLANK_ID]
        return sorted(hits, key=lambda hit: -hit.score)

    async def dimension(self) -> int | None:
        if not self._known:

            def call(client: MilvusClient, timeout: float) -> dict[str, Any]:
                described: dict[str, Any] = client.describe_collection(self._name, timeout=timeout)
                return described

            described = await self._run(call, self._timeout_s, missing=None)
            if described is None:
                return None
            fields = {field["name"]: field for field in described["fields"]}
            self._outdated = MARKS not in fields
            self._dimension = int(fields[DENSE]["params"]["dim"]) if DENSE in fields else None
            self._known = True
        return self._dimension

    async def ensure(self, dimension: int | None) -> None:
        def create(client: MilvusClient, timeout: float) -> None:
            if client.has_collection(self._name, timeout=timeout):
                return
            try:
                client.create_collection(
                    self._name,
                    schema=collection_schema(dimension),
                    index_params=index_params(dimension),
                    consistency_level="Bounded",
                    timeout=timeout,
                )
            except MilvusException:
                # Another process may have made it in between.
                if not client.has_collection(self._name, timeout=timeout):
                    raise

        await self._run(create, WRITE_TIMEOUT_S)
        self._known = False
        there = await self.dimension()
        if self._outdated:
            raise ServiceError(
                "retrieval_failed",
                f"The collection {self._name!r} was made by an earlier version, without readers of documents. Drop it, "
                "or name another BATON_MILVUS_COLLECTION, and ingest again.",
            )
        if there != dimension:
            raise another_kind(f"The collection {self._name!r}", there, dimension, "BATON_MILVUS_COLLECTION")

    async def upsert(self, passages: Sequence[StoredPassage], total: int) -> None:
        rows = [to_row(passage, passages=total) for passage in passages]

        def call(client: MilvusClient, timeout: float) -> None:
            client.upsert(self._name, data=rows, timeout=timeout)

        await self._run(call, WRITE_TIMEOUT_S)

    async def documents(self) -> list[DocumentInfo]:
        found = [to_document(row) for row in await self._rows("ordinal == 0", DOCUMENT_FIELDS)]
        return sorted(found, key=lambda info: (info.name, info.ingested_ms))

    async def find(self, owner: str, name: str) -> list[DocumentInfo]:
        condition = f"ordinal == 0 and owner == {literal(owner)} and name == {literal(name)}"
        return [to_document(row) for row in await self._rows(condition, DOCUMENT_FIELDS)]

    async def ordinals(self, document_id: str) -> set[int]:
        rows = await self._rows(f'document_id == "{document_id}"', ["ordinal"])
        return {int(row["ordinal"]) for row in rows}

    async def delete(self, document_id: str) -> None:
        def call(client: MilvusClient, timeout: float) -> None:
            client.delete(self._name, filter=f'document_id == "{document_id}"', timeout=timeout)

        await self._run(call, WRITE_TIMEOUT_S, missing=None)

    async def settle(self) -> None:
        """Only Milvus Lite needs it; elsewhere it does nothing.

        Lite knows how rare a word is for each segment alone, so a document in a small segment of its own is ranked far
        too low. It merges segments of like size once there are four: four flushes, each with a blank row to write,
        lead there. (Rows written later than the first flush may stay outside; hence blank ones.) As `baton run` starts
        Lite, any size is like any other; a Lite that was started otherwise may keep a large segment apart.
        """
        dimension = await self.dimension()

        def call(client: MilvusClient, timeout: float) -> None:
            if not _is_lite(client, timeout):
                return
            for _ in range(_LITE_SEGMENTS):
                client.upsert(self._name, data=[blank_row(dimension)], timeout=timeout)
                client.flush(self._name, timeout=timeout)
            client.delete(self._name, ids=[BLANK_ID], timeout=timeout)

        await self._run(call, WRITE_TIMEOUT_S)

    async def properties(self) -> dict[str, str] | None:
        def call(client: MilvusClient, timeout: float) -> dict[str, str]:
            described = client.describe_collection(self._name, timeout=timeout)
            return {str(name): str(value) for name, value in (described.get("properties") or {}).items()}

        found: dict[str, str] | None = await self._run(call, self._timeout_s, missing=None)
        return found

    async def set_properties(self, properties: Mapping[str, str]) -> None:
        def call(client: MilvusClient, timeout: float) -> None:
            client.alter_collection_properties(self._name, properties=dict(properties), timeout=timeout)

        await self._run(call, self._timeout_s)

    async def drop_properties(self, names: Sequence[str]) -> None:
        def call(client: MilvusClient, timeout: float) -> None:
            client.drop_collection_properties(self._name, list(names), timeout=timeout)

        await self._run(call, self._timeout_s)

    async def shows_after_s(self) -> float:
        return 0.0 if await self._is_lite() else BOUNDED_S

    async def _is_lite(self) -> bool:
        if self._lite is None:

            def call(client: MilvusClient, timeout: float) -> bool:
                return _is_lite(client, timeout)

            self._lite = bool(await self._run(call, self._timeout_s))
        return self._lite

    async def _rows(self, expression: str, fields: list[str]) -> list[dict[str, Any]]:
        def call(client: MilvusClient, timeout: float) -> list[dict[str, Any]]:
            wanted = {"filter": expression, "output_fields": fields, "consistency_level": "Strong", "timeout": timeout}
            # An iterator costs several calls; as a rule there are few rows.
            few = client.query(self._name, limit=_PAGE, **wanted)
            if len(few) < _PAGE:
                return [dict(row) for row in few]
            rows: list[dict[str, Any]] = []
            iterator = client.query_iterator(self._name, batch_size=_PAGE, **wanted)
            while batch := iterator.next():
                rows.extend(dict(row) for row in batch)
            iterator.close()
            return rows

        found: list[dict[str, Any]] = await self._run(call, WRITE_TIMEOUT_S, missing=[])
        return found

    async def _run(self, call: Any, timeout_s: float, *, missing: Any = ...) -> Any:
        """`call` on the collection, loaded first where a restart has released it; `missing` where there is none."""

        def loaded(client: MilvusClient, timeout: float) -> Any:
            try:
                return call(client, timeout)
            except MilvusException as error:
                if error.code != COLLECTION_RELEASED:
                    raise
            client.load_collection(self._name, timeout=timeout)
            return call(client, timeout)

        try:
            return await self._connection.run(loaded, timeout_s)
        except MilvusException as error:
            self._known = False
            if error.code == COLLECTION_MISSING and missing is not ...:
                return missing
            log.warning("Milvus refused a call on %r: %s", self._name, error)
            raise ServiceError(
                "retrieval_failed", "The document store failed. Try again in a moment.", retryable=True
            ) from error


@asynccontextmanager
async def open_store(settings: RetrieverSettings) -> AsyncIterator[MilvusStore]:
    """The collection that `settings` name. Connects with the first call."""
    connection = Connection(settings.milvus_uri, settings.milvus_token)
    try:
        yield MilvusStore(connection, settings.collection, settings.timeout_s)
    finally:
        with suppress(Exception):
            await connection.close()


def _is_lite(client: MilvusClient, timeout: float) -> bool:
    return "lite" in str(client.get_server_version(timeout=timeout))
