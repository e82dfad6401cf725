"""A retriever over the demo's Markdown documents that needs no Milvus: it starts in a moment, for the short form.

`BATON_RETRIEVER=tests.chaos.small_retriever:open_retriever`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from baton_proto.messages import Passage
from services.common.config import RetrieverSettings
from services.retriever.port import SearchRequest
from tests.system import DOCUMENTS

SEARCH_S = 0.03
"""About what Milvus Lite takes, so that a fault can hit it."""
_TERM = re.compile(r"[a-z0-9]+|(?=([\u3400-\u9fff]{2}))")


@asynccontextmanager
async def open_retriever(_: RetrieverSettings) -> AsyncIterator[SmallRetriever]:
    yield SmallRetriever()


class SmallRetriever:
    """Best is the section with the most of the question's words, or pairs of Chinese characters."""

    def __init__(self) -> None:
        self._sections: list[tuple[str, str, str]] = []
        for path in sorted(DOCUMENTS.glob("*.md")):
            title, *sections = re.split(r"^##? ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
            self._sections += [(path.name, title.partition("\n")[0], section) for section in sections]
        self._terms = [_terms(title + section) for _, title, section in self._sections]

    async def retrieve(self, request: SearchRequest) -> Sequence[Passage]:
        await asyncio.sleep(SEARCH_S)
        wanted = _terms(request.query)
        scores = [len(wanted & terms) for terms in self._terms]
        best = sorted((-score, at) for at, score in enumerate(scores) if score)[: request.top_k]
        return [self._passage(n, at, -score) for n, (score, at) in enumerate(best, start=1)]

    def _passage(self, n: int, at: int, score: int) -> Passage:
        name, title, section = self._sections[at]
        heading, _, text = section.partition("\n")
        url = f"/documents/{name}"
        return Passage(
            n=n, id=f"{name}#{at}", document_id=name, title=title, url=url, text=text.strip(), score=score,
            heading=heading,
        )  # fmt: skip


def _terms(text: str) -> set[str]:
    return {found[1] or found[0] for found in _TERM.finditer(text.lower())} - {""}
