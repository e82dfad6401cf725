"""One item of the ingest queue, from its record to the documents: what is done, and in which order.

Every step may be the last one of this process, and every one may be done again. The record decides: an item whose
upload it does not name is none of anybody's business any more, and one that has ended is not begun again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from baton_proto import subjects
from baton_proto.messages import FileRecord, IngestItem
from services.common.bus import Full, Refused, end_tasks
from services.common.clock import now_ms
from services.common.config import IngestSettings
from services.common.errors import ServiceError
from services.common.files import Files, Held, waits
from services.retriever.archives import Archive, Limits, member_upload
from services.retriever.bad_document import BadDocument
from services.retriever.ingest import Library, Whose, document_id_of

from .busy import Busy
from .telling import LeaseLost, Overtaken, Record

log = logging.getLogger(__name__)

TOUCH_S = 5.0


class NotYet(Exception):
    """Something is away that will come back; the text says what, for people."""


class Handling:
    """Does what items ask for, any number at once."""

    def __init__(self, files: Files, library: Library, busy: Busy, settings: IngestSettings) -> None:
        self._files = files
        self._library = library
        self._busy = busy
        self._settings = settings
        self._prepared = False

    async def handle(self, item: IngestItem, mine: Callable[[], bool], lost: int, begun: bool) -> str:
        """Deal with an item; what became of it. Afterwards it may be acknowledged.

        Args:
            mine: whether the item is still ours.
            lost: how many holders of it have been lost.
            begun: whether anybody has held it before.

        Raises:
            NotYet: to be tried again later; the record says why.
            LeaseLost: it is somebody else's.
            Unconfirmed, Full: NATS did not answer, or takes no more.
        """
        held = await self._files.hold(item.owner, item.file)
        if held.record is None or held.record.upload != item.upload:
            return await self._overtaken(item, held.record, begun)
        if not waits(held.record):
            # Whoever ended it did not come to the rest.
            await self._files.drop_upload(item.upload)
            return "repeated"
        record = Record(self._files, item, held, mine)
        touching = asyncio.create_task(_touch(record), name="touch")
        try:
            if lost >= self._settings.max_deliveries:
                reason = f"{lost} ingest workers were lost while they read it; it has been set aside"
                return await self._fail(item, record, reason)
            return await self._work(item, record)
        except Overtaken:
            log.info("%s was overtaken by a later upload", item.name)
            now = await self._files.get(item.owner, item.file)
            return await self._overtaken(item, now, True)
        except ServiceError as error:
            self._prepared = False
            if not error.retryable:
                return await self._fail(item, record, error.message)
            await self._put_back(item, record, f"waits: {error.message}")
            raise NotYet(error.message) from error
        finally:
            await end_tasks(touching)

    async def give_back(self, item: IngestItem, why: str) -> None:
        """Say in the record that nobody works on an item at the moment."""
        held = await self._files.hold(item.owner, item.file)
        if held.record is not None and held.record.upload == item.upload and waits(held.record):
            await self._put_back(item, Record(self._files, item, held, lambda: True), why)

    async def _work(self, item: IngestItem, record: Record) -> str:
        if item.action == "remove":
            return await self._remove(item, record)
        await record.write(state="parsing", **_begin(item))  # why it waited is told until that is over
        try:
            data = await self._files.bytes_of(item.upload)
        except KeyError:
            return await self._fail(item, record, "its bytes are no longer there; bring it in again")
        try:
            outcome = await (self._unpack if item.archive else self._add)(item, data, record)
        except BadDocument as error:
            return await self._fail(item, record, str(error))
        await self._files.drop_upload(item.upload)
        return outcome

    async def _add(self, item: IngestItem, data: bytes, record: Record) -> str:
        if not self._prepared:
            await self._library.prepare()
            await self._busy.ensure_known()
            self._prepared = True
        added = await self._library.add(
            item.name, data, change=self._busy, metadata=item.metadata, whose=_whose(item), tells=record
        )
        if added.status != "unchanged":
            await self._busy.written()
        await record.write(state="ready", error="")
        return added.status

    async def _remove(self, item: IngestItem, record: Record) -> str:
        if await self._library.remove(item.owner, item.name, self._busy):
            await self._busy.written()
        await record.forget()
        return "removed"

    async def _fail(self, item: IngestItem, record: Record, reason: str) -> str:
        """The file has failed. What was written of it goes; the version before stays."""
        if item.action == "add" and not item.archive:
            own = self._document_id(item)
            if own != record.now.document_id:
                await self._library.forget(own, self._busy)
        if item.action == "remove":
            reason = f"it could not be removed: {reason}"
        await record.write(state="failed", error=reason[:1_000], done=0, total=0)
        await self._files.drop_upload(item.upload)
        log.info("%s failed: %s", item.name, reason)
        return "failed"

    async def _put_back(self, item: IngestItem, record: Record, why: str) -> None:
        state = "removing" if record.now.state == "removing" else "queued"
        try:
            await record.write(state=state, error=why[:1_000], **_begin(item))
        except (Overtaken, LeaseLost):
            return

    async def _overtaken(self, item: IngestItem, now: FileRecord | None, begun: bool) -> str:
        """An item that nobody wants any more leaves nothing behind."""
        if begun and item.action == "add" and not item.archive:
            if now is not None and waits(now):
                # Whoever works on the later one may do so with what was written here.
                raise NotYet("a later upload of the same file is being worked on")
            own = self._document_id(item)
            try:
                if now is None or now.document_id != own:
                    await self._library.forget(own, self._busy)
            except ServiceError as error:
                raise NotYet(error.message) from error
        await self._files.drop_upload(item.upload)
        return "overtaken"

    def _document_id(self, item: IngestItem) -> str:
        return document_id_of(self._library.settings, item.name, item.content_hash, item.metadata, _whose(item))

    # --- archives -----------------------------------------------------------------------------------------------------

    async def _unpack(self, item: IngestItem, data: bytes, record: Record) -> str:
        """Make each file of an archive one of its own. Begun again, it goes on where the record says that it was; the
        file there is queued once, for its upload id comes from the archive's."""
        limits = Limits(
            self._settings.archive_max_files,
            self._settings.archive_max_bytes,
            self._library.settings.max_document_bytes,
        )
        archive = await asyncio.to_thread(Archive, data, limits)
        total = len(archive.members) + len(archive.refused)
        if not archive.members:
            why = ": " + "; ".join(f"{name}: {reason}" for name, reason in archive.refused[:3]) if total else ""
            raise BadDocument(f"there is no file in it that can be read{why}")
        taken = set(archive.members)
        entries = [(name, "") for name in archive.members]
        entries += [(name, reason) for name, reason in archive.refused if name not in taken]
        refused = len(archive.refused)
        # A lost holder's entries are not done again: somebody may have brought in a newer version of them since.
        start = record.now.done if record.now.total == total else 0
        for done, (name, reason) in list(enumerate(entries))[start:]:
            await record.write(state="writing", done=done, total=total, error="")
            if not reason and (reason := await self._queue_member(item, archive, name, record)):
                refused += 1
            if reason:
                await self._refuse(item, name, reason)
        told = f"{refused} of {total} files in it were refused" if refused else ""
        await record.write(
            state="ready", done=total, total=total, media_type="application/zip", readers=item.readers, error=told
        )
        return "unpacked"

    async def _queue_member(self, item: IngestItem, archive: Archive, name: str, record: Record) -> str:
        """Bring in a file of an archive; why that cannot be, or nothing."""
        content = await asyncio.to_thread(archive.read, name)
        try:
            await self._files.add(
                owner=item.owner,
                name=f"{item.name}/{name}",
                data=content,
                readers=item.readers,
                metadata=item.metadata,
                upload=member_upload(item.upload, f"{item.name}/{name}"),
            )
        except ValueError as error:
            return str(error)
        except Full as error:
            await self._put_back(item, record, "waits: so many files are queued that its own find no place")
            raise NotYet("the queue of files is full") from error
        return ""

    async def _refuse(self, item: IngestItem, name: str, reason: str) -> None:
        """A record for a file of an archive that is not taken, so that its owner can see why."""
        name = f"{item.name}/{name}"[:1_024]
        upload, file = member_upload(item.upload, name), subjects.file_key(item.owner, name)
        for _ in range(8):
            held = await self._files.hold(item.owner, file)
            try:
                await self._files.put(_refused(item, file, name, upload, reason, held), held.revision)
                return
            except Refused:
                continue


def _begin(item: IngestItem) -> dict[str, int]:
    """The progress of an item that is begun again: an archive goes on where it was."""
    return {} if item.archive else {"done": 0, "total": 0}


def _refused(item: IngestItem, file: str, name: str, upload: str, reason: str, held: Held) -> FileRecord:
    changes = {"upload": upload, "state": "failed", "error": reason, "updated_ms": now_ms(), "done": 0, "total": 0}
    if held.record is not None:
        return msgspec.structs.replace(held.record, **changes)
    return FileRecord(file=file, owner=item.owner, name=name, readers=item.readers, **changes)  # type: ignore[arg-type]


def _whose(item: IngestItem) -> Whose:
    return Whose(item.owner, tuple(item.readers))


async def _touch(record: Record) -> None:
    """Show that somebody is at it, also where reading takes long. Ends by itself where that is no longer so."""
    while True:
        await asyncio.sleep(TOUCH_S)
        try:
            await record.touch()
        except (Overtaken, LeaseLost):
            return
        except Exception as error:
            log.debug("a record was not touched: %s", error)
