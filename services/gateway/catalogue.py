"""What the gateway knows of the files that were brought in: a picture of their records that follows every change."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from sys import intern
from typing import Any

import msgspec

from baton_proto.messages import FileRecord
from baton_proto.readers import EVERYBODY, may_read, principals
from services.common.config import GatewaySettings
from services.common.files import Files, Removed

from .auth import Identity

MAX_WAITING = 2_000
"""Changes that may wait for one listener. One who is slower starts again with the list."""


class Viewer:
    """Somebody who looks at files: whose are theirs, which they may read, and what they may do."""

    def __init__(self, who: Identity, settings: GatewaySettings) -> None:
        self.owner = who.owner
        self.principals = principals(who.owner, who.claims)
        self._known = who.known
        self._groups = {one.removeprefix("group:") for one in self.principals if one.startswith("group:")}
        self._settings = settings

    @property
    def may_upload(self) -> bool:
        groups = self._settings.upload_groups
        return self._settings.uploads and (not groups or bool(self._groups.intersection(groups)))

    @property
    def may_share(self) -> bool:
        return not self._known or bool(self._groups.intersection(self._settings.share_groups))

    @property
    def own_readers(self) -> list[str]:
        """The readers of what they bring in, where they say nothing else."""
        return [f"user:{self.owner}"] if self._known else [EVERYBODY]

    def may_name(self, reader: str) -> bool:
        """Whether they may make somebody a reader."""
        if reader in self.own_readers:
            return True
        return self.may_share and (reader == EVERYBODY or reader.startswith("user:") or reader in self.principals)

    def is_own(self, record: FileRecord) -> bool:
        # Without a token everybody is the same owner, and what one of them has kept to others is not for all.
        return record.owner == self.owner and (self._known or may_read(record.readers, self.principals))

    def sees(self, record: FileRecord) -> bool:
        return self.is_own(record) or may_read(record.readers, self.principals)

    def may_remove(self, record: FileRecord) -> bool:
        return self.is_own(record) or (self.may_share and may_read(record.readers, self.principals))


def shown(record: FileRecord, viewer: Viewer) -> dict[str, Any]:
    """A file as its viewer gets it. Who else may read it is for its owner to know."""
    mine = viewer.is_own(record)
    fields: dict[str, Any] = {"file": record.file, "name": record.name, "state": record.state}
    for name in ("document_id", "title", "media_type", "passages", "error"):
        if value := getattr(record, name):
            fields[name] = value
    if record.state == "writing":
        fields |= {"done": record.done, "total": record.total}
    readers = [one for one in record.readers if mine or one in viewer.principals]
    return {**fields, "bytes": record.bytes, "updated_ms": record.updated_ms, "readers": readers, "mine": mine}


class Catalogue:
    """The records of all files. It begins to follow them when somebody first asks.

    They are in the order of their last change, so that a list of the newest ends where it is full. A file's id has its
    owner in it, so it is enough of a key.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._records: dict[str, FileRecord] = {}
        self._touched: set[str] | None = None
        self._listeners: set[Listener] = set()
        self._opening = asyncio.Lock()
        self._stop: Callable[[], Awaitable[None]] | None = None

    async def open(self) -> None:
        """Follow the files, if that is not done yet.

        Raises:
            Unconfirmed
        """
        async with self._opening:
            if self._stop is not None:
                return
            self._touched = set()
            stop = await self._files.watch(self._changed)
            try:
                found = await self._files.all()
            except BaseException:
                await stop()
                self._records.clear()
                raise
            for record in found:
                known = self._records.get(record.file)
                if record.file not in self._touched and (known is None or known.updated_ms < record.updated_ms):
                    self._records[record.file] = _slim(record)
            self._records = dict(sorted(self._records.items(), key=lambda each: each[1].updated_ms))
            self._touched = None
            self._stop = stop

    async def close(self) -> None:
        stop, self._stop = self._stop, None
        if stop is not None:
            await stop()
        self._records.clear()
        for listener in list(self._listeners):
            listener.end()

    def newest(self, viewer: Viewer, most: int) -> tuple[list[FileRecord], bool]:
        """The files that somebody sees, the last changed first, and whether there are more."""
        seen = (record for record in reversed(self._records.values()) if viewer.sees(record))
        found = list(itertools.islice(seen, most + 1))
        # Clocks of several machines: nearly in order is not in order.
        found.sort(key=lambda record: (record.updated_ms, record.file), reverse=True)
        return found[:most], len(found) > most

    def find(self, name: str, viewer: Viewer) -> FileRecord | None:
        """The file that somebody may remove by its own id or by its document's."""
        record = self._records.get(name)
        if record is None:
            record = next((each for each in self._records.values() if each.document_id == name), None)
        return record if record is not None and viewer.may_remove(record) else None

    def added(self, record: FileRecord) -> None:
        """A change that this gateway has made itself, which its next answers must know."""
        known = self._records.get(record.file)
        if known is None or known.updated_ms <= record.updated_ms:
            self._changed(record)

    def listen(self, viewer: Viewer) -> Listener:
        listener = Listener(viewer, self._listeners)
        self._listeners.add(listener)
        return listener

    def _changed(self, change: FileRecord | Removed) -> None:
        if self._touched is not None:
            self._touched.add(change.file)
        before = self._records.get(change.file)
        if isinstance(change, Removed):
            self._records.pop(change.file, None)
        else:
            change = _slim(change)
            if change == before:
                return
            self._records.pop(change.file, None)
            self._records[change.file] = change
        for listener in list(self._listeners):
            listener.changed(before, change)


def _slim(record: FileRecord) -> FileRecord:
    """A record without what nobody is shown, and with one copy of what many records say."""
    return msgspec.structs.replace(
        record,
        upload="",
        content_hash="",
        owner=intern(record.owner),
        state=intern(record.state),
        media_type=intern(record.media_type),
        readers=[intern(reader) for reader in record.readers],
    )


class Listener:
    """The changes that one viewer sees, until it ends."""

    def __init__(self, viewer: Viewer, among: set[Listener]) -> None:
        self._viewer = viewer
        self._among = among
        self._waiting: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(MAX_WAITING + 1)

    async def next(self) -> dict[str, Any] | None:
        """The next change; None: this was the last one."""
        return await self._waiting.get()

    def changed(self, before: FileRecord | None, now: FileRecord | Removed) -> None:
        saw = before is not None and self._viewer.sees(before)
        if isinstance(now, FileRecord) and self._viewer.sees(now):
            event = shown(now, self._viewer)
        elif saw:
            event = {"file": now.file, "state": "removed"}
        else:
            return
        if self._waiting.qsize() >= MAX_WAITING:
            self.end()
        else:
            self._waiting.put_nowait(event)

    def end(self) -> None:
        self._among.discard(self)
        if not self._waiting.full():
            self._waiting.put_nowait(None)
