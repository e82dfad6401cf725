"""The ingest worker on a real NATS and a real Milvus: states, replacement, removal, overtaking, crashes, outages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from baton_proto.messages import FileRecord
from services.common.files import Removed
from services.retriever.corpus import Corpus
from services.retriever.extract import Document
from services.retriever.ingest import read_here
from services.retriever.stores.port import StoreQuery, Where
from tests.ingest.samples import make_zip
from tests.ingesting import Place, place
from tests.rig import Rig, run_rig
from tests.servers.milvus import Milvus, milvus_lite
from tests.servers.nats import Nats
from tests.servers.processes import eventually, free_port
from tests.shelf import settings_for

LONG = "\n\n".join(f"# Part {n}\n\nThe word of it is zebra{n}." for n in range(300))


def run(nats: Nats, milvus: Milvus, scenario: Callable[[Place], Awaitable[None]], **ingest: object) -> None:
    async def on_rig(rig: Rig) -> None:
        async with place(rig.bus, settings_for(milvus), **ingest) as one:
            await scenario(one)

    run_rig(nats, on_rig)


async def found(one: Place, text: str) -> list[str]:
    return [hit.text for hit in await one.library.store.search(StoreQuery(text, 10, Where(None)))]


def test_files_become_ready_are_replaced_and_removed(nats: Nats, milvus: Milvus) -> None:
    async def scenario(one: Place) -> None:
        seen: list[FileRecord | Removed] = []
        stop = await one.files.watch(seen.append)
        first = await one.add("a.md", "# Otters\n\nOtters swim.", metadata={"year": 2026}, readers=["group:zoo"])
        bad, long = await one.add("b.md", b"\0\1"), await one.add("long.md", LONG)
        async with one.working():
            ready, failed, whole = await one.done(first, bad, long)
            assert (ready.state, ready.title, ready.passages, ready.readers) == ("ready", "Otters", 1, ["group:zoo"])
            assert (failed.state, failed.document_id) == ("failed", "")
            assert "binary" in failed.error
            assert (whole.state, whole.passages, whole.done, whole.total) == ("ready", 300, 300, 300)
            await one.assert_nothing_twice()
            (info,) = await one.library.store.find("", "a.md")
            assert info.metadata["year"] == 2026
            # The same again costs nothing, and a broken one leaves the version before.
            upserts = _count_upserts(one)
            (again,) = await one.done(await one.add("long.md", LONG))
            assert (again.state, again.document_id, upserts) == ("ready", whole.document_id, [])
            (spoilt,) = await one.done(await one.add("a.md", b"\0"))
            assert (spoilt.state, spoilt.document_id) == ("failed", ready.document_id)
            assert "Otters swim." in (await found(one, "otters"))[0]
            (other,) = await one.done(await one.add("a.md", "# Herons\n\nHerons wade.", readers=["everybody"]))
            assert (other.state, other.title, other.readers) == ("ready", "Herons", ["everybody"])
            assert await found(one, "otters") == []
            await one.assert_nothing_twice()
            for record in (other, whole, failed):
                await one.files.remove(record)
            assert await one.done(other, whole, failed) == [None, None, None]
        assert await one.files.all() == []
        await one.assert_nothing_twice()
        await eventually(one.uploads_gone, "no upload is left")
        # Whoever watches is told the last of several changes at least, so not that it was being removed.
        await eventually(lambda: sum(isinstance(change, Removed) for change in seen) == 3, "all removals are told")
        await stop()

    run(nats, milvus, scenario)


def _count_upserts(one: Place) -> list[int]:
    calls: list[int] = []
    real = one.library.store.upsert

    async def counting(passages, total):
        calls.append(len(passages))
        await real(passages, total)

    one.library.store.upsert = counting
    return calls


def test_a_changed_file_is_found_at_every_moment(nats: Nats, milvus: Milvus) -> None:
    async def scenario(one: Place) -> None:
        async with one.working():
            await one.done(await one.add("a.md", "# Badgers\n\nBadgers dig at night, version 1."))
            record = await one.add("a.md", "# Badgers\n\nBadgers dig at night, version 2.")
            while True:
                assert await found(one, "badgers dig"), "one of the two is always found"
                now = await one.files.get("", record.file)
                if now.state == "ready":
                    break
            (text,) = await found(one, "badgers")
            assert "version 2" in text

    run(nats, milvus, scenario)


def test_the_corpus_version_is_unknown_while_files_are_worked_on_and_right_once_they_are_done(
    nats: Nats, milvus: Milvus, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A version that is not there in time is unknown too.
    monkeypatch.setattr("services.retriever.corpus.WAIT_S", 60.0)
    monkeypatch.setattr("services.retriever.corpus.FIRST_WAIT_S", 60.0)

    async def scenario(one: Place) -> None:
        corpus, write, go_on = Corpus(one.library.store), one.library.store.upsert, asyncio.Event()

        async def held(passages, total):
            await go_on.wait()
            await write(passages, total)

        one.library.store.upsert = held
        async with one.working():
            records = [await one.add(f"{n}.md", f"# Paper {n}\n\nAbout subject {n}.") for n in range(20)]
            await eventually(lambda: one.busy.changing, "it works")
            assert await corpus.version({"everybody"}) is None
            go_on.set()
            await one.done(*records)
            await eventually(lambda: not one.busy.changing, "it rests")
            version = None
            while version is None:
                version = await corpus.version({"everybody"})
        await corpus.close()
        other = Corpus(one.library.store)
        assert await other.version({"everybody"}) == version
        await other.close()

    run(nats, milvus, scenario)


def test_a_later_upload_overtakes_one_that_is_being_worked_on(nats: Nats, milvus: Milvus) -> None:
    async def scenario(one: Place) -> None:
        real, reached, go_on = one.library.store.upsert, asyncio.Event(), asyncio.Event()

        async def slowly(passages, total):
            await real(passages, total)
            if "zebra" in passages[0].text and not reached.is_set():
                reached.set()
                await go_on.wait()

        one.library.store.upsert = slowly
        async with one.working():
            await one.add("a.md", LONG)
            await reached.wait()
            later = await one.add("a.md", "# Short\n\nOnly this.")
            (ready,) = await one.done(later)
            assert (ready.state, ready.title) == ("ready", "Short")
            go_on.set()

            async def tidy() -> bool:
                return len(await one.library.documents()) == 1 and not await one.uploads()

            await eventually(tidy, "nothing is left of the one that was overtaken")
        await one.assert_nothing_twice()

    run(nats, milvus, scenario)


def test_an_archive_becomes_the_files_in_it(nats: Nats, milvus: Milvus) -> None:
    members = {
        "a/otters.md": b"# Otters\n\nOtters swim.",
        "herons.txt": b"Herons\n\nHerons wade.",
        "empty.md": b"",
        "in.zip": b"x",
    }

    async def scenario(one: Place) -> None:
        async with one.working():
            archive = await one.add("zoo.zip", make_zip(members), archive=True, readers=["group:zoo"])
            climbing = await one.add("bad.zip", make_zip({"ok.md": b"fine", "../up.md": b"x"}), archive=True)
            ready, refused = await one.done(archive, climbing)
            assert (ready.state, ready.total) == ("ready", 4)
            assert refused.state == "failed"
            assert "leads out" in refused.error
            await one.done(*await one.files.all())
            states = {record.name: (record.state, record.readers) for record in await one.files.all()}
            zoo = ["group:zoo"]
            assert states == {
                "bad.zip": ("failed", ["everybody"]),
                "zoo.zip": ("ready", zoo),
                "zoo.zip/a/otters.md": ("ready", zoo),
                "zoo.zip/herons.txt": ("ready", zoo),
                "zoo.zip/empty.md": ("failed", zoo),
                "zoo.zip/in.zip": ("failed", zoo),
            }
            await one.assert_nothing_twice()
            await eventually(one.uploads_gone, "no upload is left")

    run(nats, milvus, scenario)


def test_a_drain_finishes_what_it_can_and_gives_back_the_rest(nats: Nats, milvus: Milvus) -> None:
    async def scenario(one: Place) -> None:
        hang, reached = asyncio.Event(), asyncio.Event()

        async def slow(name: str, data: bytes) -> Document:
            if name == "slow.md" and not hang.is_set():
                reached.set()
                await hang.wait()
            return await read_here(name, data)

        one.library.read = slow
        async with one.working(drain_s=0.2):
            slowly, other = await one.add("slow.md", "# Slow\n\nSlow."), await one.add("b.md", "# B\n\nB.")
            await one.done(other)
            await reached.wait()
        given_back = await one.files.get("", slowly.file)
        assert (given_back.state, given_back.error) == ("queued", "")
        assert not one.busy.changing, "the store is tidied up"
        hang.set()
        started = time.monotonic()
        async with one.working():
            (ready,) = await one.done(slowly)
            assert ready.state == "ready"
        assert time.monotonic() - started < one.settings.ack_wait_s, "it did not wait for a redelivery"

    run(nats, milvus, scenario, ack_wait_s=30.0)


def test_files_wait_for_a_store_that_is_away_and_say_so(
    nats: Nats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setattr("services.retriever.writer._FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("services.retriever.ingestion.worker.LATER_S", (0.1, 0.2))

    async def on_rig(rig: Rig, server: Milvus) -> None:
        async with place(rig.bus, settings_for(server, timeout_s=2.0), max_deliveries=1) as one, one.working():
            await one.done(await one.add("a.md", "# A\n\nFirst."))
            server.process.kill()
            record = await one.add("b.md", "# B\n\nSecond.")

            async def waits() -> bool:
                now = await one.files.get("", record.file)
                return now.state == "queued" and "cannot be reached" in now.error

            for _ in range(2):
                await eventually(waits, "it says why it waits", 30)
                now = await one.files.get("", record.file)

                async def tried_again(before: FileRecord = now) -> bool:
                    return (await one.files.get("", record.file)).updated_ms > before.updated_ms

                await eventually(tried_again, "it is tried again", 30)
            with milvus_lite(tmp_path / "m", port):
                (ready,) = await one.done(record, within_s=60)
                assert (ready.state, ready.error) == ("ready", ""), "waiting does not count as a failure"
                await one.assert_nothing_twice()

    with milvus_lite(tmp_path / "m", port) as server:
        run_rig(nats, lambda rig: on_rig(rig, server))
