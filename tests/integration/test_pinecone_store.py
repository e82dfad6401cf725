"""The store on Pinecone against a stand-in: writes that show late, failures, limits, and words that are weighed."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from baton_proto.readers import EVERYBODY
from services.common.config import RetrieverSettings
from services.common.errors import ServiceError
from services.common.settings import SettingsError
from services.retriever.corpus import Corpus, changing
from services.retriever.ingest import open_library
from services.retriever.port import SearchRequest
from services.retriever.store_retriever import open_retriever
from services.retriever.stored import DocumentInfo, StoredPassage
from services.retriever.stores import pinecone
from services.retriever.stores import pinecone_index as index_module
from services.retriever.stores.opening import open_store
from services.retriever.stores.pinecone_records import MAX_BYTES, MAX_RECORDS
from services.retriever.stores.port import StoreQuery, Unreachable, Where
from tests.servers.pinecone import KEY, PineconeIndex, pinecone_index
from tests.servers.processes import free_port
from tests.shelf import MemoryOriginals, ingest, write_documents

ALL = Where(frozenset({EVERYBODY}))
SIZE = 8


@pytest.fixture
def words() -> Iterator[PineconeIndex]:
    with pinecone_index() as index:
        yield index


@pytest.fixture
def dense() -> Iterator[PineconeIndex]:
    with pinecone_index(SIZE, "cosine") as index:
        yield index


def settings_for(words: PineconeIndex, dense: PineconeIndex | None = None, **fields: Any) -> RetrieverSettings:
    hosts = {"pinecone_host": words.host, "pinecone_dense_host": dense.host if dense else ""}
    defaults = {"retriever": "pinecone", "pinecone_api_key": KEY, "timeout_s": 10.0}
    return RetrieverSettings(**{**defaults, **hosts, **fields})


def passage(number: int, text: str, vector: list[float] | None = None, ordinal: int = 0) -> StoredPassage:
    info = DocumentInfo(f"{number:032x}", f"{number}.md", "", "en", "text/markdown", "ab" * 32, 0, 1, number)
    return StoredPassage(info, ordinal, text, "", 0, len(text), vector=vector)


async def found(settings: RetrieverSettings, text: str, top_k: int = 10) -> list[int]:
    """Numbers of the documents whose passages are found."""
    async with open_store(settings) as store:
        return [int(hit.document_id, 16) for hit in await store.search(StoreQuery(text, top_k, ALL))]


async def told(settings: RetrieverSettings) -> tuple[str | None, str | None]:
    """The corpus version and generation, after a change of documents."""
    async with open_store(settings) as store:
        corpus = Corpus(store)
        async with changing(store) as change:
            await change.begin()
        try:
            return await corpus.version({EVERYBODY}), await corpus.generation()
        finally:
            await corpus.close()


async def failure(settings: RetrieverSettings) -> tuple[ServiceError, float]:
    """How a search fails, and after how many seconds."""
    started = time.monotonic()
    with pytest.raises(ServiceError) as raised:
        await found(settings, "quokka")
    assert raised.value.code == "retrieval_failed"
    assert KEY not in raised.value.message
    return raised.value, time.monotonic() - started


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes are looked for all the time, not after growing pauses."""
    monkeypatch.setattr(pinecone, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(pinecone, "LONGEST_PAUSE_S", 0.001)


@pytest.mark.usefixtures("impatient")
def test_writes_that_show_late_are_waited_for_and_no_version_is_told(words: PineconeIndex, tmp_path: Path) -> None:
    words.late = 5
    settings = settings_for(words)
    folder = write_documents(tmp_path)
    originals = MemoryOriginals()

    async def scenario() -> None:
        report = await ingest(settings, folder, originals=originals)
        assert len(report.of("added")) == 4
        assert len((await ingest(settings, folder, originals=originals)).of("unchanged")) == 4
        write_documents(tmp_path, {"vpn.en.md": "# Remote access\n\nThe tunnel is gone. Use the browser.\n"})
        assert len((await ingest(settings, folder, originals=originals)).of("replaced")) == 1
        async with open_library(settings, originals) as library, open_retriever(settings) as retriever:
            assert not await retriever.retrieve(SearchRequest("VPN client", "en", 1, {"department": "it"}))
            (first, *_) = await retriever.retrieve(SearchRequest("the tunnel", "en", 3))
            assert "tunnel" in first.text
            assert await library.delete(first.document_id)
            # Brought in again at once, it is not taken for one that is still there.
            (again,) = (await library.ingest([folder / "vpn.en.md"])).of("added")
            assert again.document_id == first.document_id
        async with open_store(settings) as store:
            assert len(await store.documents()) == 4
            assert await told(settings) == (None, None)

    asyncio.run(scenario())


@pytest.mark.usefixtures("impatient")
def test_what_was_written_or_removed_is_so_by_both_routes_once_that_returns(
    words: PineconeIndex, dense: PineconeIndex
) -> None:
    words.late, dense.late = 5, 6
    vector = [1.0] * SIZE

    async def scenario() -> None:
        async with open_store(settings_for(words, dense)) as store:
            await store.ensure(SIZE)
            assert await store.dimension() == SIZE
            await store.upsert([passage(1, "quokka", vector)], 1)
            assert len(await store.find("", "1.md")) == 1
            for asked in (StoreQuery("quokka", 5, ALL), StoreQuery("", 5, ALL, vector)):
                assert len(await store.search(asked)) == 1
            await store.delete(f"{1:032x}")
            assert await store.search(StoreQuery("quokka", 5, ALL, vector)) == []

    asyncio.run(scenario())


def test_of_a_namespace_with_nothing_in_it_no_version_is_told_either(words: PineconeIndex) -> None:
    assert asyncio.run(told(settings_for(words))) == (None, None)


def test_a_busy_pinecone_is_asked_again_and_one_that_stays_busy_may_be_asked_later(words: PineconeIndex) -> None:
    settings = settings_for(words)

    async def scenario() -> None:
        async with open_store(settings) as store:
            words.failures = [503]
            await store.ensure(None)
            await store.upsert([passage(1, "quokka")], 1)
        words.failures = [429]
        assert await found(settings, "quokka") == [1]
        words.failures = [429] * 100
        error, _ = await failure(settings_for(words, timeout_s=1.0))
        assert error.retryable
        words.failures = []
        assert await found(settings, "quokka") == [1]

    asyncio.run(scenario())


def test_one_that_is_down_or_hangs_is_given_up_in_time(
    words: PineconeIndex, dense: PineconeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def made() -> None:
        async with open_store(settings_for(words, dense)) as store:
            await store.ensure(SIZE)

    asyncio.run(made())

    async def scenario() -> None:
        nobody = f"http://127.0.0.1:{free_port()}"
        error, took_s = await failure(settings_for(words, pinecone_host=nobody, timeout_s=1.0))
        assert error.retryable
        assert took_s < 8
        words.delay_s = 2.0
        error, took_s = await failure(settings_for(words, timeout_s=0.3))
        assert (error.retryable, "in time" in error.message) == (True, True)
        assert took_s < 8
        # The client waits for as long as it is told to.
        monkeypatch.setattr(index_module, "WRITE_TIMEOUT_S", 0.3)
        words.delay_s, words.failures, words.retry_after_s = 0.0, [429], 60
        async with open_store(settings_for(words)) as store:
            with pytest.raises(Unreachable, match="in time"):
                await asyncio.wait_for(store.documents(), 20)
        # Each call is in time, and all together are not.
        words.delay_s = 0.35
        async with open_store(settings_for(words, dense, timeout_s=0.5)) as store:
            with pytest.raises(Unreachable, match="in time"):
                await store.search(StoreQuery("quokka", 5, ALL, [1.0] * SIZE))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("status", "named"),
    [(403, "BATON_PINECONE_API_KEY"), (404, "BATON_PINECONE_HOST"), (400, "the log of this service")],
)
def test_a_refusal_says_what_to_look_at_and_is_not_repeated(words: PineconeIndex, status: int, named: str) -> None:
    words.failures = [status] * 20
    error, _ = asyncio.run(failure(settings_for(words)))
    assert named in error.message
    assert not error.retryable


def test_a_wrong_key_is_named_without_being_told(words: PineconeIndex) -> None:
    error, _ = asyncio.run(failure(settings_for(words, pinecone_api_key="pcsk_wrong")))
    assert (error.retryable, "BATON_PINECONE_API_KEY" in error.message) == (False, True)
    assert "pcsk_wrong" not in error.message


def test_missing_settings_and_a_missing_client_are_told_at_the_start(
    words: PineconeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def opened(settings: RetrieverSettings) -> list[str]:
        with pytest.raises(SettingsError) as raised:
            async with open_store(settings):
                pass
        return raised.value.problems

    missing = asyncio.run(opened(RetrieverSettings(retriever="pinecone", embedder="openai")))
    assert [line.partition(":")[0] for line in missing] == [
        "BATON_PINECONE_API_KEY",
        "BATON_PINECONE_HOST",
        "BATON_PINECONE_DENSE_HOST",
    ]
    (wrong,) = asyncio.run(opened(settings_for(words, pinecone_host="nowhere")))
    assert wrong.startswith("BATON_PINECONE_HOST='nowhere'")
    for name in [name for name in sys.modules if name.startswith("services.retriever.stores.pinecone")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pinecone", None)
    (absent,) = asyncio.run(opened(settings_for(words)))
    assert "pip install 'baton[pinecone]'" in absent


def test_indexes_of_the_wrong_kind_are_refused_before_anything_is_written(
    words: PineconeIndex, dense: PineconeIndex
) -> None:
    async def refused(settings: RetrieverSettings, dimension: int | None) -> str:
        async with open_store(settings) as store:
            with pytest.raises(ServiceError) as raised:
                await store.ensure(dimension)
            assert await store.properties() is None
            return raised.value.message

    assert "BATON_PINECONE_HOST" in asyncio.run(refused(settings_for(dense), None))
    assert "BATON_PINECONE_DENSE_HOST" in asyncio.run(refused(settings_for(words), SIZE))
    assert "384 numbers" in asyncio.run(refused(settings_for(words, dense), 384))


def test_a_request_is_never_larger_than_pinecone_takes(words: PineconeIndex, dense: PineconeIndex) -> None:
    large = [passage(1, f"quokka {n} " + "x" * 30_000, [1.0] * SIZE, n) for n in range(80)]
    diverse = passage(3, " ".join(f"word{n}" for n in range(3_000)))
    many = [passage(2, f"wombat {n}", [1.0] * SIZE, n) for n in range(128)]

    async def scenario() -> None:
        async with open_store(settings_for(words, dense)) as store:
            await store.ensure(SIZE)
            await store.upsert(large, 80)
            await store.upsert(many, 128)
            await store.upsert([diverse], 1)
            await store.search(StoreQuery("".join(map(chr, range(0x4E00, 0x5DA0))), 5, ALL))
            assert len(await store.ordinals(large[0].document.document_id)) == 80
            assert len(await store.ordinals(many[0].document.document_id)) == 128

    asyncio.run(scenario())
    writes = [body["vectors"] for path, body in [*words.requests, *dense.requests] if path == "/vectors/upsert"]
    assert max(map(len, writes)) == MAX_RECORDS
    assert len(writes) == 1 + 2 * 2 + 2 * 2 + 1
    assert MAX_BYTES < 2 * 1024 * 1024  # the stand-in refuses what is larger


def test_a_document_of_which_too_much_is_to_be_kept_fails_alone(words: PineconeIndex, tmp_path: Path) -> None:
    notes = "\n".join(f"note_{n}: {'n' * 500}" for n in range(100))
    noted = f"---\n{notes}\n---\n# Quokkas\n\nThey smile.\n"
    folder = write_documents(tmp_path, {"a-noted.md": noted, "plain.md": "# Wombats\n\nThey dig.\n"})
    originals = MemoryOriginals()
    report = asyncio.run(ingest(settings_for(words), folder, originals=originals))
    (failed,), (added,) = report.of("failed"), report.of("added")
    assert "Pinecone keeps" in failed.reason
    assert added.path.endswith("plain.md")
    assert set(originals.stored) == {added.document_id}, "nothing stays of what cannot be found"


def test_a_rare_word_counts_more_than_common_ones_and_is_counted_once(words: PineconeIndex) -> None:
    common = [passage(n, "policy leave days " * 3) for n in range(1, 30)]
    rare = passage(99, "The quokka keeps to itself, whatever else there may be on the island that it lives on.")

    async def scenario() -> None:
        settings = settings_for(words)
        async with open_store(settings) as store:
            await store.ensure(None)
            for one in [*common, rare]:
                await store.upsert([one], 1)
            for _ in range(2):
                before = len(words.requests)
                hits = await store.search(StoreQuery("leave policy for a quokka", 3, ALL))
                assert int(hits[0].document_id, 16) == 99
            assert [path for path, _ in words.requests[before:]] == ["/query"]

    asyncio.run(scenario())


def test_words_that_cannot_be_counted_still_find(words: PineconeIndex) -> None:
    async def scenario() -> None:
        settings = settings_for(words)
        async with open_store(settings) as store:
            await store.ensure(None)
            await store.upsert([passage(1, "quokka")], 1)
        words.failures = [400, 400]  # one word, and how many passages there are
        assert await found(settings, "quokka") == [1]

    asyncio.run(scenario())
