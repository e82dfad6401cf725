"""The corpus version on a real Milvus: the same for the same documents, unknown while they change."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from baton_proto.messages import Passage
from baton_proto.readers import EVERYBODY
from services.common.config import RetrieverSettings
from services.common.errors import ServiceError
from services.retriever import caching, corpus
from services.retriever.caching import Search, Searches
from services.retriever.corpus import CHANGING, GENERATION, Corpus, changing
from services.retriever.ingest import Library, open_library
from services.retriever.milvus import open_retriever
from services.retriever.port import Identified, SearchRequest, Versioned
from services.retriever.stored import StoredPassage
from services.retriever.stores.milvus import BOUNDED_S, MilvusStore, open_store
from tests.answer_job import work_item
from tests.memory_cache import MemoryCache
from tests.servers.milvus import Milvus
from tests.servers.processes import eventually
from tests.shelf import DOCUMENTS, MemoryOriginals, ingest, settings_for, write_documents


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that is not there in time is unknown: nothing here depends on how fast the machine is."""
    monkeypatch.setattr(corpus, "WAIT_S", 60.0)
    monkeypatch.setattr(corpus, "FIRST_WAIT_S", 60.0)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Reader:
    """Asks for the version without waiting until an earlier answer is too old."""

    def __init__(self, collection: MilvusStore) -> None:
        self.clock = Clock()
        self.corpus = Corpus(collection, self.clock)

    async def version(self, after_s: float = 1.0) -> str | None:
        self.clock.now += after_s
        return await self.corpus.version({EVERYBODY})


@asynccontextmanager
async def reading(settings: RetrieverSettings) -> AsyncIterator[Reader]:
    async with open_store(settings) as collection:
        reader = Reader(collection)
        try:
            yield reader
        finally:
            await reader.corpus.close()


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def test_the_same_documents_elsewhere_are_the_same_version(milvus: Milvus, tmp_path: Path) -> None:
    folder = write_documents(tmp_path)

    async def scenario() -> None:
        versions = []
        for _ in range(2):
            settings = settings_for(milvus)
            await ingest(settings, folder)
            async with reading(settings) as reader:
                versions.append(await reader.version())
        assert versions[0] is not None
        assert versions[0] == versions[1]

    run(scenario)


def test_a_document_more_or_less_and_other_passages_are_other_versions(milvus: Milvus, tmp_path: Path) -> None:
    folder = write_documents(tmp_path)

    async def scenario() -> None:
        settings = settings_for(milvus)
        async with reading(settings) as reader:
            empty = await reader.version()
            await ingest(settings, folder)
            first = await reader.version()
            (folder / "new.md").write_text("# New\n\nSomething new.\n")
            await ingest(settings, folder)
            second = await reader.version()
            async with open_library(settings, MemoryOriginals()) as library:
                (new,) = [info for info in await library.documents() if info.name == "new.md"]
                await library.delete(new.document_id)
            assert await reader.version() == first
            (folder / "new.md").unlink()
            await ingest(dataclasses.replace(settings, chunk_tokens=200), folder)
            cut_smaller = await reader.version()
            assert len({empty, first, second, cut_smaller}) == 4
            assert None not in (empty, first, second, cut_smaller)

    run(scenario)


def test_ingesting_what_is_there_changes_nothing(milvus: Milvus, tmp_path: Path) -> None:
    folder = write_documents(tmp_path)

    async def scenario() -> None:
        settings = settings_for(milvus)
        await ingest(settings, folder)
        async with open_store(settings) as collection:
            before = await collection.properties()
            await ingest(settings, folder)
            assert await collection.properties() == before
            assert before is not None
            assert not any(name.startswith(CHANGING) for name in before)

    run(scenario)


def test_while_documents_are_written_the_version_is_unknown(milvus: Milvus, tmp_path: Path) -> None:
    folder = write_documents(tmp_path)

    async def scenario() -> None:
        settings = settings_for(milvus)
        seen: list[str | None] = []
        async with reading(settings) as reader, open_library(settings, MemoryOriginals()) as library:
            original = library.store.upsert

            async def upsert(passages: Sequence[StoredPassage], total: int) -> None:
                seen.append(await reader.version())
                await original(passages, total)
                seen.append(await reader.version())

            library.store.upsert = upsert  # type: ignore[method-assign]
            await library.ingest([folder])
            assert seen == [None] * 2 * len(DOCUMENTS)
            assert await reader.version() is not None

    run(scenario)


def test_two_ingestions_at_once_must_both_have_ended(milvus: Milvus, tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = settings_for(milvus)
        await ingest(settings, write_documents(tmp_path))
        async with open_store(settings) as collection, reading(settings) as reader:
            before = await reader.version()
            async with changing(collection) as one:
                await one.begin()
                async with changing(collection) as other:
                    await other.begin()
                    assert await reader.version() is None
                assert await reader.version() is None
            assert await reader.version() == before

    run(scenario)


def test_after_a_kill_in_the_middle_what_is_stored_counts_once_the_mark_is_dead(milvus: Milvus, tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = settings_for(milvus)
        await ingest(settings, write_documents(tmp_path))
        async with open_library(settings, MemoryOriginals()) as library, reading(settings) as reader:
            before = await reader.version()
            with pytest.raises(RuntimeError, match="killed"):
                await _killed_after_a_deletion(library)
            assert await reader.version() is None
            assert await reader.version(corpus.DEAD_S / 2) is None
            after = await reader.version(corpus.DEAD_S)
            assert after not in (None, before)
            # The next one who changes something leaves the mark alone while it is young, and removes it when it is old.
            async with changing(library.store) as change:
                await change.begin()
            assert await _marks(library.store) == 1
            corpus_forgets = corpus.FORGET_S
            corpus.FORGET_S = -1.0
            try:
                async with changing(library.store) as change:
                    await change.begin()
            finally:
                corpus.FORGET_S = corpus_forgets
            assert await _marks(library.store) == 0
            assert await reader.version() == after

    run(scenario)


async def _killed_after_a_deletion(library: Library) -> None:
    document = (await library.documents())[0]
    async with changing(library.store) as change:
        await change.begin()
        await library.store.delete(document.document_id)
        raise RuntimeError("killed")


async def _marks(collection: MilvusStore) -> int:
    return sum(name.startswith(CHANGING) for name in await collection.properties() or {})


def test_a_document_of_which_a_part_is_missing_leaves_the_version_unknown(milvus: Milvus, tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = settings_for(milvus)
        await ingest(settings, write_documents(tmp_path))
        async with open_store(settings) as collection, reading(settings) as reader:
            info = dataclasses.replace((await collection.documents())[0], document_id="f" * 32)
            async with changing(collection) as change:
                await change.begin()
                await collection.upsert([StoredPassage(info, 0, "text", "", 0, 4)], 0)
            assert await reader.version() is None
            async with changing(collection) as change:
                await change.begin()
                await collection.delete(info.document_id)
            assert await reader.version() is not None

    run(scenario)


def test_a_collection_from_before_there_were_versions_has_one_after_its_next_ingestion(
    milvus: Milvus, tmp_path: Path
) -> None:
    folder = write_documents(tmp_path)

    async def scenario() -> None:
        settings = settings_for(milvus)
        await ingest(settings, folder)
        async with open_store(settings) as collection, reading(settings) as reader:
            known = await reader.version()
            await collection.drop_properties([GENERATION])
            assert await reader.version() is None
            await ingest(settings, folder)
            assert await reader.version() == known

    run(scenario)


def test_a_milvus_that_keeps_no_marks_is_ingested_into_all_the_same(milvus: Milvus, tmp_path: Path) -> None:
    async def refused(properties: dict[str, str]) -> None:
        raise ServiceError("retrieval_failed", "no such property", retryable=True)

    async def scenario() -> None:
        settings = settings_for(milvus)
        async with open_library(settings, MemoryOriginals()) as library, reading(settings) as reader:
            library.store.set_properties = refused  # type: ignore[method-assign]
            report = await library.ingest([write_documents(tmp_path)])
            assert len(report.of("added")) == len(DOCUMENTS)
            assert await reader.version() is None

    run(scenario)


def test_nothing_is_changed_without_a_mark_where_there_is_a_version(milvus: Milvus, tmp_path: Path) -> None:
    """Otherwise what was found before would be taken for what is there now."""
    folder = write_documents(tmp_path)

    async def refused(properties: dict[str, str]) -> None:
        raise ServiceError("retrieval_failed", "not now", retryable=False)

    async def scenario() -> None:
        settings = settings_for(milvus)
        await ingest(settings, folder)
        (folder / "new.md").write_text("# New\n\nSomething new.\n")
        async with open_library(settings, MemoryOriginals()) as library, reading(settings) as reader:
            before = await reader.version()
            library.store.set_properties = refused  # type: ignore[method-assign]
            with pytest.raises(ServiceError, match="not now"):
                await library.ingest([folder])
            assert len(await library.documents()) == len(DOCUMENTS)
            assert await reader.version() == before

    run(scenario)


def test_a_mark_is_renewed_while_documents_are_written(
    milvus: Milvus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "RENEW_S", 0.02)

    async def scenario() -> None:
        settings = settings_for(milvus)
        await ingest(settings, write_documents(tmp_path))
        async with open_store(settings) as collection:

            async def mark() -> str:
                properties = await collection.properties() or {}
                return next((value for name, value in properties.items() if name.startswith(CHANGING)), "")

            async with changing(collection) as change:
                await change.begin()
                first = await mark()

                async def another() -> bool:
                    return await mark() != first

                assert first
                await eventually(another, "the mark is renewed")
            assert not await mark()

    run(scenario)


def test_a_version_is_not_believed_when_the_next_look_fails(milvus: Milvus, tmp_path: Path) -> None:
    async def broken() -> dict[str, str]:
        raise RuntimeError("a mistake")

    async def scenario() -> None:
        settings = settings_for(milvus)
        await ingest(settings, write_documents(tmp_path))
        async with open_store(settings) as collection:
            reader = Reader(collection)
            assert await reader.version() is not None
            collection.properties = broken  # type: ignore[method-assign,assignment]
            assert await reader.version(0.0) is not None, "it is too young to be looked for again"
            assert await reader.version() is None
            await reader.corpus.close()

    run(scenario)


def test_what_was_read_too_long_ago_is_not_believed_because_the_reading_ends_only_now(
    milvus: Milvus, tmp_path: Path
) -> None:
    folder = write_documents(tmp_path)

    async def scenario() -> None:
        settings = settings_for(milvus)
        await ingest(settings, folder)
        async with open_store(settings) as collection:
            reader, read = Reader(collection), collection.properties
            before = await reader.version()
            have_read, go_on = asyncio.Event(), asyncio.Event()

            async def slow() -> dict[str, str] | None:
                properties = await read()
                have_read.set()
                await go_on.wait()
                return properties

            collection.properties = slow  # type: ignore[method-assign]
            early = asyncio.create_task(reader.version())
            await have_read.wait()
            (folder / "new.md").write_text("# New\n\nSomething new.\n")
            await ingest(settings, folder)
            late = asyncio.create_task(reader.version())
            await asyncio.sleep(0)  # it waits for the reading that is under way
            go_on.set()
            assert await early == before
            assert await late not in (None, before)
            await reader.corpus.close()

    run(scenario)


def test_what_a_search_finds_between_two_changes_that_cancel_out_is_not_kept(
    milvus: Milvus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching, "LOOK_AGAIN_S", corpus.AGE_S)
    folder = write_documents(tmp_path)
    request = SearchRequest("What is the colour of the rowing boat?", "en", 6)

    async def scenario() -> None:
        settings, cache = settings_for(milvus), MemoryCache()
        await ingest(settings, folder)
        async with open_retriever(settings) as retriever, open_library(settings, MemoryOriginals()) as library:
            searches = Searches(retriever, cache=cache)

            async def found(search: Search) -> list[str]:
                passages = (await searches.find(work_item(stage="retrieve"), request, search)).passages
                await cache.settled()
                return [passage.text for passage in passages if "vermilion" in passage.text]

            async def plain() -> Sequence[Passage]:
                return await retriever.retrieve(request)

            async def in_between() -> Sequence[Passage]:
                (folder / "boat.md").write_text("# The rowing boat\n\nThe colour of the rowing boat is vermilion.\n")
                await library.ingest([folder])
                passages = await plain()
                (boat,) = [info for info in await library.documents() if info.name == "boat.md"]
                assert await library.delete(boat.document_id)
                return passages

            assert await found(in_between)
            assert not await found(plain)
            assert cache.values, "what the version really holds is kept"

    run(scenario)


def test_without_milvus_the_version_is_unknown(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = RetrieverSettings(milvus_uri="http://127.0.0.1:9", timeout_s=0.3)
        async with reading(settings) as reader:
            assert await reader.version() is None

    run(scenario)


def test_a_retriever_tells_its_version_and_what_decides_on_its_results(milvus: Milvus, tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = settings_for(milvus)
        await ingest(settings, write_documents(tmp_path))
        async with open_retriever(settings) as retriever:
            assert isinstance(retriever, Versioned)
            assert isinstance(retriever, Identified)
            assert await retriever.version({EVERYBODY}) is not None
            identity = retriever.identity()
        for changes in ({"chunk_tokens": 200}, {"collection": "c"}):
            async with open_retriever(dataclasses.replace(settings, **changes)) as other:
                assert isinstance(other, Identified)
                assert other.identity() != identity

    run(scenario)


class FailingEmbedder:
    async def embed(self, texts: list[str]) -> list[list[float]]:
        raise ServiceError("retrieval_failed", "no embeddings now", retryable=True)


@asynccontextmanager
async def open_failing(_: RetrieverSettings) -> AsyncIterator[FailingEmbedder]:
    yield FailingEmbedder()


def test_what_is_found_without_the_embedder_is_nobodys_version(milvus: Milvus, tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = settings_for(milvus)
        await ingest(settings, write_documents(tmp_path))
        degraded = dataclasses.replace(settings, embedder=f"{__name__}:open_failing")
        async with open_retriever(degraded) as retriever:
            assert isinstance(retriever, Versioned)
            assert await retriever.version({EVERYBODY}) is not None
            assert await retriever.retrieve(SearchRequest("年假有几天?", "zh", 3))
            assert await retriever.version({EVERYBODY}) is None

    run(scenario)


def test_a_milvus_whose_searches_may_lag_is_given_time(
    milvus: Milvus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def bounded(self: MilvusStore) -> float:
        return BOUNDED_S

    monkeypatch.setattr(MilvusStore, "shows_after_s", bounded)

    async def scenario() -> None:
        settings = settings_for(milvus)
        await ingest(settings, write_documents(tmp_path))
        async with reading(settings) as reader:
            assert await reader.version() is None
            assert await reader.version(BOUNDED_S / 2) is None
            assert await reader.version(BOUNDED_S) is not None

    run(scenario)
