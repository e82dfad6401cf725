"""What every retriever promises, asked of each implementation on its real store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from baton_proto.messages import Passage
from services.common.config import RetrieverSettings
from services.common.errors import ServiceError
from services.retriever.milvus import open_retriever
from services.retriever.port import Retriever, SearchRequest
from tests.servers.embeddings import embeddings_server
from tests.servers.milvus import Milvus
from tests.servers.processes import free_port
from tests.shelf import ingest, settings_for, write_documents

T = TypeVar("T")


@pytest.fixture(scope="module", params=["milvus", "milvus hybrid", "local", "local hybrid"])
def settings(
    request: pytest.FixtureRequest, milvus: Milvus, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RetrieverSettings]:
    """A collection with the small documents in it."""
    with embeddings_server() as embeddings:
        folder = tmp_path_factory.mktemp("store")
        kind = request.param.partition(" ")[0]
        settings = settings_for(milvus, retriever=kind, store_dir=str(folder), timeout_s=60.0)
        if request.param.endswith("hybrid"):
            settings = replace(settings, embedder="openai", embedding_url=embeddings.url, embedding_model="letters")
        report = asyncio.run(ingest(settings, write_documents(tmp_path_factory.mktemp("documents"))))
        assert not report.of("failed")
        yield settings


def run(settings: RetrieverSettings, use: Callable[[Retriever], Awaitable[T]]) -> T:
    async def opened() -> T:
        async with open_retriever(settings) as retriever:
            return await use(retriever)

    return asyncio.run(opened())


def ask(settings: RetrieverSettings, query: str, top_k: int = 6, **filters: Any) -> Sequence[Passage]:
    return run(settings, lambda retriever: retriever.retrieve(SearchRequest(query, "en", top_k, filters or None)))


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("年假可以结转吗？", "结转五天"),
        ("每年有多少天年假", "十五天年假"),
        ("Which EXPENSES are reimbursed?", "180 euros"),
        ("reimbursing hotel nights", "180 euros"),
        ("When do I hand in a receipt?", "within 30 days"),
        ("how to use the vpn", "VPN client"),
        ("怎么安装VPN客户端", "VPN client"),
        ("Sick leave", "nine o'clock"),
    ],
)
def test_the_passage_that_answers_comes_first(settings: RetrieverSettings, query: str, words: str) -> None:
    assert words in ask(settings, query)[0].text


def test_passages_are_numbered_from_one_best_first(settings: RetrieverSettings) -> None:
    passages = ask(settings, "travel expense receipts leave", 10)
    assert len(passages) >= 3
    assert [passage.n for passage in passages] == list(range(1, len(passages) + 1))
    scores = [passage.score for passage in passages]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 0
    assert len({passage.id for passage in passages}) == len(passages)


def test_a_passage_says_where_it_comes_from(settings: RetrieverSettings) -> None:
    passage = ask(settings, "hotel night euros")[0]
    assert passage.title == "Travel expenses"
    assert passage.heading == "Hotels"
    assert passage.url == f"/documents/{passage.document_id}?passage=0#passage"
    assert passage.start is not None
    assert passage.end is not None
    assert passage.end - passage.start == len(passage.text)


@pytest.mark.parametrize("top_k", [1, 2, 50])
def test_never_more_passages_than_asked_for(settings: RetrieverSettings, top_k: int) -> None:
    assert 1 <= len(ask(settings, "leave expense vpn receipts manager", top_k)) <= top_k


def test_filters_leave_only_what_they_name(settings: RetrieverSettings) -> None:
    query = "leave expense vpn manager 年假"
    assert {passage.title for passage in ask(settings, query, department="hr")} == {"年假政策"}
    assert {passage.title for passage in ask(settings, query, department="hr", year=2026)} == {"年假政策"}
    assert {passage.title for passage in ask(settings, query, public=True)} == {"Travel expenses"}
    assert {passage.title for passage in ask(settings, query, media_type="text/html")} == {"Sick leave"}
    assert {passage.title for passage in ask(settings, query, language="zh")} == {"年假政策"}
    assert not ask(settings, query, department="hr", year=2025)
    assert not ask(settings, query, no_such_key="x")
    assert not ask(settings, query, department='hr" or department != "')


def test_a_filter_that_cannot_be_one_is_the_asker_s_mistake(settings: RetrieverSettings) -> None:
    with pytest.raises(ServiceError) as raised:
        ask(settings, "leave", **{"no key": 1})
    assert raised.value.code == "bad_message"


def test_nothing_fitting_is_an_answer_too(settings: RetrieverSettings) -> None:
    if settings.embedder == "none":
        assert ask(settings, "火星的卫星叫什么名字？") == []
        assert ask(settings, "Who won the football cup?") == []
        assert ask(settings, "？！…") == []


def test_before_the_first_document_there_is_nothing_to_find(settings: RetrieverSettings, tmp_path: Path) -> None:
    assert ask(replace(settings, collection="never_made", store_dir=str(tmp_path)), "leave") == []


def test_the_longest_question_is_answered(settings: RetrieverSettings) -> None:
    assert ask(settings, "vpn client 安装 " * 2_000)


def test_many_questions_at_once_get_their_own_answers(settings: RetrieverSettings) -> None:
    queries = ["年假结转", "hotel expense", "vpn client", "sick leave manager"] * 8

    async def both(retriever: Retriever) -> tuple[list[Any], list[Any]]:
        async def one(query: str) -> list[str]:
            return [passage.id for passage in await retriever.retrieve(SearchRequest(query, "en", 3))]

        together = await asyncio.gather(*(one(query) for query in queries))
        return together, [await one(query) for query in queries]

    together, alone = run(settings, both)
    assert together == alone


def test_without_its_store_the_failure_is_told_in_time(settings: RetrieverSettings, tmp_path: Path) -> None:
    (tmp_path / "passages.sqlite").mkdir()
    nowhere = replace(settings, milvus_uri=f"http://127.0.0.1:{free_port()}", store_dir=str(tmp_path), timeout_s=2.0)
    started = time.monotonic()
    with pytest.raises(ServiceError) as raised:
        ask(nowhere, "leave")
    assert time.monotonic() - started < 7.0  # by itself it tries for 8 s or more
    assert raised.value.code == "retrieval_failed"
    assert raised.value.retryable
    assert "Traceback" not in raised.value.message
