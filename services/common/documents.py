"""The original documents behind the sources, in NATS's object store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from . import streams
from .bus import Bus
from .config import NatsSettings
from .connection import connect

PREFIX = "documents/"


class DocumentMeta(msgspec.Struct, frozen=True):
    """What is known of an original: its title for people, its media type, and the name it was brought in under."""

    title: str
    media_type: str
    name: str


@dataclass(frozen=True, slots=True)
class StoredDocument:
    data: bytes
    meta: DocumentMeta


class Documents:
    """Originals by document id."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def put(self, document_id: str, data: bytes, *, title: str, media_type: str, name: str) -> None:
        """Keep an original. Raises Unconfirmed."""
        meta = DocumentMeta(title=title, media_type=media_type, name=name)
        await self._bus.put_object(PREFIX + document_id, data, msgspec.json.encode(meta).decode())

    async def get(self, document_id: str) -> StoredDocument:
        """Raises KeyError where there is none, Unconfirmed where NATS did not answer."""
        data, description = await self._bus.get_described_object(PREFIX + document_id)
        return StoredDocument(data, msgspec.json.decode(description, type=DocumentMeta))

    async def has(self, document_id: str) -> bool:
        """Whether an original is kept. Raises Unconfirmed."""
        return await self._bus.has_object(PREFIX + document_id)

    async def delete(self, document_id: str) -> None:
        """Forget an original; one that is not there is no error. Raises Unconfirmed."""
        await self._bus.delete_object(PREFIX + document_id)


@asynccontextmanager
async def open_documents(settings: NatsSettings) -> AsyncIterator[Documents]:
    """The originals, over a connection of its own."""
    async with connect(settings, "documents") as bus:
        await streams.ensure_documents(bus)
        yield Documents(bus)
