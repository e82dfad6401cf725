"""Which embedder the settings name, opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.common.config import RetrieverSettings
from services.retriever.naming import named

from .openai import open_openai
from .port import Embedding, OpenEmbedder
from .sentence_transformers import open_sentence_transformers

SHIPPED: dict[str, OpenEmbedder] = {"openai": open_openai, "sentence-transformers": open_sentence_transformers}


@asynccontextmanager
async def open_embedder(settings: RetrieverSettings) -> AsyncIterator[Embedding | None]:
    """The embedder that `settings.embedder` names; None for full text only.

    Raises:
        SettingsError: the name leads nowhere, or what the embedder needs is missing.
    """
    if settings.embedder == "none":
        yield None
        return
    opener = named("BATON_EMBEDDER", settings.embedder, SHIPPED)
    async with opener(settings) as embedder:
        yield Embedding(embedder, settings.embedding_query_prefix, settings.embedding_passage_prefix)
