"""Whoever brings a file in, and whoever works on it, may be killed before any of their steps: nothing is lost, nothing
is there twice, nothing stays behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from baton_proto import codec, subjects
from baton_proto.messages import FileRecord, IngestItem
from services.retriever.ingestion.sweep import sweep
from tests.ingest.samples import make_zip, make_zip_of
from tests.ingesting import Place, place
from tests.rig import Rig, run_rig
from tests.servers.milvus import Milvus
from tests.servers.nats import Nats
from tests.servers.processes import eventually
from tests.shelf import settings_for

MOST_STEPS = 40


class Killed(BaseException):
    """What happens to a process at this point."""


class Steps:
    """Counts what is changed outside of this process, and kills before a step."""

    def __init__(self, one: Place) -> None:
        self._left = -1
        for holder, names in (
            (one.bus, ("store", "put_object", "delete_object")),
            (one.library.store, ("upsert", "delete", "set_properties")),
        ):
            for name in names:
                setattr(holder, name, self._watched(getattr(holder, name)))

    def kill_before(self, step: int) -> None:
        """The step that is not done, counted from 0; -1: none."""
        self._left = step

    def _watched(self, real: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **fields: Any) -> Any:
            if self._left == 0:
                raise Killed
            self._left -= self._left > 0
            return await real(*args, **fields)

        return call


def run(nats: Nats, milvus: Milvus, scenario: Callable[[Place, Steps], Awaitable[None]]) -> None:
    async def on_rig(rig: Rig) -> None:
        async with place(rig.bus, settings_for(milvus)) as one:
            await scenario(one, Steps(one))

    run_rig(nats, on_rig)


async def item_of(one: Place, record: FileRecord) -> IngestItem:
    """The last item that was queued of a file."""
    stored = await one.bus.last(subjects.INGEST_STREAM, subjects.INGEST)
    item = codec.decode(stored.data, IngestItem)
    assert item.upload == (await one.files.get(record.owner, record.file)).upload
    return item


async def handled(one: Place, item: IngestItem, lost: int = 0) -> str:
    return await one.handling.handle(item, lambda: True, lost, lost > 0)


async def survived(one: Place, steps: Steps, item: IngestItem, step: int) -> bool:
    """Work on an item, be killed before a step and begin again; whether there was such a step."""
    steps.kill_before(step)
    try:
        await handled(one, item)
    except Killed:
        steps.kill_before(-1)
        await handled(one, item, 1)
        return True
    finally:
        steps.kill_before(-1)
    return False


async def each_step(survives: Callable[[int], Awaitable[bool]]) -> int:
    """Be killed before each step in turn; how many there are."""
    for step in range(MOST_STEPS):
        if not await survives(step):
            return step
    raise AssertionError("more steps than were thought of")


def test_a_file_that_replaces_another(nats: Nats, milvus: Milvus) -> None:
    async def scenario(one: Place, steps: Steps) -> None:
        async def survives(step: int) -> bool:
            name = f"{step}.md"
            first = await one.add(name, f"# Old {step}\n\nOld text {step}.")
            await handled(one, await item_of(one, first))
            second = await one.add(name, f"# New {step}\n\nNew text {step}.")
            there = await survived(one, steps, await item_of(one, second), step)
            now = await one.files.get("", second.file)
            assert (now.state, now.title, now.error) == ("ready", f"New {step}", "")
            (info,) = await one.library.store.find("", name)
            assert info.document_id == now.document_id
            return there

        assert await each_step(survives) >= 10
        await one.busy.close()
        assert await one.uploads() == []
        await one.assert_nothing_twice()

    run(nats, milvus, scenario)


def test_a_file_that_is_removed(nats: Nats, milvus: Milvus) -> None:
    async def scenario(one: Place, steps: Steps) -> None:
        async def survives(step: int) -> bool:
            record = await one.add(f"{step}.md", f"# Old {step}\n\nOld text {step}.")
            await handled(one, await item_of(one, record))
            await one.files.remove(await one.files.get("", record.file))
            there = await survived(one, steps, await item_of(one, record), step)
            assert await one.files.get("", record.file) is None
            return there

        assert await each_step(survives) >= 4
        await one.busy.close()
        assert await one.files.all() == []
        await one.assert_nothing_twice()

    run(nats, milvus, scenario)


def test_a_file_that_fails(nats: Nats, milvus: Milvus) -> None:
    async def scenario(one: Place, steps: Steps) -> None:
        async def survives(step: int) -> bool:
            record = await one.add(f"{step}.md", b"\0")
            there = await survived(one, steps, await item_of(one, record), step)
            assert (await one.files.get("", record.file)).state == "failed"
            return there

        assert await each_step(survives) >= 3
        assert await one.uploads() == []

    run(nats, milvus, scenario)


def test_an_archive(nats: Nats, milvus: Milvus) -> None:
    members = {"a/one.md": b"# One\n\nFirst.", "two.txt": b"Two\n\nSecond.", "in.zip": make_zip({"a.md": b"# A\n\nA"})}

    async def scenario(one: Place, steps: Steps) -> None:
        async def survives(step: int) -> bool:
            await one.bus.purge(subjects.INGEST_STREAM, subjects.INGEST)
            record = await one.add(f"{step}.zip", make_zip(members), archive=True)
            there = await survived(one, steps, await item_of(one, record), step)
            now = await one.files.get("", record.file)
            assert (now.state, now.done, now.total) == ("ready", 3, 3)
            assert now.error == "1 of 3 files in it were refused"
            states = {one.name: one.state for one in await one.files.all() if one.name.startswith(f"{step}.zip/")}
            assert states == {
                f"{step}.zip/a/one.md": "queued",
                f"{step}.zip/two.txt": "queued",
                f"{step}.zip/in.zip": "failed",
            }
            # The archive's own item is still there: nobody has acknowledged it in this test.
            assert (await one.bus.stream_state(subjects.INGEST_STREAM))["messages"] == 3
            return there

        assert await each_step(survives) >= 10

    run(nats, milvus, scenario)


def test_an_archive_that_is_begun_again_leaves_newer_versions_of_its_files(nats: Nats, milvus: Milvus) -> None:
    members = {"one.md": b"# One", "two.md": b"# Two", "in.zip": b"x", "in.rar": b"x"}

    async def scenario(one: Place, steps: Steps) -> None:
        newer = 0

        async def survives(step: int) -> bool:
            nonlocal newer
            record = await one.add(f"{step}.zip", make_zip(members), archive=True)
            item = await item_of(one, record)
            steps.kill_before(step)
            try:
                await handled(one, item)
            except Killed:
                pass
            else:
                return False
            finally:
                steps.kill_before(-1)
            done = (await one.files.get("", record.file)).done
            uploads = {
                name: (await one.add(f"{step}.zip/{name}", b"# Newer")).upload for name in list(members)[: min(done, 2)]
            }
            newer += len(uploads)
            await handled(one, item, 1)
            now = {one.name.partition("/")[2]: one for one in await one.files.all() if one.name.startswith(f"{step}.")}
            assert {name: now[name].upload for name in uploads} == uploads
            assert {name: now[name].state for name in members} == {
                "one.md": "queued",
                "two.md": "queued",
                "in.zip": "failed",
                "in.rar": "failed",
            }
            assert now[""].state == "ready"
            assert now[""].done == 4
            return True

        assert await each_step(survives) >= 10
        assert newer >= 10

    run(nats, milvus, scenario)


def test_a_file_that_is_twice_in_an_archive_comes_in_once(nats: Nats, milvus: Milvus) -> None:
    async def scenario(one: Place, steps: Steps) -> None:
        with pytest.warns(UserWarning, match="Duplicate"):
            data = make_zip_of([("a.md", b"# First"), ("a.md", b"# Second")])
        archive = await one.add("twice.zip", data, archive=True)
        await handled(one, await item_of(one, archive))
        now = await one.files.get("", archive.file)
        assert (now.state, now.error) == ("ready", "1 of 2 files in it were refused")
        (member,) = [record for record in await one.files.all() if record.name == "twice.zip/a.md"]
        assert member.state == "queued"

    run(nats, milvus, scenario)


def test_whoever_brings_a_file_in(nats: Nats, milvus: Milvus) -> None:
    async def scenario(one: Place, steps: Steps) -> None:
        async def survives(step: int) -> bool:
            steps.kill_before(step)
            try:
                await one.add(f"{step}.md", f"# Paper {step}\n\nText {step}.")
            except Killed:
                return True
            finally:
                steps.kill_before(-1)
            return False

        assert await each_step(survives) == 3
        async with one.working():

            async def put_right() -> bool:
                await sweep(one.files, one.bus, upload_age_s=-1, lost_after_s=-1)
                return not await one.uploads()

            await eventually(put_right, "what was left is put right")
            records = await one.done(*await one.files.all())
        # Killed before its record was there, nothing is known of it; from then on it comes in.
        assert {(record.name, record.state) for record in records} == {("2.md", "ready"), ("3.md", "ready")}
        await one.assert_nothing_twice()

    run(nats, milvus, scenario)


def test_a_file_that_no_worker_survives_has_failed(nats: Nats, milvus: Milvus) -> None:
    async def scenario(one: Place, steps: Steps) -> None:
        first = await one.add("a.md", "# Old\n\nOld text.")
        await handled(one, await item_of(one, first))
        record = await one.add("a.md", "# New\n\nNew text.")
        assert await handled(one, await item_of(one, record), 4) == "failed"
        now = await one.files.get("", record.file)
        assert (now.state, now.title) == ("failed", "Old")
        assert "4 ingest workers were lost" in now.error
        assert await one.uploads() == []
        await one.assert_nothing_twice()

    run(nats, milvus, scenario)
