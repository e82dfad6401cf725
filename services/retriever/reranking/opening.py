"""Which reranker the settings name, opened."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.common.config import RetrieverSettings
from services.common.settings import SettingsError

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
    opener = SHIPPED.get(settings.reranker) or _named(settings.reranker)
    async with opener(settings) as reranker:
        yield reranker


def _named(name: str) -> OpenReranker:
    module, _, attribute = name.partition(":")
    try:
        opener: OpenReranker = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(SHIPPED)
        raise SettingsError(
            [f"BATON_RERANKER={name!r}: expected none, {known} or module:attribute ({error})"]
        ) from None
    return opener
