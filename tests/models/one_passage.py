"""A retriever that finds what the tiny model was taught with.

`BATON_RETRIEVER=tests.models.one_passage:open_retriever`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from baton_proto.messages import Passage
from services.common.config import RetrieverSettings
from services.retriever.port import SearchRequest

from .dialogues import PASSAGE


class OnePassage:
    async def retrieve(self, _: SearchRequest) -> Sequence[Passage]:
        return [PASSAGE]


@asynccontextmanager
async def open_retriever(_: RetrieverSettings) -> AsyncIterator[OnePassage]:
    yield OnePassage()
