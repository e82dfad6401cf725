"""Reranking, folding and merging, on what a real store finds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from baton_proto.messages import Passage
from services.common.config import RetrieverSettings
from services.retriever import corpus
from services.retriever.milvus import open_retriever
from services.retriever.port import SearchRequest, Versioned
from tests.servers.milvus import Milvus
from tests.servers.reranking import reranking_server
from tests.shelf import ingest, settings_for, write_documents

RULE = (
    "Whoever works from home keeps the badge at home too, locks the screen when leaving, and tells the service "
    "desk about a lost badge on the same day; a new one is printed within two working days."
)
DOCUMENTS: dict[str, str | bytes] = {
    "badge.md": f"# Badges\n\n## At home\n\n{RULE}\n",
    "copy.md": f"# Badges\n\n## At home\n\n{RULE}\n\n## Elsewhere\n\nNothing is said of that.\n",
    "handbook.md": "# Handbook\n\n## Parking\n\n"
    + "\n\n".join(f"Parking rule {name}: " + f"{name} badge holders park on level {name}. " * 3 for name in "abcd"),
}


def ask(settings: RetrieverSettings, query: str, top_k: int = 6) -> tuple[Sequence[Passage], str | None]:
    async def opened() -> tuple[Sequence[Passage], str | None]:
        async with open_retriever(settings) as retriever:
            request = SearchRequest(query, "en", top_k)
            passages = await retriever.retrieve(request)
            assert isinstance(retriever, Versioned)
            return passages, await retriever.version(request.readers)

    return asyncio.run(opened())


def test_what_is_found_is_folded_merged_and_reranked(
    milvus: Milvus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "FIRST_WAIT_S", 60.0)  # a version that is not there in time is unknown
    settings = settings_for(milvus, chunk_tokens=50)
    assert not asyncio.run(ingest(settings, write_documents(tmp_path, DOCUMENTS))).of("failed")
    plain = replace(settings, fold=False, merge=False)

    query = "lost badge at home service desk"
    apart, _ = ask(plain, query, 20)
    shown, _ = ask(replace(settings, merge=False), query, 20)
    assert len(shown) < len(apart), "a copy was left out"
    assert {passage.id for passage in shown} < {passage.id for passage in apart}
    assert sum(RULE in passage.text for passage in shown) == 1 < sum(RULE in passage.text for passage in apart)

    merged, _ = ask(settings, "parking rule badge holders level", 20)
    (parking,) = [passage for passage in merged if passage.heading == "Parking"][:1]
    assert parking.end is not None
    assert parking.start is not None
    assert parking.end - parking.start >= len(parking.text) > 3 * settings.chunk_tokens
    assert [passage.n for passage in merged] == list(range(1, len(merged) + 1))

    with reranking_server() as server:
        reranking = replace(plain, reranker="http", rerank_url=server.url, rerank_timeout_s=30.0)
        wanted = "parking d"
        passages, version = ask(reranking, wanted, 2)
        assert "level d" in passages[0].text
        assert len(passages) == 2
        assert version is not None
        assert len(server.requests[0]["documents"]) > 2
        server.failures += [500]
        unordered, version = ask(reranking, wanted, 2)
        assert [passage.id for passage in unordered] == [passage.id for passage in ask(plain, wanted, 2)[0]]
        assert version is None, "what is found without the reranker must not be cached"
