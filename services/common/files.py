"""Files that are brought in: their bytes on the way, what each has become, and the queue in between.

A file is known by its owner and name. Its record is changed by compare-and-set, so that gateways, the command line and
any number of ingest workers may do it at once; whose `upload` the record names is the newest, and every other one has
been overtaken. See proto/README.md, 2.12.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import secrets
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Any, NamedTuple

import msgspec
from nats.aio.msg import Msg

from baton_proto import codec, subjects
from baton_proto.messages import FileRecord, IngestItem
from baton_proto.readers import checked_readers

from . import streams
from .bus import Bus, Full, Refused, Unconfirmed, end_tasks, quietly
from .clock import now_ms
from .config import NatsSettings
from .connection import connect

log = logging.getLogger(__name__)

STREAM = f"KV_{subjects.FILES_BUCKET}"
TRIES = 16
PUBLISH_TRIES = 3
FULL_AT = 0.9
"""From so much of the bucket on no further files are taken: the records that are there must still be changeable."""
MAX_NAME_CHARS = 1_024
MAX_ITEM_BYTES = 128 * 1024
REMOVED_MARK_S = 3_600
"""How long it can be told of a file that it was removed."""
LOOK_EVERY_S = 1.0
GATHER_S = 0.05


class Removed(NamedTuple):
    """A file that is no longer there. Its owner is known by hash only (`subjects.owner_hash`)."""

    owner_hash: str
    file: str


class Held(NamedTuple):
    """A record as it is stored, with the revision to name in a change. None: there is none."""

    record: FileRecord | None
    revision: int


class Files:
    """The files of a system. All methods raise Unconfirmed where NATS did not answer."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def add(
        self,
        *,
        owner: str,
        name: str,
        data: bytes,
        readers: Collection[str],
        metadata: Mapping[str, Any] | None = None,
        archive: bool = False,
        upload: str = "",
    ) -> FileRecord:
        """Bring in a file, or a changed one; its record as it was queued. An ingest worker does the rest.

        An earlier upload of the same file is overtaken, also while somebody works on it. What questions find now stays
        until the new version is there.

        Args:
            owner: empty for the operator.
            name: text that identifies the file among its owner's, with `/` between folders.
            archive: `data` is a zip archive; each file in it becomes one of its own, called `<name>/<path in it>`.
            upload: 32 hex digits of one's own, so that repeating the call after a crash queues nothing twice.

        Raises:
            ValueError: the name, a reader or the metadata cannot be.
            Full: too many files wait, or are kept; nothing has changed.
            Unconfirmed: the file may be on its way or not. Bringing it in again does no harm.
        """
        file = subjects.file_key(owner, checked_name(name))
        # Elsewhere: the loop of a gateway stands still for a fifth of a second while a large file is hashed.
        digest = await asyncio.to_thread(hashlib.sha256, data)
        item = IngestItem(
            action="add",
            file=file,
            owner=owner,
            name=name,
            upload=upload or secrets.token_hex(16),
            readers=list(checked_readers(readers)),
            metadata=dict(metadata or {}),
            bytes=len(data),
            content_hash=digest.hexdigest(),
            archive=archive,
        )
        encoded = _encoded(item)
        before = await self.hold(owner, item.file)
        if before.record is not None and before.record.upload == item.upload:
            if not waits(before.record):
                return before.record
        elif before.record is None and await self._is_full():
            raise Full("so many files are kept that no further ones are taken")
        await self._bus.put_object(subjects.upload_object(item.upload), data, b64encode(encoded).decode())
        return await self._queue(item, encoded)

    async def remove(self, record: FileRecord) -> None:
        """Have a file removed: its passages, its original, its record. The record says `removing` until then.

        Raises:
            Full: too many files wait; nothing has changed.
            Unconfirmed
        """
        item = IngestItem(
            action="remove",
            file=record.file,
            owner=record.owner,
            name=record.name,
            upload=secrets.token_hex(16),
            readers=record.readers,
        )
        await self._queue(item, _encoded(item))

    async def get(self, owner: str, file: str) -> FileRecord | None:
        """A file's record, from the stream's leader."""
        return (await self.hold(owner, file)).record

    async def all(self, owner: str | None = None) -> list[FileRecord]:
        """The records of an owner's files, or of everybody's, by name. A replica may answer that lags by a moment."""
        found, _ = await self._changed_after(subjects.files_of(owner), 0)
        records = [one for one in found if isinstance(one, FileRecord)]
        return sorted(records, key=lambda record: (record.name, record.owner))

    async def watch(self, on_change: Callable[[FileRecord | Removed], None]) -> Callable[[], Awaitable[None]]:
        """Call `on_change` for every file that changes from now on, with what it is then: of several changes in quick
        succession the last one at least. Lost connections are made up for. What is returned stops it.

        Raises:
            Unconfirmed: there is no connection.
        """
        watching = _Watch(self, self._bus, on_change)
        await watching.start()
        return watching.stop

    # --- for those who work on files ----------------------------------------------------------------------------------

    async def hold(self, owner: str, file: str) -> Held:
        """A record with its revision, from the stream's leader."""
        stored = await self._bus.last(STREAM, subjects.file_subject(owner, file))
        if stored is None:
            return Held(None, 0)
        if not stored.data:  # the mark that a removal leaves
            return Held(None, stored.stream_seq)
        return Held(codec.decode(stored.data, FileRecord), stored.stream_seq)

    async def put(self, record: FileRecord, revision: int) -> Held:
        """Store a record if its revision is still this one (0: there is none).

        Raises:
            Refused: somebody else has changed it.
            Full, Unconfirmed
        """
        subject = subjects.file_subject(record.owner, record.file)
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        return Held(record, await self._bus.store(subject, codec.encode(record), headers))

    async def forget(self, record: FileRecord, revision: int) -> None:
        """Remove a record whose revision is this. A mark stays for a while, which tells those who watch.

        Raises:
            Refused: somebody else has changed it.
            Full, Unconfirmed
        """
        headers = {
            "KV-Operation": "PURGE",
            "Nats-Rollup": "sub",
            "Nats-TTL": str(REMOVED_MARK_S),
            "Nats-Expected-Last-Subject-Sequence": str(revision),
        }
        await self._bus.store(subjects.file_subject(record.owner, record.file), b"", headers)

    async def bytes_of(self, upload: str) -> bytes:
        """The bytes of an upload. Raises KeyError where they are gone."""
        return await self._bus.get_object(subjects.upload_object(upload))

    async def drop_upload(self, upload: str) -> None:
        """Forget the bytes of an upload; none is no error."""
        await self._bus.delete_object(subjects.upload_object(upload))

    async def uploads(self) -> AsyncIterator[tuple[str, float, IngestItem | None]]:
        """All uploads that are kept: name, seconds since it was stored, and the item that goes with it."""
        async for kept in self._bus.objects(subjects.upload_object("0" * 32)[:-32]):
            try:
                item = codec.decode(b64decode(kept.description), IngestItem)
            except ValueError:
                item = None
            yield kept.name.rpartition("/")[2], kept.age_s, item

    async def publish(self, item: IngestItem) -> None:
        """Put an item into the queue; while NATS remembers its upload it is stored once.

        Raises:
            Full, Unconfirmed
        """
        await self._publish(item, _encoded(item))

    async def _publish(self, item: IngestItem, encoded: bytes) -> None:
        for attempt in range(PUBLISH_TRIES):
            try:
                await self._bus.store(subjects.INGEST, encoded, {"Nats-Msg-Id": item.upload})
                return
            except Unconfirmed:
                if attempt == PUBLISH_TRIES - 1:
                    raise
            await asyncio.sleep(random.uniform(0.05, 0.2))

    async def _queue(self, item: IngestItem, encoded: bytes) -> FileRecord:
        """The record, then the item; where the queue is full, all as it was."""
        before, held = await self._enter(item)
        assert held.record is not None
        try:
            await self._publish(item, encoded)
        except Full:
            await self._undo(item, before, held)
            raise
        return held.record

    async def _enter(self, item: IngestItem) -> tuple[Held, Held]:
        """Make the item the newest of its file; the record before and as it is now."""
        for attempt in range(TRIES):
            before = await self.hold(item.owner, item.file)
            if before.record is not None and before.record.upload == item.upload:
                return before, before
            try:
                return before, await self.put(_queued(item, before.record), before.revision)
            except Refused:
                await asyncio.sleep(0.005 * (attempt + 1) * random.uniform(0.2, 1.0))
            except Full:
                await self.drop_upload(item.upload)
                raise
        raise Unconfirmed("others change this file all the time")

    async def _undo(self, item: IngestItem, before: Held, held: Held) -> None:
        assert held.record is not None
        with contextlib.suppress(Refused):  # overtaken: then it is no longer ours
            if before.record is None or before.record.upload == item.upload:
                await self.forget(held.record, held.revision)
            else:
                await self.put(before.record, held.revision)
        await self.drop_upload(item.upload)

    async def _is_full(self) -> bool:
        state = await self._bus.stream_state(STREAM)
        return int(state.get("bytes", 0)) > FULL_AT * streams.FILES_MAX_BYTES

    async def _changed_after(self, subject: str, after: int) -> tuple[list[FileRecord | Removed], int]:
        """What has changed since a position, each file once, and the position then."""
        found: list[FileRecord | Removed] = []
        async for at, data, position in self._bus.later(STREAM, subject, after):
            after = position
            if not data:
                found.append(Removed(*at.split(".")[-2:]))
                continue
            try:
                found.append(codec.decode(data, FileRecord))
            except codec.WireError as error:
                log.error("an unreadable record of a file is passed over: %s", error)
        return found, after


class _Watch:
    """Asks for what has changed since it asked last: soon after a change is heard of, and every second in any case. So
    nothing is missed, whatever happens to the connection."""

    def __init__(self, files: Files, bus: Bus, on_change: Callable[[FileRecord | Removed], None]) -> None:
        self._files = files
        self._bus = bus
        self._on_change = on_change
        self._wake = asyncio.Event()
        self._position = 0
        self._reconnects = bus.reconnects

    async def start(self) -> None:
        async def on_message(_: Msg) -> None:
            self._wake.set()

        self._position = await self._end()
        self._subscription = await self._bus.subscribe(subjects.files_of(), on_message)
        self._task = asyncio.create_task(self._run(), name="watch files")

    async def stop(self) -> None:
        await end_tasks(self._task)
        await quietly(self._subscription.unsubscribe())

    async def _end(self) -> int:
        return int((await self._bus.stream_state(STREAM)).get("last_seq", 0))

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._wake.wait()
            await asyncio.sleep(GATHER_S)
            self._wake.clear()
            try:
                if self._bus.reconnects != self._reconnects:
                    reconnects = self._bus.reconnects
                    # A server that keeps its streams in memory may have begun to count anew.
                    self._position = min(self._position, await self._end())
                    self._reconnects = reconnects
                found, self._position = await self._files._changed_after(subjects.files_of(), self._position)
            except Unconfirmed as error:
                log.debug("files are not watched at the moment: %s", error)
                continue
            for one in found:
                self._on_change(one)


def checked_name(name: str) -> str:
    """`name` itself if a file may be called that.

    Raises:
        ValueError: with what is wrong.
    """
    if not name or len(name) > MAX_NAME_CHARS:
        raise ValueError(f"a file's name has 1 to {MAX_NAME_CHARS:,} characters, folders included; not {len(name):,}")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError("a file's name must be text that can be written as UTF-8") from None
    return name


def waits(record: FileRecord) -> bool:
    """Whether an ingest worker still has to deal with a file."""
    return record.state not in ("ready", "failed")


def _encoded(item: IngestItem) -> bytes:
    encoded = codec.encode(item)
    if len(encoded) > MAX_ITEM_BYTES:
        raise ValueError(f"a file's name, readers and metadata have {MAX_ITEM_BYTES:,} bytes together at most")
    return encoded


def _queued(item: IngestItem, before: FileRecord | None) -> FileRecord:
    """A file's record as it is when an item of it is queued."""
    changes: dict[str, Any] = {
        "upload": item.upload,
        "state": "queued" if item.action == "add" else "removing",
        "updated_ms": now_ms(),
        "done": 0,
        "total": 0,
        "error": "",
    }
    if item.action == "add":
        changes |= {"bytes": item.bytes, "content_hash": item.content_hash}
    if before is None:
        return FileRecord(file=item.file, owner=item.owner, name=item.name, readers=item.readers, **changes)
    if not before.document_id and item.action == "add":
        changes["readers"] = item.readers
    return msgspec.structs.replace(before, **changes)


@contextlib.asynccontextmanager
async def open_files(settings: NatsSettings, name: str = "files") -> AsyncIterator[Files]:
    """The files, over a connection of its own. Streams that are not there are made; others are left as they are."""
    async with connect(settings, name) as bus:
        await streams.ensure_documents(bus)
        yield Files(bus)
