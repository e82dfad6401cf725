"""Sending files to the ingest workers, and following them until each is ready or has failed."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from baton_proto import subjects
from baton_proto.messages import FileRecord
from services.common.bus import Bus, Full, end_tasks
from services.common.config import RetrieverSettings
from services.common.files import Files, Removed, waits
from services.retriever.archives import member_upload
from services.retriever.bad_document import BadDocument
from services.retriever.files import PassedOver, SourceFile, find_files
from services.retriever.ingest import Whose, document_id_of, too_large
from services.retriever.report import Outcome, Progress, Report, Status

AT_ONCE = 8
LOOK_S = 0.5
FULL_S = 1.0
TELL_S = 8.0
"""For so long nothing may happen before it is told. Workers touch the record of a file that they read every 5 s."""
GIVE_UP_S = 60.0

Note = Callable[[str], None]


class Stuck(Exception):
    """Nothing has happened for too long; the text says why, and what to do."""


class Movement:
    """Whether anything moves in the queue, and why not."""

    def __init__(self, bus: Bus, note: Note) -> None:
        self._bus = bus
        self._note = note
        self._moved = time.monotonic()
        self._why = ""
        self._told = False

    def see(self, change: FileRecord | Removed) -> None:
        if isinstance(change, FileRecord) and change.state in ("queued", "parsing", "removing"):
            if change.error:
                self._why = change.error.removeprefix("waits: ")
                return
            if change.state != "parsing":
                return
        self._moved, self._why, self._told = time.monotonic(), "", False

    async def check(self) -> None:
        """Tell it once where nothing happens.

        Raises:
            Stuck: nothing has happened for `GIVE_UP_S`.
        """
        still = time.monotonic() - self._moved
        if still < TELL_S:
            return
        why = self._why or ("" if await self._anybody() else _NO_WORKER)
        if why and not self._told:
            self._told = True
            self._note(f"Nothing happens: {why}")
        if why and still >= GIVE_UP_S:
            raise Stuck(f"{why} What was sent stays in the queue. Run the same command again to go on.")

    async def _anybody(self) -> bool:
        """Whether an ingest worker asks for files."""
        answer = await self._bus.api(f"CONSUMER.INFO.{subjects.INGEST_STREAM}.{subjects.INGEST_CONSUMER}")
        return int(answer.get("num_waiting", 0)) > 0


_NO_WORKER = "no ingest worker takes files; start one with: python -m services.retriever.ingestion."


class BringingIn:
    """One `baton ingest`.

    Args:
        on_progress: told of every file that is dealt with.
        note: told, in a sentence, why nothing happens.
    """

    def __init__(
        self,
        bus: Bus,
        settings: RetrieverSettings,
        whose: Whose,
        metadata: Mapping[str, Any],
        on_progress: Callable[[Progress], None],
        note: Note,
    ) -> None:
        self._bus = bus
        self._files = Files(bus)
        self._settings = settings
        self._whose = whose
        self._metadata = metadata
        self._on_progress = on_progress
        self._movement = Movement(bus, note)
        self._before: dict[str, FileRecord] = {}
        self._latest: dict[str, FileRecord] = {}
        self._waiting: dict[str, tuple[str, FileRecord]] = {}  # file -> what it is called here, and as it was sent
        self._unpacked: list[FileRecord] = []
        self._outcomes: list[Outcome] = []
        self._total = 0
        self._changed = asyncio.Event()

    async def run(self, paths: Iterable[Path], wait: bool, again: bool = False) -> Report:
        """Send what is at and below `paths`; with `wait`, follow it to its end. `again`: also what is said to be there.

        Raises:
            Stuck, Unconfirmed
        """
        started = time.monotonic()
        found = await asyncio.to_thread(lambda: list(find_files(paths, archives=True)))
        self._total = len(found)
        if not again:
            self._before = {record.file: record for record in await self._files.all(self._whose.owner)}
        stop = await self._files.watch(self._see)
        try:
            await self._send_all(found)
            while wait and (self._waiting or self._unpacked):
                await self._follow()
        finally:
            await stop()
        outcomes = sorted(self._outcomes, key=lambda outcome: outcome.path)
        return Report(outcomes, time.monotonic() - started)

    @property
    def queued(self) -> int:
        """Files that were sent and are not dealt with yet."""
        return len(self._waiting)

    async def _send_all(self, found: list[SourceFile | PassedOver]) -> None:
        entries = iter(found)

        async def send() -> None:
            for entry in entries:
                if isinstance(entry, PassedOver):
                    self._end(Outcome(str(entry.path), "failed" if entry.wrong else "skipped", entry.reason))
                else:
                    await self._send(entry)

        sending = [asyncio.create_task(send()) for _ in range(AT_ONCE)]
        try:
            await asyncio.gather(*sending)
        finally:
            await end_tasks(*sending)

    async def _send(self, source: SourceFile) -> None:
        path = str(source.path)
        try:
            data = await asyncio.to_thread(_read, source, self._settings.max_document_bytes)
        except BadDocument as error:
            self._end(Outcome(path, "failed", str(error)))
            return
        before = self._before.get(subjects.file_key(self._whose.owner, source.name))
        if before is not None and self._is_there(source, data, before):
            self._end(Outcome(path, "unchanged", "", before.document_id, before.passages))
            return
        while True:
            try:
                record = await self._files.add(
                    owner=self._whose.owner,
                    name=source.name,
                    data=data,
                    readers=self._whose.readers,
                    metadata=self._metadata,
                    archive=source.archive,
                )
                break
            except ValueError as error:
                self._end(Outcome(path, "failed", str(error)))
                return
            except Full:
                await self._movement.check()
                await asyncio.sleep(FULL_S)
        self._waiting[record.file] = (path, record)
        self._look(record.file)

    def _is_there(self, source: SourceFile, data: bytes, before: FileRecord) -> bool:
        """Whether the file is ready just so. An archive is always sent: its files may have been removed one by one."""
        if before.state != "ready" or source.archive:
            return False
        content_hash = hashlib.sha256(data).hexdigest()
        own = document_id_of(self._settings, source.name, content_hash, self._metadata, self._whose)
        return before.document_id == own

    def _see(self, change: FileRecord | Removed) -> None:
        self._movement.see(change)
        if isinstance(change, FileRecord) and change.owner == self._whose.owner:
            self._latest[change.file] = change
            self._look(change.file)
        elif isinstance(change, Removed) and change.file in self._waiting:
            self._end(Outcome(self._waiting.pop(change.file)[0], "failed", "somebody else has removed it"))
        self._changed.set()

    def _look(self, file: str) -> None:
        """Whether a file that was sent has come to its end."""
        now = self._latest.get(file)
        if now is None or file not in self._waiting:
            return
        path, sent = self._waiting[file]
        if waits(now) or (now.upload != sent.upload and now.updated_ms <= sent.updated_ms):
            return
        del self._waiting[file]
        if now.media_type == "application/zip" and now.state == "ready":
            self._unpacked.append(sent)
        else:
            self._end(self._outcome(path, now))

    def _outcome(self, path: str, now: FileRecord) -> Outcome:
        if now.state == "failed":
            return Outcome(path, "failed", now.error)
        before = self._before.get(now.file)
        status: Status = "added"
        if before is not None and before.document_id:
            status = "unchanged" if before.document_id == now.document_id else "replaced"
        return Outcome(path, status, "", now.document_id, now.passages)

    def _end(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self._on_progress(Progress(len(self._outcomes), self._total, outcome))

    async def _follow(self) -> None:
        while self._unpacked:
            await self._members(self._unpacked.pop())
        if self._waiting:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._changed.wait()
            except TimeoutError:
                await self._movement.check()
            self._changed.clear()

    async def _members(self, archive: FileRecord) -> None:
        """Follow the files of an archive instead of itself."""
        self._total -= 1
        for record in await self._files.all(self._whose.owner):
            if record.upload == member_upload(archive.upload, record.name):
                self._total += 1
                self._waiting[record.file] = (record.name, record)
                self._latest[record.file] = record
                self._look(record.file)


async def removed(bus: Bus, record: FileRecord, note: Note) -> None:
    """Have a file removed, and wait until it is.

    Raises:
        Stuck, Full, Unconfirmed
    """
    files = Files(bus)
    movement = Movement(bus, note)
    stop = await files.watch(movement.see)
    try:
        await files.remove(record)
        while (now := await files.get(record.owner, record.file)) is not None and now.state == "removing":
            await asyncio.sleep(0.05)
            await movement.check()
    finally:
        await stop()


def _read(source: SourceFile, most: int) -> bytes:
    try:
        data = source.path.read_bytes() if source.archive else _bounded(source.path, most)
    except OSError as error:
        raise BadDocument(f"cannot be read: {error.strerror or error}") from error
    return data


def _bounded(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise BadDocument(too_large(most))
    return data
