"""The store's port: keeps passages, and searches them by words, by nearness, or by both.

Milvus, an embedded store for one machine and Pinecone implement it, under one contract suite. What is the same for all
(chunking, embedding, the corpus version, folding, reranking) lies outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from services.common.errors import ServiceError
from services.retriever.stored import DocumentInfo, Hit, StoredPassage

Value = str | int | float | bool


class Unreachable(ServiceError):
    """The store is down, does not answer in time, or is too busy; the same call may succeed later."""

    def __init__(self, message: str) -> None:
        super().__init__("retrieval_failed", message, retryable=True, retry_after_ms=1_000)


class NoProperties(ServiceError):
    """The store keeps no properties, for it may show what they were before. So no corpus version is ever told, and
    nothing that is found is cached."""

    def __init__(self, message: str) -> None:
        super().__init__("retrieval_failed", message)


@dataclass(frozen=True, slots=True)
class Where:
    """What a found passage must be. Part of the search itself: `top_k` passages are found among those that hold it.

    Attributes:
        readers: principals of whom the document must name one. None: whoever asks may see all; only for the operator's
            own tools, never for a question.
        equals: fields (`filters.COLUMNS`) or metadata and the value that each must have. Keys and values are checked.
    """

    readers: frozenset[str] | None
    equals: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoreQuery:
    """A search. With a `vector` it is by words and by nearness, made one by `fusion.fused`, both routes under the same
    `where`; without one by words alone (BM25).

    `text` is the question as it was asked: each store makes its words of it with `search_text`.
    """

    text: str
    top_k: int
    where: Where
    vector: Sequence[float] | None = None


class Store(Protocol):
    """One collection of passages. One that does not exist yet behaves as an empty one.

    Every method may be called concurrently and raises `ServiceError("retrieval_failed", …)`; `retryable` tells whether
    trying again may help. Writes of several processes at once must not spoil it.
    """

    async def search(self, query: StoreQuery) -> list[Hit]:
        """At most `top_k` passages, best first, without those of score 0."""
        ...

    async def dimension(self) -> int | None:
        """Length of the dense vectors; None where there are none, or no collection."""
        ...

    async def ensure(self, dimension: int | None) -> None:
        """Make the collection if it is not there; one of another kind is refused with what to do about it."""
        ...

    async def upsert(self, passages: Sequence[StoredPassage], total: int) -> None:
        """Write passages of one document by their `id`. Once it returns, a search finds them (Milvus: soon).

        Args:
            total: what the document's row says is the number of its passages; 0 while more are to come.

        Raises:
            BadDocument: there is more to a passage than this store can keep.
        """
        ...

    async def documents(self) -> list[DocumentInfo]:
        """All documents by name, also those whose ingestion has not finished (`passages` 0)."""
        ...

    async def find(self, owner: str, name: str) -> list[DocumentInfo]:
        """The documents that are stored of one file: as a rule one, or none; more while it is being replaced. Also
        those whose ingestion has not finished (`passages` 0)."""
        ...

    async def ordinals(self, document_id: str) -> set[int]:
        """Which passages of a document are stored."""
        ...

    async def delete(self, document_id: str) -> None:
        """Remove all passages of a document; none is no error."""
        ...

    async def settle(self) -> None:
        """Tidy up after many writes, where a store needs that."""
        ...

    async def shows_after_s(self) -> float:
        """Seconds after a write within which a search may still show what was there before; 0 if it never does,
        infinite where nobody promises a bound."""
        ...

    async def properties(self) -> dict[str, str] | None:
        """What was set with `set_properties`; None where there is no collection."""
        ...

    async def set_properties(self, properties: Mapping[str, str]) -> None:
        """Set these and leave the others as they are.

        Raises:
            NoProperties: this store keeps none.
        """
        ...

    async def drop_properties(self, names: Sequence[str]) -> None:
        """Remove these."""
        ...


def another_kind(what: str, there: int | None, asked: int | None, setting: str) -> ServiceError:
    """What `ensure` raises: `what` was made for vectors of the length `there`, and `asked` for are others.

    Args:
        setting: the one that names another place.
    """

    def kind(dimension: int | None) -> str:
        return "without embeddings" if dimension is None else f"with embeddings of {dimension} numbers"

    return ServiceError(
        "retrieval_failed",
        f"{what} was made {kind(there)}; the settings ask for one {kind(asked)}. Set BATON_EMBEDDER as it was, or name "
        f"another {setting} and ingest again.",
    )
