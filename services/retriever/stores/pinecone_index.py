"""One namespace of one Pinecone index, over HTTP: calls that end in time, and failures that say what to do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from pinecone import AsyncIndex
from pinecone.errors.exceptions import (
    ApiError,
    ForbiddenError,
    NotFoundError,
    PineconeConnectionError,
    PineconeError,
    RateLimitError,
    UnauthorizedError,
)
from pinecone.models.vectors.responses import DescribeIndexStatsResponse
from pinecone.models.vectors.vector import ScoredVector

from services.common.errors import ServiceError

from .port import Unreachable

log = logging.getLogger(__name__)
T = TypeVar("T")
Filter = Mapping[str, Any]
Record = dict[str, Any]

WRITE_TIMEOUT_S = 60.0
PAGE = 100
MAX_PAGES = 10_000
"""Pages of one listing at most: a million records."""


class Index:
    """Raises `ServiceError`: `Unreachable` where the same call may succeed later, otherwise naming a setting."""

    def __init__(self, client: AsyncIndex, namespace: str, setting: str, timeout_s: float) -> None:
        """`setting` is the one that says where the index is."""
        self._client = client
        self._namespace = namespace
        self._setting = setting
        self._timeout_s = timeout_s

    async def query(self, top_k: int, filter: Filter | None, metadata: bool, **vector: Any) -> list[ScoredVector]:
        """The best records; `vector` is a `vector`, or a `sparse_vector`."""
        call = self._client.query(
            top_k=top_k, filter=filter, include_metadata=metadata, namespace=self._namespace, **vector
        )
        found = await self._done(call, self._timeout_s, missing=None)
        return [] if found is None else found.matches

    async def upsert(self, records: Sequence[Record]) -> None:
        """Write these in one request."""
        call = self._client.upsert(vectors=records, namespace=self._namespace, timeout=WRITE_TIMEOUT_S)
        await self._done(call, WRITE_TIMEOUT_S)

    async def delete(self, filter: Filter) -> None:
        call = self._client.delete(filter=filter, namespace=self._namespace, timeout=WRITE_TIMEOUT_S)
        await self._done(call, WRITE_TIMEOUT_S, missing=None)

    async def fetch(self, id: str) -> Record | None:
        """A record's metadata."""
        found = await self._done(self._client.fetch(ids=[id], namespace=self._namespace), self._timeout_s, missing=None)
        record = found.vectors.get(id) if found is not None else None
        return None if record is None else record.metadata or {}

    async def listed(self, filter: Filter) -> list[Record]:
        """The metadata of all records for which `filter` holds."""
        rows: list[Record] = []
        token: str | None = None
        for _ in range(MAX_PAGES):
            page, token = await self._page(filter, PAGE, token)
            rows += page
            if not token:
                return rows
        raise ServiceError("retrieval_failed", f"More than {MAX_PAGES * PAGE:,} records cannot be listed.")

    async def has(self, filter: Filter) -> bool:
        """Whether `filter` holds for a record."""
        page, _ = await self._page(filter, 1, None)
        return bool(page)

    async def _page(self, filter: Filter, limit: int, token: str | None) -> tuple[list[Record], str | None]:
        """Some of what `filter` holds for, and what leads to the rest."""
        call = self._client.fetch_by_metadata(
            filter=filter, limit=limit, pagination_token=token, namespace=self._namespace, timeout=WRITE_TIMEOUT_S
        )
        page = await self._done(call, WRITE_TIMEOUT_S, missing=None)
        if page is None:
            return [], None
        rows = [record.metadata or {} for record in page.vectors.values()]
        return rows, page.pagination.next if page.pagination else None

    async def stats(self) -> DescribeIndexStatsResponse:
        return await self._done(self._client.describe_index_stats(), self._timeout_s)

    async def size(self) -> int:
        """How many records there are, about."""
        spaces = (await self.stats()).namespaces
        return spaces[self._namespace].vector_count if self._namespace in spaces else 0

    async def _done(self, call: Awaitable[T], timeout_s: float, *, missing: Any = ...) -> T:
        """What `call` gives; `missing` where the namespace does not exist yet."""
        try:
            # The client tries again by itself, and would wait for as long as it is told to.
            async with asyncio.timeout(timeout_s):
                return await call
        except TimeoutError:
            raise too_late() from None
        except PineconeConnectionError as error:
            log.warning("Pinecone cannot be reached: %s", error)
            raise Unreachable("The document store cannot be reached. Try again in a moment.") from None
        except NotFoundError as error:
            if missing is not ... and "namespace" in str(error).lower():
                return missing  # type: ignore[no-any-return]
            raise self._refused(error) from None
        except PineconeError as error:
            raise self._refused(error) from None

    def _refused(self, error: PineconeError) -> ServiceError:
        log.warning("Pinecone refused a call: %s", error)
        status = error.status_code if isinstance(error, ApiError) else 0
        if isinstance(error, RateLimitError) or status == 408 or status >= 500:
            return Unreachable("The document store is too busy. Try again in a moment.")
        said = "The document store refused the call; the log of this service says why."
        if isinstance(error, UnauthorizedError):
            said = "The document store does not accept BATON_PINECONE_API_KEY."
        elif isinstance(error, ForbiddenError):
            said = f"BATON_PINECONE_API_KEY does not permit this on the index of {self._setting}."
        elif isinstance(error, NotFoundError):
            said = f"There is no Pinecone index at {self._setting}."
        elif not isinstance(error, ApiError):
            said = f"What answers at {self._setting} is not a Pinecone index."
        return ServiceError("retrieval_failed", said)


def too_late() -> Unreachable:
    return Unreachable("The document store does not answer in time. Try again in a moment.")
