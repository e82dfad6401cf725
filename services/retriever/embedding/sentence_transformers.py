"""Embeddings by sentence-transformers, in this process: a model from a folder or an installed package, no network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from services.common.config import RetrieverSettings
from services.common.errors import ServiceError
from services.retriever.local_models import open_model

BATCH = 32


@asynccontextmanager
async def open_sentence_transformers(settings: RetrieverSettings) -> AsyncIterator[SentenceTransformersEmbedder]:
    """The model that `settings.embedding_model` names.

    Raises:
        SettingsError: sentence-transformers is not installed, or there is no such model here.
    """
    async with open_model(
        "SentenceTransformer", "BATON_EMBEDDER=sentence-transformers", "BATON_EMBEDDING_MODEL", settings.embedding_model
    ) as (model, pool):
        yield SentenceTransformersEmbedder(model, pool)


class SentenceTransformersEmbedder:
    """Embeds in batches, one after the other, so that a question waits for one batch of an ingestion only."""

    def __init__(self, model: Any, pool: ThreadPoolExecutor) -> None:
        self._model = model
        self._pool = pool

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        vectors: list[list[float]] = []
        loop = asyncio.get_running_loop()
        for first in range(0, len(texts), BATCH):
            batch = list(texts[first : first + BATCH])
            vectors += await loop.run_in_executor(self._pool, self._encoded, batch)
        return vectors

    def _encoded(self, texts: list[str]) -> list[list[float]]:
        try:
            rows = self._model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        except Exception as error:
            raise ServiceError("retrieval_failed", f"The embedding model failed ({type(error).__name__}).") from error
        return [[float(number) for number in row] for row in rows]
