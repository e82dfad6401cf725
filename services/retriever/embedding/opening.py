"""Which embedder the settings name, opened."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.common.config import RetrieverSettings
from services.common.settings import SettingsError

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
    opener = SHIPPED.get(settings.embedder) or _named(settings.embedder)
    async with opener(settings) as embedder:
        yield Embedding(embedder, settings.embedding_query_prefix, settings.embedding_passage_prefix)


def _named(name: str) -> OpenEmbedder:
    module, _, attribute = name.partition(":")
    try:
        opener: OpenEmbedder = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(SHIPPED)
        raise SettingsError(
            [f"BATON_EMBEDDER={name!r}: expected none, {known} or module:attribute ({error})"]
        ) from None
    return opener
