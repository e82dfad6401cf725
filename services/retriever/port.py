"""The retriever's port: one method. An implementation is opened by an async context manager that a setting names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from baton_proto.messages import Language, Passage


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What to look for. `top_k` is the most passages wanted; `filters` are equalities on document metadata."""

    query: str
    language: Language
    top_k: int
    filters: Mapping[str, Any] | None = None


class Retriever(Protocol):
    """Finds passages, best first, numbered `n` = 1, 2, 3, …; none is a good answer too.

    Raises `ServiceError("retrieval_failed", …)` when the search itself failed. May be called concurrently.
    """

    async def retrieve(self, request: SearchRequest) -> Sequence[Passage]: ...
