"""The embedded store where processes die, files are damaged and indexes are saved."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from baton_proto.readers import EVERYBODY
from services.common.config import RetrieverSettings
from services.common.errors import ServiceError
from services.retriever.stored import DocumentInfo, StoredPassage
from services.retriever.stores import local_index, local_vectors, local_words
from services.retriever.stores.local import open_store
from services.retriever.stores.local_rows import Rows
from services.retriever.stores.port import StoreQuery, Where
from tests.servers.processes import Process, wait_until

SIZE = 16
WHERE = Where(frozenset({EVERYBODY}))
WRITER = """
import asyncio, sys
from tests.integration.test_local_store import RetrieverSettings, batch, open_store

async def main():
    async with open_store(RetrieverSettings(retriever="local", store_dir=sys.argv[1])) as store:
        await store.ensure(16)
        for number in range(100_000):
            await store.upsert(batch(number), 20)
            print(number, flush=True)

asyncio.run(main())
"""


def batch(number: int, count: int = 20) -> list[StoredPassage]:
    """The passages of document `number`, with vectors that no other one has."""
    info = DocumentInfo(f"{number:032x}", f"{number}.md", "T", "en", "text/plain", "", 0, 1, number)
    vectors = np.random.default_rng(number).standard_normal((count, SIZE))
    return [
        StoredPassage(info, n, f"quokka number{number} part{n}", "", 0, 1, None, vectors[n].tolist())
        for n in range(count)
    ]


def settings_in(folder: Path) -> RetrieverSettings:
    return RetrieverSettings(retriever="local", store_dir=str(folder))


def test_a_writer_that_is_killed_loses_nothing_that_it_was_told_is_written(tmp_path: Path) -> None:
    writer = Process([sys.executable, "-c", WRITER, str(tmp_path / "s")], tmp_path / "writer.log")
    try:
        wait_until(lambda: writer.text().count("\n") >= 5, "some documents are written", within_s=60)
        writer.kill()
    finally:
        writer.stop()
    acknowledged = int(writer.text().split()[-1]) + 1

    async def look() -> None:
        async with open_store(settings_in(tmp_path / "s")) as store:
            documents = await store.documents()
            assert acknowledged <= len(documents) <= acknowledged + 1
            for number, info in enumerate(sorted(documents, key=lambda info: info.document_id)):
                assert info.passages == 20
                assert await store.ordinals(info.document_id) == set(range(20))
                hits = await store.search(StoreQuery(f"number{number} part7", 3, WHERE, batch(number)[7].vector))
                assert hits[0].id == f"{number:032x}-7"
            hits = await store.search(StoreQuery("quokka", 50, WHERE))
            assert len({hit.id for hit in hits}) == 50
            await store.upsert(batch(99_999), 20)  # and it can be written to again

    asyncio.run(look())


def test_a_saved_index_is_gone_on_with_and_a_damaged_one_is_built_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_index, "SAVE_EVERY", 100)
    monkeypatch.setattr(local_vectors, "EXACT", 10)
    built: list[int] = []
    add = local_vectors.VectorIndex.add

    def counted(self: local_vectors.VectorIndex, seqs: list[int], vectors: local_vectors.Vectors) -> None:
        built.append(len(seqs))
        add(self, seqs, vectors)

    monkeypatch.setattr(local_vectors.VectorIndex, "add", counted)

    async def nearest(number: int, part: int) -> str:
        async with open_store(settings_in(tmp_path)) as store:
            hits = await store.search(StoreQuery("", 1, WHERE, batch(number)[part].vector))
            return hits[0].id if hits else ""

    async def scenario() -> None:
        async with open_store(settings_in(tmp_path)) as store:
            await store.ensure(SIZE)
            for number in range(10):
                await store.upsert(batch(number), 20)
            await store.search(StoreQuery("quokka", 1, WHERE))
            await store.delete(f"{3:032x}")
            await store.upsert(batch(11), 20)
        assert sum(built) == 200
        built.clear()
        assert await nearest(5, 4) == f"{5:032x}-4"
        assert built == [20], "the rest came from what was saved"
        assert await nearest(11, 2) == f"{11:032x}-2"
        assert not (await nearest(3, 1)).startswith(f"{3:032x}")
        for damage in (b"", b"not an index"):
            built.clear()
            (tmp_path / "vectors.npz").write_bytes(damage)
            assert await nearest(5, 4) == f"{5:032x}-4"
            assert sum(built) == 200

    asyncio.run(scenario())


def test_an_index_that_is_far_behind_is_built_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.retriever.stores.local_rows.REMOVALS_KEPT", 5)

    async def scenario() -> None:
        async with open_store(settings_in(tmp_path)) as writer, open_store(settings_in(tmp_path)) as reader:
            await writer.ensure(SIZE)
            await writer.upsert(batch(1), 20)
            await writer.upsert(batch(1), 20)
            assert len(await reader.search(StoreQuery("number1", 50, WHERE))) == 20
            for number in range(2, 5):
                await writer.upsert(batch(number), 20)
                await writer.delete(f"{number:032x}")
            await writer.upsert(batch(9), 20)
            await writer.settle()
            assert len(await reader.search(StoreQuery("quokka", 50, WHERE, batch(9)[0].vector))) == 40

    asyncio.run(scenario())


def test_many_passages_with_filters_are_found_by_the_graph_as_by_comparing_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ids(exact: int) -> list[list[str]]:
        monkeypatch.setattr(local_vectors, "EXACT", exact)
        async with open_store(settings_in(tmp_path)) as store:
            found = []
            for number in range(20):
                where = Where(WHERE.readers, {"language": "en"})
                hits = await store.search(StoreQuery("", 5, where, batch(number)[0].vector))
                found.append([hit.id for hit in hits])
            return found

    async def scenario() -> None:
        async with open_store(settings_in(tmp_path)) as store:
            await store.ensure(SIZE)
            for number in range(60):
                await store.upsert(batch(number), 20)
        by_all, by_graph = await ids(10**9), await ids(10)
        same = sum(len(set(one) & set(other)) for one, other in zip(by_all, by_graph, strict=True))
        assert same >= 0.95 * sum(map(len, by_all))

    asyncio.run(scenario())


def test_a_folder_that_cannot_be_used_is_a_clear_error_in_time(tmp_path: Path) -> None:
    (tmp_path / "passages.sqlite").write_bytes(b"not a database, whatever it is" * 100)

    async def scenario() -> None:
        started = time.monotonic()
        async with open_store(settings_in(tmp_path)) as store:
            with pytest.raises(ServiceError, match="document store failed"):
                await store.documents()
        assert time.monotonic() - started < 10

    asyncio.run(scenario())


def test_many_readers_find_what_few_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ids(few: int) -> list[str]:
        monkeypatch.setattr(local_words, "FEW_KEYS", few)
        async with open_store(settings_in(tmp_path)) as store:
            where = Where(frozenset({"group:1", "group:2", "group:none"}))
            return [hit.id for hit in await store.search(StoreQuery("quokka part3", 50, where))]

    async def scenario() -> None:
        async with open_store(settings_in(tmp_path)) as store:
            await store.ensure(SIZE)
            for number in range(6):
                one = batch(number)
                info = replace(one[0].document, readers=(f"group:{number % 4}",))
                await store.upsert([replace(passage, document=info) for passage in one], 20)
        by_terms, by_set = await ids(32), await ids(0)
        assert by_terms == by_set
        assert {int(id.partition("-")[0], 16) for id in by_terms} == {1, 2, 5}

    asyncio.run(scenario())


def test_all_that_open_a_new_store_at_once_can(tmp_path: Path) -> None:
    """SQLite refuses some of those that switch a new file to its log together, and does not wait."""
    with ThreadPoolExecutor(8) as pool:
        for number in range(40):
            gate = threading.Barrier(8)

            def opened(rows: Rows, gate: threading.Barrier = gate) -> int:
                gate.wait(30)
                return rows.version()

            rows = [Rows(tmp_path / str(number)) for _ in range(8)]
            assert len(list(pool.map(opened, rows))) == 8
            for one in rows:
                one.close()
