"""`python -m services.retriever`: puts the retriever together and reads the environment."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from baton_proto import subjects
from services.common.bus import Bus
from services.common.cache import open_cache
from services.common.config import CacheSettings, LlmSettings, NatsSettings, RetrieverSettings, WorkerSettings
from services.common.presence import Presence
from services.common.process import Opened, load_factory, package_version, read_settings, run, serve_stage

from .caching import Searches
from .rewriting import opening
from .search_tool import SEARCH_DOCUMENTS
from .service import retrieve_handler

SHIPPED = {
    "milvus": "services.retriever.milvus:open_retriever",
    "local": "services.retriever.local:open_retriever",
    "pinecone": "services.retriever.pinecone:open_retriever",
}


def main() -> None:
    nats, worker, settings, llm, caching, process = read_settings(
        "retriever", NatsSettings, WorkerSettings, RetrieverSettings, LlmSettings, CacheSettings
    )
    open_retriever = load_factory("BATON_RETRIEVER", settings.retriever, SHIPPED)
    open_rewriter = load_factory("BATON_REWRITER", settings.rewriter, opening.SHIPPED)
    tools = [SEARCH_DOCUMENTS] if settings.search_tool else []

    @contextlib.asynccontextmanager
    async def open_handler(bus: Bus, _: Presence) -> AsyncIterator[Opened]:
        async with (
            open_retriever(settings) as retriever,
            open_rewriter(settings, llm) as rewriter,
            open_cache(bus) as cache,
        ):
            used = None if caching.cache == "off" else cache
            searches = Searches(retriever, settings.retriever, used, caching, package_version())
            yield Opened(retrieve_handler(retriever, settings, rewriter, searches), lambda: tools)

    run(serve_stage(subjects.RETRIEVE, open_handler, nats, worker, process))


if __name__ == "__main__":
    main()
