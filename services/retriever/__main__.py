"""`python -m services.retriever`: puts the retriever together and reads the environment."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from baton_proto import subjects
from services.common.bus import Bus
from services.common.config import LlmSettings, NatsSettings, RetrieverSettings, WorkerSettings
from services.common.presence import Presence
from services.common.process import Opened, load_factory, read_settings, run, serve_stage

from .rewriting import opening
from .search_tool import SEARCH_DOCUMENTS
from .service import retrieve_handler

SHIPPED = {"milvus": "services.retriever.milvus:open_retriever"}


def main() -> None:
    nats, worker, settings, llm, process = read_settings(
        "retriever", NatsSettings, WorkerSettings, RetrieverSettings, LlmSettings
    )
    open_retriever = load_factory("BATON_RETRIEVER", settings.retriever, SHIPPED)
    open_rewriter = load_factory("BATON_REWRITER", settings.rewriter, opening.SHIPPED)
    tools = [SEARCH_DOCUMENTS] if settings.search_tool else []

    @contextlib.asynccontextmanager
    async def open_handler(_: Bus, __: Presence) -> AsyncIterator[Opened]:
        async with open_retriever(settings) as retriever, open_rewriter(settings, llm) as rewriter:
            yield Opened(retrieve_handler(retriever, settings, rewriter), lambda: tools)

    run(serve_stage(subjects.RETRIEVE, open_handler, nats, worker, process))


if __name__ == "__main__":
    main()
