"""Which reranker the settings name, opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.common.config import RetrieverSettings
from services.retriever.naming import named

from .cross_encoder import open_cross_encoder
from .http import open_http
from .port import OpenReranker, Reranker

SHIPPED: dict[str, OpenReranker] = {"http": open_http, "sentence-transformers": open_cross_encoder}


@asynccontextmanager
async def open_reranker(settings: RetrieverSettings) -> AsyncIterator[Reranker | None]:
    """The reranker that `settings.reranker` names; None where there is to be none.

    Raises:
        SettingsError: the name leads nowhere, or what the reranker needs is missing.
    """
    if settings.reranker == "none":
        yield None
        return
    opener = named("BATON_RERANKER", settings.reranker, SHIPPED)
    async with opener(settings) as reranker:
        yield reranker
