"""Ingestion into a real Milvus: nothing twice, nothing lost, bad files named."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pypdf
import pytest

from services.common.config import RetrieverSettings
from services.common.errors import ServiceError
from services.retriever.extract import extract
from services.retriever.ingest import Library, open_library
from services.retriever.milvus import open_retriever
from services.retriever.port import SearchRequest
from services.retriever.report import Progress
from services.retriever.stored import StoredPassage
from services.retriever.stores.milvus import MilvusStore
from services.retriever.writer import BATCH
from tests.servers.embeddings import embeddings_server
from tests.servers.milvus import Milvus
from tests.servers.pdf import make_pdf
from tests.servers.processes import ROOT, eventually
from tests.shelf import DOCUMENTS, MemoryOriginals, ingest, settings_for, write_documents

T = TypeVar("T")


def run(settings: RetrieverSettings, use: Callable[[Library], Awaitable[T]], originals: MemoryOriginals) -> T:
    async def opened() -> T:
        async with open_library(settings, originals) as library:
            return await use(library)

    return asyncio.run(opened())


async def found(settings: RetrieverSettings, query: str) -> list[str]:
    async with open_retriever(settings) as retriever:
        return [passage.text for passage in await retriever.retrieve(SearchRequest(query, "en", 50))]


def counts(report: object) -> dict[str, int]:
    outcomes = report.outcomes
    return {status: sum(o.status == status for o in outcomes) for status in sorted({o.status for o in outcomes})}


def encrypted_pdf() -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(make_pdf(["secret"])))
    writer.encrypt("password", algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def test_bad_files_are_named_with_their_reasons_and_the_rest_is_ingested(milvus: Milvus, tmp_path: Path) -> None:
    outside = tmp_path / "outside.md"
    outside.write_text("outside")
    folder = write_documents(
        tmp_path / "documents",
        {
            **DOCUMENTS,
            "bad/broken.pdf": b"%PDF-1.7\nnonsense",
            "bad/locked.pdf": encrypted_pdf(),
            "bad/empty.md": b"",
            "bad/binary.md": b"\x00\x01\x02",
            "bad/picture.txt": b"\x89PNG\r\n\x1a\n",
            "bad/large.txt": b"x" * 20_001,
            "slides.key": b"PK",
            ".hidden.md": b"hidden",
            ".git/config.md": b"hidden",
        },
    )
    (folder / "out.md").symlink_to(outside)
    (folder / "up").symlink_to(tmp_path, target_is_directory=True)
    settings = settings_for(milvus, max_document_bytes=20_000)
    originals, seen = MemoryOriginals(), list[Progress]()
    report = run(
        settings, lambda library: library.ingest([folder, tmp_path / "absent.md", folder / "slides.key"], seen.append),
        originals,
    )  # fmt: skip
    reasons = {Path(o.path).relative_to(tmp_path).as_posix(): o.reason for o in report.outcomes if o.reason}
    expected = {
        "documents/bad/broken.pdf": "damaged",
        "documents/bad/locked.pdf": "encrypted",
        "documents/bad/empty.md": "empty",
        "documents/bad/binary.md": "binary",
        "documents/bad/picture.txt": "PNG",
        "documents/bad/large.txt": "larger than",
        "documents/slides.key": "unknown kind",
        "documents/.hidden.md": "hidden",
        "documents/.git": "hidden",
        "documents/out.md": "leads out",
        "documents/up": "link to a folder",
        "absent.md": "no such file",
    }
    assert set(reasons) == set(expected)
    assert all(words in reasons[path] for path, words in expected.items()), reasons
    # A file that was named by hand and is not read is a mistake; one that just lies in a folder is not.
    assert counts(report) == {"added": 4, "failed": 8, "skipped": 5}
    assert [(step.done, step.total) for step in seen] == [(n + 1, 17) for n in range(17)]
    assert {original.meta.name for original in originals.stored.values()} == set(DOCUMENTS)
    assert all(one.data == DOCUMENTS[one.meta.name].encode() for one in originals.stored.values())


def test_the_same_content_again_costs_nothing(milvus: Milvus, tmp_path: Path) -> None:
    folder, settings, originals = write_documents(tmp_path / "d"), settings_for(milvus), MemoryOriginals()

    async def twice(library: Library) -> None:
        assert counts(await library.ingest([folder])) == {"added": 4}
        before = await library.documents()
        assert counts(await library.ingest([folder])) == {"unchanged": 4}
        assert await library.documents() == before
        # Neither does a copy of it under another name.
        write_documents(tmp_path / "d", {"copies/vpn.md": DOCUMENTS["vpn.en.md"]})
        report = await library.ingest([folder])
        assert counts(report) == {"duplicate": 1, "unchanged": 4}
        assert report.of("duplicate")[0].reason == "same content as vpn.en.md"
        assert originals.puts == 4

    run(settings, twice, originals)


def test_a_lost_original_is_stored_again(milvus: Milvus, tmp_path: Path) -> None:
    folder, settings, originals = write_documents(tmp_path / "d"), settings_for(milvus), MemoryOriginals()

    async def lose(library: Library) -> None:
        await library.ingest([folder])
        before = dict(originals.stored)
        originals.stored.clear()
        assert counts(await library.ingest([folder])) == {"unchanged": 4}
        assert originals.stored == before

    run(settings, lose, originals)


def test_a_changed_file_replaces_its_earlier_version(milvus: Milvus, tmp_path: Path) -> None:
    folder, settings, originals = write_documents(tmp_path / "d"), settings_for(milvus), MemoryOriginals()

    async def change(library: Library) -> None:
        await library.ingest([folder])
        write_documents(folder, {"vpn.en.md": "# Remote access\n\nUse the tunnel named Heron.\n"})
        report = await library.ingest([folder])
        assert counts(report) == {"replaced": 1, "unchanged": 3}
        assert await found(settings, "VPN client") == []
        assert "Heron" in (await found(settings, "remote access tunnel"))[0]
        documents = await library.documents()
        assert [info.name for info in documents] == sorted(DOCUMENTS)
        assert set(originals.stored) == {info.document_id for info in documents}

    run(settings, change, originals)


def test_a_changed_file_that_cannot_be_read_leaves_its_earlier_version(milvus: Milvus, tmp_path: Path) -> None:
    folder, settings, originals = write_documents(tmp_path / "d"), settings_for(milvus), MemoryOriginals()

    async def spoil(library: Library) -> None:
        await library.ingest([folder])
        write_documents(folder, {"vpn.en.md": b"\x00"})
        assert counts(await library.ingest([folder])) == {"failed": 1, "unchanged": 3}
        assert "VPN client" in (await found(settings, "VPN client"))[0]

    run(settings, spoil, originals)


def test_other_chunk_sizes_and_other_metadata_ingest_anew(milvus: Milvus, tmp_path: Path) -> None:
    folder, settings, originals = write_documents(tmp_path / "d"), settings_for(milvus), MemoryOriginals()
    assert counts(run(settings, lambda library: library.ingest([folder]), originals)) == {"added": 4}
    smaller = replace(settings, chunk_tokens=50)
    assert counts(run(smaller, lambda library: library.ingest([folder]), originals)) == {"replaced": 4}
    labelled = run(smaller, lambda library: library.ingest([folder], metadata={"site": "Berlin"}), originals)
    assert counts(labelled) == {"replaced": 4}
    documents = run(smaller, lambda library: library.documents(), originals)
    assert all(info.metadata["site"] == "Berlin" for info in documents)
    assert len(documents) == 4


def test_a_deleted_document_is_gone_with_its_passages_and_original(milvus: Milvus, tmp_path: Path) -> None:
    folder, settings, originals = write_documents(tmp_path / "d"), settings_for(milvus), MemoryOriginals()

    async def delete_all(library: Library) -> None:
        assert not await library.delete("0" * 32)
        await library.ingest([folder])
        for info in await library.documents():
            assert await library.delete(info.document_id)
            assert not await library.delete(info.document_id)
        assert not await library.delete('x" or document_id != "')
        assert await library.documents() == []
        assert originals.stored == {}
        assert await found(settings, "leave expense vpn 年假") == []
        assert counts(await library.ingest([folder])) == {"added": 4}

    run(settings, delete_all, originals)


def test_no_documents_are_none(milvus: Milvus, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    settings, originals = settings_for(milvus), MemoryOriginals()
    assert run(settings, lambda library: library.documents(), originals) == []
    assert run(settings, lambda library: library.ingest([tmp_path / "d"]), originals).outcomes == []


def test_two_files_of_one_name_are_never_taken_for_versions_of_one(milvus: Milvus, tmp_path: Path) -> None:
    write_documents(tmp_path, {"a/readme.md": "first thing", "b/readme.md": "second thing"})
    settings, originals = settings_for(milvus), MemoryOriginals()
    named = [tmp_path / "a/readme.md", tmp_path / "b/readme.md", tmp_path / "a/readme.md"]
    report = run(settings, lambda library: library.ingest(named), originals)
    assert counts(report) == {"added": 1, "failed": 1, "skipped": 1}
    assert "same name" in report.of("failed")[0].reason
    both = run(settings, lambda library: library.ingest([tmp_path]), originals)
    assert counts(both) == {"added": 1, "duplicate": 1}


def test_without_a_title_later_passages_are_found_by_how_the_document_begins(milvus: Milvus, tmp_path: Path) -> None:
    study = "年轻的时候先在家乡读书，后来到美国的大学攻读学位，毕业之后又在那里工作了二十多年。"
    write_documents(
        tmp_path,
        {
            "1.txt": f"黄昆岩是知名的医学家。{study}他回国以后担任医学院的第一任院长，地点在台南。",
            "2.txt": f"李远哲是知名的化学家。{study}他回国以后担任研究院的第一任院长，地点在台北。",
        },
    )
    settings = settings_for(milvus, chunk_tokens=60, merge=False)
    asyncio.run(ingest(settings, tmp_path))
    for name, place in (("黄昆岩", "台南"), ("李远哲", "台北")):
        first = asyncio.run(found(settings, f"{name}在哪里担任第一任院长"))[0]
        assert place in first
        assert name not in first


def test_pdf_passages_point_at_their_page(milvus: Milvus, tmp_path: Path) -> None:
    write_documents(tmp_path, {"a.pdf": make_pdf(["Badgers dig.", "Herons wade.", "Otters swim."])})
    settings = settings_for(milvus)

    async def search() -> None:
        await ingest(settings, tmp_path)
        async with open_retriever(settings) as retriever:
            (passage,) = await retriever.retrieve(SearchRequest("wading heron", "en", 6))
        text = extract("a.pdf", (tmp_path / "a.pdf").read_bytes()).text
        assert passage.page == 2
        assert passage.url == f"/documents/{passage.document_id}?passage={passage.id.rpartition('-')[2]}#passage"
        assert text[passage.start : passage.end] == passage.text == "Herons wade."

    asyncio.run(search())


def test_a_document_that_was_cut_off_is_seen_and_finished(milvus: Milvus, tmp_path: Path) -> None:
    text = "\n\n".join(f"# Part {n}\n\nThe word of it is zebra{n}." for n in range(2 * BATCH + 10))
    folder, settings, originals = (
        write_documents(tmp_path / "d", {"long.md": text}),
        settings_for(milvus),
        MemoryOriginals(),
    )

    async def cut_off(library: Library) -> None:
        real, calls = library.store.upsert, 0

        async def failing(passages: Sequence[StoredPassage], total: int) -> None:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise ServiceError("retrieval_failed", "gone")
            await real(passages, total)

        library.store.upsert = failing
        with pytest.raises(ServiceError, match="gone"):
            await library.ingest([folder])
        assert [info.passages for info in await library.documents()] == [0]
        library.store.upsert = real
        assert counts(await library.ingest([folder])) == {"replaced": 1}
        (info,) = await library.documents()
        assert info.passages == 2 * BATCH + 10
        assert await library.store.ordinals(info.document_id) == set(range(info.passages))

    run(settings, cut_off, originals)


def test_a_late_document_is_weighed_like_the_others(milvus: Milvus, tmp_path: Path) -> None:
    """Milvus Lite knows how rare a word is for each segment alone; see MilvusStore.settle."""
    many = {
        f"old{n}.md": f"# Notes {n}\n\nThe printer on floor {n} is off{' in the evening' * (n % 2)}." for n in range(60)
    }
    folder, settings, originals = write_documents(tmp_path / "d", many), settings_for(milvus), MemoryOriginals()

    async def add_later(library: Library) -> None:
        await library.ingest([folder])
        await library.ingest([write_documents(folder, {"late.md": "# Late\n\nA quokka lives here."})])

        async def first() -> bool:
            hits = await found(settings, "Which quokka lives there in the evening?")
            return "quokka" in hits[0]

        await eventually(first, "the rare word counts more than the common one", 60)

    run(settings, add_later, originals)


def test_a_collection_of_another_kind_is_refused_with_a_way_out(milvus: Milvus, tmp_path: Path) -> None:
    folder, settings = write_documents(tmp_path / "d"), settings_for(milvus)
    asyncio.run(ingest(settings, folder))
    with embeddings_server() as embeddings:
        dense = replace(settings, embedder="openai", embedding_url=embeddings.url, embedding_model="m")
        with pytest.raises(ServiceError, match=r"without embeddings.*BATON_MILVUS_COLLECTION"):
            asyncio.run(ingest(dense, folder))
        # Searching goes on by full text.
        assert "VPN" in asyncio.run(found(dense, "vpn"))[0]


INGEST_SCRIPT = """
import asyncio, json, sys
from pathlib import Path
from services.common.config import RetrieverSettings
from tests.shelf import ingest
uri, collection, *paths = sys.argv[1:]
report = asyncio.run(ingest(RetrieverSettings(milvus_uri=uri, collection=collection), *map(Path, paths)))
print(json.dumps([outcome.status for outcome in report.outcomes]))
"""


def test_two_processes_ingest_while_a_third_searches(milvus: Milvus, tmp_path: Path) -> None:
    settings = settings_for(milvus)
    folders = [
        write_documents(
            tmp_path / f"folder{which}",
            {
                f"{which}-{n}.md": f"# Animal {which}{n}\n\nIt is called beast{which}x{n}.\n\n" + "More words. " * 300
                for n in range(12)
            },
        )
        for which in range(2)
    ]

    async def one(folder: Path) -> list[str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", INGEST_SCRIPT, settings.milvus_uri, settings.collection, str(folder),
            stdout=asyncio.subprocess.PIPE, cwd=ROOT, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"},
        )  # fmt: skip
        out, _ = await asyncio.wait_for(process.communicate(), 90)
        statuses: list[str] = json.loads(out)
        return statuses

    async def together() -> None:
        working = asyncio.gather(*(one(folder) for folder in folders))
        async with open_retriever(settings) as retriever:
            while not working.done():
                await retriever.retrieve(SearchRequest("beast", "en", 6))
                await asyncio.wait([working], timeout=0.05)
            assert await working == [["added"] * 12] * 2
            for which in range(2):
                for n in range(12):
                    (first, *_) = await retriever.retrieve(SearchRequest(f"beast{which}x{n}", "en", 6))
                    assert f"beast{which}x{n}" in first.text
        async with open_library(settings, MemoryOriginals()) as library:
            assert [await _whole(library.store, info) for info in await library.documents()] == [True] * 24

    asyncio.run(together())


async def _whole(collection: MilvusStore, info: object) -> bool:
    document_id, passages = info.document_id, info.passages
    return await collection.ordinals(document_id) == set(range(passages)) != set()
