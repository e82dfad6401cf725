"""Writing into a file's record how far it is, for as long as nobody has overtaken it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from baton_proto.messages import FileRecord, IngestItem
from services.common.bus import Refused, Unconfirmed
from services.common.clock import now_ms
from services.common.files import Files, Held
from services.retriever.stored import DocumentInfo

EVERY_S = 0.5
TRIES = 8


class Overtaken(Exception):
    """The file's record names another upload, or there is none any more."""


class LeaseLost(Exception):
    """The item may belong to somebody else by now."""


class Record:
    """The record of the file that an item is about, in the hands of the item's holder."""

    def __init__(self, files: Files, item: IngestItem, held: Held, mine: Callable[[], bool]) -> None:
        """`mine` tells whether the item is still ours."""
        assert held.record is not None
        self._files = files
        self._item = item
        self._mine = mine
        self._revision = held.revision
        self._told = float("-inf")
        self._lock = asyncio.Lock()
        self.now: FileRecord = held.record

    async def write(self, **changes: Any) -> None:
        """Change the record.

        Raises:
            Overtaken, LeaseLost: then nothing was changed.
            Full, Unconfirmed
        """
        async with self._lock:
            await self._persistently(lambda: self._put(changes))

    async def forget(self) -> None:
        """Remove the record; raises as `write` does."""
        async with self._lock:
            await self._persistently(lambda: self._files.forget(self.now, self._revision))

    async def touch(self) -> None:
        """Say that somebody is still at it; also how it is noticed that the file was overtaken."""
        await self.write()

    async def progress(self, done: int, total: int) -> None:
        """So many of the passages are written; told now and then."""
        if done == 0 or time.monotonic() - self._told >= EVERY_S:
            await self.write(state="writing", done=done, total=total, error="")

    async def found(self, info: DocumentInfo) -> None:
        """The new version is there: from here on it is the one that the record names."""
        await self.write(
            document_id=info.document_id,
            title=info.title,
            media_type=info.media_type,
            passages=info.passages,
            readers=list(info.readers),
            done=info.passages,
            total=info.passages,
        )

    async def _persistently(self, change: Callable[[], Awaitable[None]]) -> None:
        for _ in range(TRIES):
            if not self._mine():
                raise LeaseLost
            try:
                await change()
                return
            except Refused:
                await self._read_again()
        raise Unconfirmed("others change this file's record all the time")

    async def _put(self, changes: dict[str, Any]) -> None:
        record = msgspec.structs.replace(self.now, **changes, updated_ms=now_ms())
        self._revision = (await self._files.put(record, self._revision)).revision
        self.now = record
        self._told = time.monotonic()

    async def _read_again(self) -> None:
        held = await self._files.hold(self._item.owner, self._item.file)
        if held.record is None or held.record.upload != self._item.upload:
            raise Overtaken
        self.now, self._revision = held.record, held.revision
