"""Which store the settings name."""

from __future__ import annotations

import importlib
from contextlib import AbstractAsyncContextManager

from services.common.config import RetrieverSettings
from services.common.settings import SettingsError

from .port import Store

STORES = {"milvus": "milvus", "local": "local"}
"""Store by the short name of its retriever: a module of this package with an `open_store`."""


def open_store(settings: RetrieverSettings) -> AbstractAsyncContextManager[Store]:
    """The store that `settings.retriever` searches. It connects with the first call.

    Raises:
        SettingsError: the retriever is somebody's own, and nobody knows where it keeps its passages.
    """
    module = STORES.get(settings.retriever)
    if module is None:
        raise SettingsError(
            [f"BATON_RETRIEVER={settings.retriever!r}: documents can be brought into {', '.join(STORES)} only"]
        )
    opened: AbstractAsyncContextManager[Store] = importlib.import_module(f".{module}", __package__).open_store(settings)
    return opened
