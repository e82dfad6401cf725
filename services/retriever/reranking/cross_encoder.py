"""Reranking by a cross-encoder of sentence-transformers, in this process, from a folder; no network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from services.common.config import RetrieverSettings
from services.common.errors import ServiceError
from services.retriever.local_models import open_model


@asynccontextmanager
async def open_cross_encoder(settings: RetrieverSettings) -> AsyncIterator[CrossEncoderReranker]:
    """The model that `settings.rerank_model` names.

    Raises:
        SettingsError: sentence-transformers is not installed, or there is no such model here.
    """
    async with open_model(
        "CrossEncoder", "BATON_RERANKER=sentence-transformers", "BATON_RERANK_MODEL", settings.rerank_model
    ) as (model, pool):
        yield CrossEncoderReranker(model, pool)


class CrossEncoderReranker:
    def __init__(self, model: Any, pool: ThreadPoolExecutor) -> None:
        self._model = model
        self._pool = pool

    async def rerank(self, query: str, passages: Sequence[str]) -> list[float]:
        pairs = [(query, passage) for passage in passages]
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._scores, pairs)

    def _scores(self, pairs: list[tuple[str, str]]) -> list[float]:
        try:
            return [float(score) for score in self._model.predict(pairs, show_progress_bar=False)]
        except Exception as error:
            raise ServiceError("retrieval_failed", f"The reranking model failed ({type(error).__name__}).") from error
