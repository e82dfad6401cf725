"""The embedder for OpenAI-compatible servers, against a server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from services.common.config import RetrieverSettings
from services.common.errors import ServiceError
from services.common.settings import SettingsError
from services.retriever.embedding import open_embedder
from services.retriever.embedding import openai as embedding
from services.retriever.embedding.openai import BATCH
from services.retriever.milvus import open_retriever
from services.retriever.port import SearchRequest
from tests.servers.embeddings import DIMENSION, Embeddings, embeddings_server, vector
from tests.servers.milvus import Milvus
from tests.servers.processes import free_port
from tests.shelf import ingest, settings_for, write_documents


@pytest.fixture
def server() -> Iterator[Embeddings]:
    with embeddings_server() as running:
        yield running


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding.random, "uniform", lambda low, high: 0.01)


def embed(url: str, texts: Sequence[str], **fields: Any) -> list[list[float]]:
    settings = RetrieverSettings(embedder="openai", embedding_url=url, embedding_model="m", **fields)

    async def opened() -> list[list[float]]:
        async with open_embedder(settings) as embedder:
            assert embedder is not None
            return await embedder.embed(texts)

    return asyncio.run(opened())


def test_vectors_come_in_the_order_of_the_texts_over_all_batches(server: Embeddings) -> None:
    texts = [f"text {n}" for n in range(BATCH + 3)]
    assert embed(server.url + "/", texts, embedding_api_key="secret") == [pytest.approx(vector(text)) for text in texts]
    assert [len(request["input"]) for request in server.requests] == [BATCH, 3]
    assert {request["model"] for request in server.requests} == {"m"}
    assert set(server.authorization) == {"Bearer secret"}


def test_without_a_key_no_authorization_is_sent(server: Embeddings) -> None:
    embed(server.url, ["a"])
    assert server.authorization == [None]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_refusal_that_may_pass_is_tried_again(server: Embeddings, status: int) -> None:
    server.failures += [status, status]
    assert len(embed(server.url, ["a"])[0]) == DIMENSION
    assert len(server.requests) == 3


def test_a_refusal_that_stays_is_an_error_that_may_pass(server: Embeddings) -> None:
    server.failures += [503] * 20
    with pytest.raises(ServiceError, match="503") as raised:
        embed(server.url, ["a"])
    assert raised.value.retryable
    assert len(server.requests) == embedding.MAX_TRIES


def test_a_wrong_key_is_told_at_once_without_showing_it(server: Embeddings) -> None:
    server.failures += [401]
    with pytest.raises(ServiceError, match="_API_KEY") as raised:
        embed(server.url, ["a"], embedding_api_key="secret")
    assert not raised.value.retryable
    assert "secret" not in raised.value.message
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        {"data": []},
        {"data": [{"index": 0, "embedding": []}]},
        {"data": [{"index": 0, "embedding": ["x"]}]},
        {"data": [{"index": 0, "embedding": [float("nan")]}]},
        {"data": [{"embedding": [1.0]}]},
        {"error": "no"},
    ],
)
def test_an_answer_that_is_no_embedding_is_refused(server: Embeddings, answer: dict[str, Any]) -> None:
    server.failures += [answer]
    with pytest.raises(ServiceError, match="embedding server"):
        embed(server.url, ["a"])


def test_vectors_of_different_lengths_are_refused(server: Embeddings) -> None:
    rows = [{"index": n, "embedding": [1.0] * (n + 1)} for n in range(2)]
    server.failures += [{"data": rows}]
    with pytest.raises(ServiceError, match="different lengths"):
        embed(server.url, ["a", "b"])


def test_an_answer_without_an_end_is_not_read_to_it(server: Embeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "MAX_RESPONSE_BYTES", 2_000)
    with pytest.raises(ServiceError, match="more than 2,000 bytes"):
        embed(server.url, ["a", "b"])


def test_an_address_that_is_none_is_said() -> None:
    with pytest.raises(ServiceError, match="BATON_EMBEDDING_URL is no address"):
        embed("http://127.0.0.1:port/v1", ["a"])


def test_no_server_is_an_error_that_may_pass() -> None:
    with pytest.raises(ServiceError, match="cannot be reached") as raised:
        embed(f"http://127.0.0.1:{free_port()}/v1", ["a"])
    assert raised.value.retryable


def test_without_the_server_questions_are_answered_by_full_text(
    milvus: Milvus, tmp_path: Path, server: Embeddings
) -> None:
    settings = settings_for(milvus, embedder="openai", embedding_url=server.url, embedding_model="m")

    async def scenario() -> None:
        await ingest(settings, write_documents(tmp_path / "d"))
        server.failures += [500] * 100
        async with open_retriever(settings) as retriever:
            (first, *_) = await retriever.retrieve(SearchRequest("vpn", "en", 6))
        assert "VPN" in first.text

    asyncio.run(scenario())


def opened(**fields: Any) -> Any:
    async def enter() -> Any:
        async with open_embedder(RetrieverSettings(**fields)) as embedder:
            return embedder

    return asyncio.run(enter())


def test_an_embedder_may_come_from_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened(embedder="none") is None
    assert opened(
        embedder="services.retriever.embedding.openai:open_openai", embedding_url="http://x", embedding_model="m"
    )


@pytest.mark.parametrize(
    "name", ["nonsense", "no.such.module:thing", "services.retriever.embedding:missing", ":", ".a:b"]
)
def test_an_embedder_that_is_not_there_is_a_wrong_setting(name: str) -> None:
    with pytest.raises(SettingsError, match="BATON_EMBEDDER"):
        opened(embedder=name)


def test_an_openai_embedder_needs_its_url_and_model() -> None:
    with pytest.raises(SettingsError) as raised:
        opened(embedder="openai")
    assert len(raised.value.problems) == 2


def test_a_question_asked_again_is_not_embedded_again(server: Embeddings) -> None:
    settings = RetrieverSettings(
        embedder="openai", embedding_url=server.url, embedding_model="m", embedding_query_prefix="query: "
    )

    async def twice() -> list[list[float]]:
        async with open_embedder(settings) as embedder:
            assert embedder is not None
            return [await embedder.embed_query("leave"), await embedder.embed_query("leave")]

    first, second = asyncio.run(twice())
    assert first == second == pytest.approx(vector("query: leave"))
    assert [request["input"] for request in server.requests] == [["query: leave"]]
