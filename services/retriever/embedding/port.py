"""The embedder's port, and how the retriever and the ingestion use what implements it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from services.common.config import RetrieverSettings
from services.common.errors import ServiceError

KEPT_QUESTIONS = 2_000
"""Embeddings of questions that are kept in memory: of 384 numbers about 25 MB."""


class Embedder(Protocol):
    """Turns texts into vectors, all of one length, in the order of the texts.

    Raises `ServiceError("retrieval_failed", …)`. May be called concurrently; cancelling a call ends its requests.
    """

    async def embed(self, texts: Sequence[str]) -> list[list[float]]: ...


OpenEmbedder = Callable[[RetrieverSettings], AbstractAsyncContextManager[Embedder]]


class Embedding:
    """An embedder with the words that its model wants before a question and before a passage.

    The vector of a question that was asked a while ago is known; `KEPT_QUESTIONS` of them are.
    """

    def __init__(self, embedder: Embedder, query_prefix: str = "", passage_prefix: str = "") -> None:
        self._embedder = embedder
        self._query_prefix = query_prefix
        self._passage_prefix = passage_prefix
        self._questions: OrderedDict[str, list[float]] = OrderedDict()

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """The vectors of passages."""
        return await self._embedder.embed([self._passage_prefix + text for text in texts])

    async def embed_query(self, query: str) -> list[float]:
        """The vector of a question."""
        if query not in self._questions:
            vectors = await self._embedder.embed([self._query_prefix + query])
            if len(vectors) != 1:
                raise ServiceError("retrieval_failed", f"The embedder gave {len(vectors)} vectors for one question.")
            self._questions[query] = vectors[0]
            if len(self._questions) > KEPT_QUESTIONS:
                self._questions.popitem(last=False)
        self._questions.move_to_end(query)
        return self._questions[query]
