"""The retriever's port: one method. An implementation is opened by an async context manager that a setting names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from baton_proto.messages import Language, Passage
from baton_proto.readers import EVERYBODY


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What to look for. `top_k` is the most passages wanted; `filters` are equalities on document metadata.

    `readers` are the principals of whoever asks (see `baton_proto.readers`). Only documents that name one of them are
    found: it is part of the search, so what is hidden takes no place among the `top_k`.
    """

    query: str
    language: Language
    top_k: int
    filters: Mapping[str, Any] | None = None
    readers: frozenset[str] = frozenset({EVERYBODY})


class Retriever(Protocol):
    """Finds passages, best first, numbered `n` = 1, 2, 3, …; none is a good answer too.

    Raises `ServiceError("retrieval_failed", …)` when the search itself failed. May be called concurrently.

    It may have more to say; what it finds is cached only if it does (see `Versioned`, `Tracked` and `Identified`).
    """

    async def retrieve(self, request: SearchRequest) -> Sequence[Passage]: ...


@runtime_checkable
class Versioned(Protocol):
    """A retriever that knows which state of the documents it searches, as `who` (principals) may see them.

    The same text means the same documents, so that the same search finds the same. It may be half a second old. None:
    they are changing, or it cannot be known at the moment.
    """

    async def version(self, who: Collection[str]) -> str | None: ...


@runtime_checkable
class Tracked(Versioned, Protocol):
    """A versioned retriever that also notices when its documents have changed and changed back. They have the same
    version again then, but a search in between may have found others."""

    async def generation(self) -> str | None:
        """Another text after every change of the documents; as old as a version may be, and None where that is."""


@runtime_checkable
class Identified(Protocol):
    """A retriever that names everything else that decides on what it finds: settings, models, versions of its code."""

    def identity(self) -> Mapping[str, str]: ...
