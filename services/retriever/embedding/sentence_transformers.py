"""Embeddings by sentence-transformers, in this process: a model from a folder or an installed package, no network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from services.common.config import RetrieverSettings
from services.common.errors import ServiceError
from services.common.settings import SettingsError
from services.retriever.local_models import imported, model_folder

BATCH = 32


@asynccontextmanager
async def open_sentence_transformers(settings: RetrieverSettings) -> AsyncIterator[SentenceTransformersEmbedder]:
    """The model that `settings.embedding_model` names.

    Raises:
        SettingsError: sentence-transformers is not installed, or there is no such model here.
    """
    if not settings.embedding_model:
        raise SettingsError(["BATON_EMBEDDING_MODEL: needed with BATON_EMBEDDER=sentence-transformers"])
    library = imported("BATON_EMBEDDER=sentence-transformers")
    folder = model_folder("BATON_EMBEDDING_MODEL", settings.embedding_model)
    # One thread: the model's own arithmetic uses all cores, and two batches at once would only be slower.
    pool = ThreadPoolExecutor(1, thread_name_prefix="embedding")
    try:
        loop = asyncio.get_running_loop()
        model = await loop.run_in_executor(
            pool, lambda: library.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        )
        yield SentenceTransformersEmbedder(model, pool)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


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
