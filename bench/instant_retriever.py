"""A retriever that finds the same passages at once, so that a benchmark measures everything but the search.

`BATON_RETRIEVER=bench.instant_retriever:open_retriever`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from baton_proto.messages import Passage
from services.common.config import RetrieverSettings
from services.retriever.port import SearchRequest

TEXT = "Unused annual leave may be carried over into the next year, at most five days of it. " * 6
PASSAGES = [
    Passage(n=n, id=f"p{n}", document_id="leave.md", title="Leave", url="/documents/leave.md", text=TEXT, score=1.0)
    for n in range(1, 7)
]
"""As many as are retrieved by default, of about 500 characters."""


class InstantRetriever:
    async def retrieve(self, request: SearchRequest) -> Sequence[Passage]:
        return PASSAGES[: request.top_k]


@asynccontextmanager
async def open_retriever(_: RetrieverSettings) -> AsyncIterator[InstantRetriever]:
    yield InstantRetriever()
