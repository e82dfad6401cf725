"""The reranker's port: one method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from services.common.config import RetrieverSettings


class Reranker(Protocol):
    """Says of each passage how well it answers the question: one finite number for each, higher is better.

    Raises `ServiceError("retrieval_failed", …)`; what was found before then stays in its order. May be called
    concurrently.
    """

    async def rerank(self, query: str, passages: Sequence[str]) -> list[float]: ...


OpenReranker = Callable[[RetrieverSettings], AbstractAsyncContextManager[Reranker]]
