"""Which store the settings name."""

from __future__ import annotations

import importlib
from contextlib import AbstractAsyncContextManager

from services.common.config import RetrieverSettings
from services.common.settings import SettingsError

from .port import Store

STORES = {"milvus": "milvus", "local": "local", "pinecone": "pinecone"}
"""Store by the short name of its retriever: a module of this package with an `open_store`."""


def open_store(settings: RetrieverSettings) -> AbstractAsyncContextManager[Store]:
    """The store that `settings.retriever` searches. It connects with the first call.

    Raises:
        SettingsError: the retriever is somebody's own, and nobody knows where it keeps its passages; or its store needs
            what is not installed.
    """
    module = STORES.get(settings.retriever)
    if module is None:
        raise SettingsError(
            [f"BATON_RETRIEVER={settings.retriever!r}: documents can be brought into {', '.join(STORES)} only"]
        )
    try:
        store = importlib.import_module(f".{module}", __package__)
    except ImportError as error:
        raise SettingsError(
            [f"BATON_RETRIEVER={settings.retriever}: {error}; pip install 'baton[{settings.retriever}]'"]
        ) from None
    opened: AbstractAsyncContextManager[Store] = store.open_store(settings)
    return opened
