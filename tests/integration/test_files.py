"""Files on a real NATS: what is queued, overtaken, refused, watched and removed."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from baton_proto import codec, subjects
from baton_proto.messages import FileRecord, IngestItem
from services.common.bus import Bus, Full
from services.common.files import Files, Removed
from services.retriever.ingestion.sweep import sweep_chunks
from tests.rig import Rig, run_rig
from tests.servers.nats import Nats
from tests.servers.processes import eventually

READERS = ["everybody"]


def run(nats: Nats, scenario: Callable[[Files, Rig], Awaitable[None]], **settings: int) -> None:
    run_rig(nats, lambda rig: scenario(Files(rig.bus), rig), **settings)


async def items(bus: Bus) -> list[IngestItem]:
    """All that wait in the queue."""
    state = await bus.stream_state(subjects.INGEST_STREAM)
    found = []
    for seq in range(state["first_seq"], state["last_seq"] + 1):
        answer = await bus.api(f"STREAM.MSG.GET.{subjects.INGEST_STREAM}", seq=seq)
        found.append(codec.decode(b64decode(answer["message"]["data"]), IngestItem))
    return found


async def uploads(files: Files) -> set[str]:
    return {name async for name, _, _ in files.uploads()}


def test_a_file_is_queued_with_its_bytes_and_a_record(nats: Nats) -> None:
    async def scenario(files: Files, rig: Rig) -> None:
        record = await files.add(owner="ada", name="a/b.md", data=b"hello", readers=["user:ada"], metadata={"x": 1})
        assert (record.state, record.bytes, record.readers) == ("queued", 5, ["user:ada"])
        assert await files.get("ada", record.file) == record
        assert await files.get("", record.file) is None
        (item,) = await items(rig.bus)
        assert (item.upload, item.name, item.owner, item.metadata) == (record.upload, "a/b.md", "ada", {"x": 1})
        assert await files.bytes_of(record.upload) == b"hello"
        empty = await files.add(owner="", name="empty.md", data=b"", readers=READERS)
        assert await files.bytes_of(empty.upload) == b""
        assert [one.name for one in await files.all()] == ["a/b.md", "empty.md"]
        assert [one.name for one in await files.all("ada")] == ["a/b.md"]
        kept = {name: item async for name, _, item in files.uploads()}
        assert kept[record.upload] == item
        await files.drop_upload(record.upload)
        assert await uploads(files) == {empty.upload}
        with pytest.raises(KeyError):
            await files.bytes_of(record.upload)
        for wrong in ("", "x" * 1025, "\ud800"):
            with pytest.raises(ValueError, match="name"):
                await files.add(owner="", name=wrong, data=b"", readers=READERS)
        with pytest.raises(ValueError, match="reader"):
            await files.add(owner="", name="a", data=b"", readers=[])

    run(nats, scenario)


def test_a_later_upload_overtakes_and_keeps_what_questions_find(nats: Nats) -> None:
    async def scenario(files: Files, rig: Rig) -> None:
        first = await files.add(owner="", name="a.md", data=b"one", readers=READERS)
        held = await files.hold("", first.file)
        ready = FileRecord(
            file=first.file, owner="", name="a.md", upload=first.upload, state="ready", updated_ms=1,
            readers=READERS, document_id="d" * 32, title="T", passages=3,
        )  # fmt: skip
        await files.put(ready, held.revision)
        second = await files.add(owner="", name="a.md", data=b"two", readers=["group:x"])
        assert second.upload != first.upload
        assert (second.document_id, second.title, second.passages) == ("d" * 32, "T", 3)
        assert second.readers == READERS, "those of the version that is found"
        again = await files.add(owner="", name="a.md", data=b"two", readers=["group:x"], upload=second.upload)
        assert again == second
        assert len(await items(rig.bus)) == 2

    run(nats, scenario)


def test_a_full_queue_refuses_and_leaves_everything_as_it_was(nats: Nats) -> None:
    async def scenario(files: Files, rig: Rig) -> None:
        first = await files.add(owner="", name="a.md", data=b"one", readers=READERS)
        with pytest.raises(Full):
            await files.add(owner="", name="b.md", data=b"two", readers=READERS)
        with pytest.raises(Full):
            await files.add(owner="", name="a.md", data=b"two", readers=READERS)
        with pytest.raises(Full):
            await files.remove(first)
        assert await files.all() == [first]
        assert await uploads(files) == {first.upload}

    run(nats, scenario, ingest_max_items=1)


def test_changes_and_removals_are_seen_also_after_the_connection_was_lost(nats: Nats) -> None:
    async def scenario(files: Files, rig: Rig) -> None:
        before = await files.add(owner="", name="before.md", data=b"", readers=READERS)
        seen: list[FileRecord | Removed] = []
        stop = await files.watch(seen.append)
        record = await files.add(owner="ada", name="a.md", data=b"x", readers=READERS)
        await eventually(lambda: record in seen, "the new file is seen")
        assert before not in seen
        rig.bus.client._transport.close()
        await eventually(lambda: rig.bus.reconnects > 0, "the connection is made again")
        await files.remove(record)
        await eventually(lambda: any(not isinstance(one, Removed) and one.state == "removing" for one in seen), "so")
        held = await files.hold("ada", record.file)
        assert held.record is not None
        await files.forget(held.record, held.revision)
        gone = Removed(subjects.owner_hash("ada"), record.file)
        await eventually(lambda: gone in seen, "its removal is seen")
        await stop()
        assert await files.get("ada", record.file) is None
        again = await files.add(owner="ada", name="a.md", data=b"y", readers=READERS)
        assert again in await files.all("ada")
        await asyncio.sleep(0)
        assert again not in seen

    run(nats, scenario)


def test_pieces_of_an_object_that_was_never_finished_go_once_they_are_old(nats: Nats) -> None:
    large = bytes(300_000)  # three pieces

    async def scenario(files: Files, rig: Rig) -> None:
        stream = f"OBJ_{subjects.DOCUMENTS_BUCKET}"

        async def pieces() -> dict[str, int]:
            answer = await rig.bus.api(f"STREAM.INFO.{stream}", subjects_filter="$O.*.C.*")
            return answer["state"].get("subjects") or {}

        await rig.bus.put_object("uploads/whole", large)
        whole = await pieces()
        real = rig.bus.client.publish

        async def killed_before_the_end(subject: str, *args: Any, **fields: Any) -> None:
            if ".M." in subject:
                raise asyncio.CancelledError
            await real(subject, *args, **fields)

        rig.bus.client.publish = killed_before_the_end
        with pytest.raises(asyncio.CancelledError):
            await rig.bus.put_object("uploads/half", large)
        rig.bus.client.publish = real
        left = await pieces()
        assert len(left) == 2
        await sweep_chunks(rig.bus, age_s=60)
        assert await pieces() == left, "it may still be on its way"
        await sweep_chunks(rig.bus, age_s=-1)
        assert await pieces() == whole
        assert await rig.bus.get_object("uploads/whole") == large

    run(nats, scenario)
