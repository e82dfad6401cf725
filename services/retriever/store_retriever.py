"""The retriever on any store: full text (BM25) by default, fused with embeddings where an embedder is configured.

What the store finds is put in order by a reranker, where there is one; then repetitions are left out and neighbours of
one section made one passage (folding.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress

from baton_proto.messages import MAX_TOP_K, Passage
from services.common.config import RetrieverSettings
from services.common.errors import ServiceError

from .chunking import FORMAT
from .corpus import Corpus
from .embedding import Embedding, open_embedder
from .filters import checked_filters
from .folding import arranged
from .port import Retriever, SearchRequest
from .reranking import Reranker, open_reranker
from .reranking.ordering import Ordering
from .steps import step
from .stored import Hit, document_url
from .stores.opening import open_store
from .stores.port import Store, StoreQuery, Where

log = logging.getLogger(__name__)
RANKING = 3
"""Raised when the same documents may be found in another order: other words, weights or ways to fuse, fold or merge."""
DEGRADED_S = 5.0
"""For so long after an embedding or a reranking has failed the version is unknown."""
SPARE = 4
"""So many passages more than are wanted are looked for where some of them may be folded or merged."""
CHARS_PER_TOKEN = 3
"""Of a text in English, by the estimate that passages are cut by; Chinese has fewer, so fewer are merged."""
MERGED_PASSAGES = 3
"""The most that a passage made of neighbours may be, in largest passages."""
_WARM_UP = "warm up 预热"
_WARM_UP_PAUSE_S = 2.0


@asynccontextmanager
async def open_retriever(settings: RetrieverSettings) -> AsyncIterator[Retriever]:
    """A retriever on the store that `settings` name. It need not be up yet."""
    async with (
        open_embedder(settings) as embedder,
        open_reranker(settings) as reranker,
        open_store(settings) as store,
    ):
        retriever = StoreRetriever(store, embedder, settings, reranker)
        # The first search after a start loads dictionaries and indexes; no user should wait for that.
        warm_up = asyncio.create_task(_warm_up(store))
        try:
            yield retriever
        finally:
            warm_up.cancel()
            with suppress(asyncio.CancelledError):
                await warm_up
            await retriever.close()


class StoreRetriever:
    def __init__(
        self,
        store: Store,
        embedder: Embedding | None,
        settings: RetrieverSettings,
        reranker: Reranker | None = None,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._ordering = None
        if reranker is not None:
            self._ordering = Ordering(reranker, settings.rerank_candidates, settings.rerank_timeout_s)
        self._settings = settings
        self._corpus = Corpus(store)
        self._embedded_badly = float("-inf")

    async def version(self, who: Collection[str]) -> str | None:
        failed_at = max(self._embedded_badly, self._ordering.failed_at if self._ordering else float("-inf"))
        if time.monotonic() - failed_at < DEGRADED_S:
            return None  # what full text alone finds must not be taken for what is usually found
        return await self._corpus.version(who)

    async def generation(self) -> str | None:
        return await self._corpus.generation()

    def identity(self) -> dict[str, str]:
        settings = self._settings
        return {
            "store": settings.retriever,
            "ranking": str(RANKING),
            "format": str(FORMAT),
            "chunk_tokens": str(settings.chunk_tokens),
            "collection": settings.collection,
            "pinecone": f"{settings.pinecone_host} {settings.pinecone_namespace}",
            "embedder": settings.embedder,
            "embedding_url": settings.embedding_url,
            "embedding_model": settings.embedding_model,
            "embedding_query_prefix": settings.embedding_query_prefix,
            "embedding_passage_prefix": settings.embedding_passage_prefix,
            "reranker": settings.reranker,
            "rerank_url": settings.rerank_url,
            "rerank_model": settings.rerank_model,
            "rerank_candidates": str(settings.rerank_candidates),
            "fold": str(settings.fold),
            "merge": str(settings.merge),
        }

    async def close(self) -> None:
        await self._corpus.close()

    async def retrieve(self, request: SearchRequest) -> Sequence[Passage]:
        where = Where(request.readers, checked_filters(request.filters))
        top_k = max(1, min(request.top_k, MAX_TOP_K))
        vector = await self._vector(request.query)
        with step(
            "search",
            f"retrieval {self._settings.collection}",
            {"gen_ai.operation.name": "retrieval", "gen_ai.data_source.id": self._settings.collection},
        ):
            hits = await self._store.search(StoreQuery(request.query, self._wanted(top_k), where, vector))
        if self._ordering is not None:
            with step("rerank", attributes={"gen_ai.request.model": self._settings.rerank_model or None}):
                hits = await self._ordering.ordered(request.query, hits)
        merge_chars = MERGED_PASSAGES * CHARS_PER_TOKEN * self._settings.chunk_tokens if self._settings.merge else 0
        shown = arranged(hits, top_k, fold=self._settings.fold, merge_chars=merge_chars)
        return [_passage(n, hit) for n, hit in enumerate(shown, start=1)]

    def _wanted(self, top_k: int) -> int:
        """How many passages to look for, so that enough are left."""
        spare = max(SPARE, top_k // 2) if self._settings.fold or self._settings.merge else 0
        return max(top_k + spare, self._settings.rerank_candidates if self._ordering else 0)

    async def _vector(self, query: str) -> list[float] | None:
        """The question's embedding; None where there is no embedder or it fails, for full text alone still answers."""
        if self._embedder is None:
            return None
        model = self._settings.embedding_model or self._settings.embedder
        try:
            with step(
                "embed", f"embeddings {model}", {"gen_ai.operation.name": "embeddings", "gen_ai.request.model": model}
            ):
                async with asyncio.timeout(self._settings.timeout_s / 2):
                    return await self._embedder.embed_query(query)
        except (ServiceError, TimeoutError) as error:
            self._embedded_badly = time.monotonic()
            log.warning("searching by full text alone: %s", error or "the embedding server is too slow")
            return None


def _passage(n: int, hit: Hit) -> Passage:
    return Passage(
        n=n,
        id=hit.id,
        document_id=hit.document_id,
        title=hit.title,
        url=document_url(hit.document_id, hit.ordinal),
        text=hit.text,
        score=round(hit.score, 6),
        page=hit.page,
        start=hit.start,
        end=hit.end,
        heading=hit.heading,
    )


async def _warm_up(store: Store) -> None:
    """Search until that works; how it fails is told once."""
    told = False
    while True:
        try:
            await store.search(StoreQuery(_WARM_UP, 1, Where(None)))
        except ServiceError as error:
            if not told:
                log.warning("not ready to search yet: %s", error)
            told = True
        else:
            return
        await asyncio.sleep(_WARM_UP_PAUSE_S)
