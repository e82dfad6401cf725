"""What every reranker promises, asked of each implementation: a server, a cross-encoder in the process, one's own."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from services.common.config import RetrieverSettings
from services.common.errors import ServiceError
from services.common.settings import SettingsError
from services.retriever.embedding import open_embedder
from services.retriever.reranking import Reranker, open_reranker
from tests.servers.processes import free_port
from tests.servers.reranking import Reranking, reranking_server, shared

PASSAGES = ["Receipts within 30 days", "Annual leave is fifteen days", "How to carry over annual leave", ""]
QUERY = "how to carry over annual leave"


class SharedWords:
    async def rerank(self, query: str, passages: Sequence[str]) -> list[float]:
        return [shared(query, passage) for passage in passages]


@asynccontextmanager
async def open_shared_words(settings: RetrieverSettings) -> AsyncIterator[Reranker]:
    yield SharedWords()


def stand_in_library() -> Any:
    """In place of sentence-transformers, an optional install of a gigabyte: its two classes, as they are called."""
    library: Any = ModuleType("sentence_transformers")

    class CrossEncoder:
        def __init__(self, folder: str, device: str, local_files_only: bool) -> None:
            assert Path(folder, "config.json").is_file()
            assert local_files_only

        def predict(self, pairs: list[tuple[str, str]], show_progress_bar: bool) -> list[float]:
            return [shared(query, passage) for query, passage in pairs]

    class SentenceTransformer:
        def __init__(self, folder: str, device: str, local_files_only: bool) -> None:
            assert Path(folder, "config.json").is_file()
            assert local_files_only
            self.batches: list[int] = []

        def encode(self, texts: list[str], normalize_embeddings: bool, show_progress_bar: bool) -> list[list[float]]:
            self.batches.append(len(texts))
            if "fail" in texts:
                raise RuntimeError("out of memory")
            return [[float(len(text)), 1.0] for text in texts]

    library.CrossEncoder, library.SentenceTransformer = CrossEncoder, SentenceTransformer
    return library


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's folder, and a library that loads it."""
    monkeypatch.setitem(sys.modules, "sentence_transformers", stand_in_library())
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path


@pytest.fixture(params=["documents", "texts", "cross-encoder", "module:attribute"])
def settings(request: pytest.FixtureRequest) -> Iterator[RetrieverSettings]:
    if request.param == "cross-encoder":
        folder = request.getfixturevalue("model")
        yield RetrieverSettings(reranker="sentence-transformers", rerank_model=str(folder))
    elif request.param == "module:attribute":
        yield RetrieverSettings(reranker=f"{__name__}:open_shared_words")
    else:
        with reranking_server(request.param) as server:
            yield RetrieverSettings(reranker="http", rerank_url=server.url)


@pytest.fixture
def server() -> Iterator[Reranking]:
    with reranking_server() as running:
        yield running


def rerank(settings: RetrieverSettings, *queries: str, passages: Sequence[str] = PASSAGES) -> list[list[float]]:
    async def opened() -> list[list[float]]:
        async with open_reranker(settings) as reranker:
            assert reranker is not None
            return list(await asyncio.gather(*(reranker.rerank(query, passages) for query in queries)))

    return asyncio.run(opened())


def test_every_passage_gets_a_number_in_its_place(settings: RetrieverSettings) -> None:
    ((*scores,),) = rerank(settings, QUERY)
    assert len(scores) == len(PASSAGES)
    assert all(math.isfinite(score) for score in scores)
    assert max(range(len(PASSAGES)), key=lambda n: scores[n]) == 2


def test_many_questions_at_once_get_their_own_numbers(settings: RetrieverSettings) -> None:
    queries = ["annual leave", "receipts within", QUERY] * 3
    assert rerank(settings, *queries) == [[shared(query, passage) for passage in PASSAGES] for query in queries]


def test_a_server_is_asked_with_its_key_model_and_path(server: Reranking) -> None:
    rerank(RetrieverSettings(reranker="http", rerank_url=server.url, rerank_model="m", rerank_api_key="k"), QUERY)
    rerank(RetrieverSettings(reranker="http", rerank_url=server.url + "/rerank/"), QUERY)
    assert [request["path"] for request in server.requests] == ["/v1/rerank"] * 2
    assert server.requests[0] | {"model": "m", "top_n": len(PASSAGES)} == server.requests[0]
    assert "model" not in server.requests[1]
    assert server.authorization == ["Bearer k", None]


def test_a_server_s_form_is_found_out_once() -> None:
    with reranking_server("texts") as server:
        settings = RetrieverSettings(reranker="http", rerank_url=server.url)

        async def twice() -> None:
            async with open_reranker(settings) as reranker:
                assert reranker is not None
                await reranker.rerank(QUERY, PASSAGES)
                await reranker.rerank(QUERY, PASSAGES)

        asyncio.run(twice())
        assert ["texts" in request for request in server.requests] == [False, True, True]
        assert server.requests[2]["truncate"], "a passage that is too long is cut, where otherwise all would be refused"


@pytest.mark.parametrize(
    "failure",
    [
        401,
        500,
        {"results": []},
        {"results": [{"index": 0}]},
        {"results": [{"index": n, "relevance_score": "x"} for n in range(4)]},
        {"results": [{"index": 0, "relevance_score": 1.0}] * 4},
        {"results": [{"index": n, "relevance_score": float("nan")} for n in range(4)]},
        {"detail": "no"},
        "no",
    ],
)
def test_a_server_that_gives_no_scores_is_an_error(server: Reranking, failure: Any) -> None:
    server.failures += [failure]
    with pytest.raises(ServiceError, match="reranking server") as raised:
        rerank(RetrieverSettings(reranker="http", rerank_url=server.url, rerank_api_key="secret"), QUERY)
    assert "secret" not in raised.value.message


def test_no_server_is_an_error_that_may_pass() -> None:
    with pytest.raises(ServiceError, match="cannot be reached") as raised:
        rerank(RetrieverSettings(reranker="http", rerank_url=f"http://127.0.0.1:{free_port()}"), QUERY)
    assert raised.value.retryable


def test_none_is_none() -> None:
    async def opened() -> Reranker | None:
        async with open_reranker(RetrieverSettings()) as reranker:
            return reranker

    assert asyncio.run(opened()) is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"reranker": "http"}, "BATON_RERANK_URL"),
        ({"reranker": "sentence-transformers"}, "BATON_RERANK_MODEL"),
        ({"reranker": "nonsense"}, "BATON_RERANKER"),
        ({"reranker": "no.such:thing"}, "BATON_RERANKER"),
    ],
)
def test_a_wrong_setting_is_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        rerank(RetrieverSettings(**fields), QUERY)


def embed(settings: RetrieverSettings, *texts: str) -> list[list[float]]:
    async def opened() -> list[list[float]]:
        async with open_embedder(settings) as embedder:
            assert embedder is not None
            return [*await embedder.embed(texts), await embedder.embed_query(texts[0])]

    return asyncio.run(opened())


def test_a_model_from_disk_embeds_with_the_prefixes_it_wants(model: Path) -> None:
    settings = RetrieverSettings(
        embedder="sentence-transformers",
        embedding_model=str(model),
        embedding_query_prefix="query: ",
        embedding_passage_prefix="passage: ",
    )
    texts = [f"{n:03}" for n in range(70)]
    vectors = embed(settings, *texts)
    assert vectors == [[12.0, 1.0]] * 70 + [[10.0, 1.0]]


def test_a_model_may_come_with_an_installed_package(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model / "my_weights").mkdir()
    (model / "my_weights" / "__init__.py").touch()
    (model / "model").rename(model / "my_weights" / "model")
    monkeypatch.syspath_prepend(str(model))
    settings = RetrieverSettings(embedder="sentence-transformers", embedding_model="my-weights")
    assert embed(settings, "abc") == [[3.0, 1.0]] * 2


def test_a_model_that_fails_is_a_failed_retrieval(model: Path) -> None:
    with pytest.raises(ServiceError, match="RuntimeError"):
        embed(RetrieverSettings(embedder="sentence-transformers", embedding_model=str(model)), "fail")


@pytest.mark.parametrize("name", ["/no/such/folder", "no-such-package", "json"])
def test_a_model_that_is_not_here_is_a_wrong_setting_and_never_fetched(model: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="BATON_EMBEDDING_MODEL"):
        embed(RetrieverSettings(embedder="sentence-transformers", embedding_model=name), "a")


def test_a_model_that_cannot_be_loaded_is_a_wrong_setting(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError("no file named model.safetensors")

    monkeypatch.setattr(sys.modules["sentence_transformers"], "SentenceTransformer", broken)
    with pytest.raises(SettingsError, match=r"BATON_EMBEDDING_MODEL=.*cannot be loaded \(no file named"):
        embed(RetrieverSettings(embedder="sentence-transformers", embedding_model=str(model)), "a")


def test_without_the_library_the_command_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "")
    for fields in (
        {"embedder": "sentence-transformers", "embedding_model": str(tmp_path)},
        {"reranker": "sentence-transformers", "rerank_model": str(tmp_path)},
    ):
        opener: Any = open_embedder if "embedder" in fields else open_reranker

        async def opened(opener: Any = opener, fields: Any = fields) -> None:
            async with opener(RetrieverSettings(**fields)):
                pass

        with pytest.raises(SettingsError, match=r"pip install 'baton\[sentence-transformers\]'"):
            asyncio.run(opened())
