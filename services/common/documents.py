"""The original documents behind the sources, in NATS's object store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from . import streams
from .bus import Bus
from .config import NatsSettings
from .connection import connect

PREFIX = "documents/"
VIEWS = "views/"


class DocumentMeta(msgspec.Struct, frozen=True):
    """What is known of an original: its title for people, its media type, the name it was brought in under, whose it
    is, and the principals who may read it (none: nobody)."""

    title: str
    media_type: str
    name: str
    owner: str = ""
    readers: tuple[str, ...] = ()


class View(msgspec.Struct, frozen=True):
    """The text of a document as passages were cut from it, for showing it with one of them marked.

    `passages` are the offsets `(start, end)` into `text` by ordinal; `pages` those at which pages 1, 2, … start, empty
    where there are none. `markdown` tells whether `text` has Markdown's structure.
    """

    text: str
    markdown: bool = False
    pages: tuple[int, ...] = ()
    passages: tuple[tuple[int, int], ...] = ()


class Original(msgspec.Struct, frozen=True):
    """A document's file, what is known of it, and its text (None: it cannot be shown with passages marked)."""

    data: bytes
    meta: DocumentMeta
    view: View | None = None


class Documents:
    """Originals by document id. All methods raise Unconfirmed where NATS did not answer."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def put(self, document_id: str, original: Original) -> None:
        """Keep an original; it can be read once this returns."""
        described = msgspec.json.encode(original.meta).decode()
        if original.view is not None:
            await self._bus.put_object(VIEWS + document_id, msgspec.msgpack.encode(original.view))
        await self._bus.put_object(PREFIX + document_id, original.data, described)

    async def get(self, document_id: str) -> Original:
        """The file and what is known of it, without its view. Raises KeyError where there is none."""
        data, description = await self._bus.get_described_object(PREFIX + document_id)
        return Original(data, msgspec.json.decode(description, type=DocumentMeta))

    async def meta(self, document_id: str) -> DocumentMeta:
        """What is known of an original, without reading it. Raises KeyError where there is none."""
        return msgspec.json.decode(await self._bus.object_description(PREFIX + document_id), type=DocumentMeta)

    async def view(self, document_id: str) -> View | None:
        """The document's text; None where none is kept."""
        try:
            return msgspec.msgpack.decode(await self._bus.get_object(VIEWS + document_id), type=View)
        except KeyError:
            return None

    async def has(self, document_id: str) -> bool:
        """Whether an original is kept."""
        return await self._bus.has_object(PREFIX + document_id)

    async def delete(self, document_id: str) -> None:
        """Forget an original; one that is not there is no error."""
        await self._bus.delete_object(PREFIX + document_id)
        await self._bus.delete_object(VIEWS + document_id)


@asynccontextmanager
async def open_documents(settings: NatsSettings) -> AsyncIterator[Documents]:
    """The originals, over a connection of its own."""
    async with connect(settings, "documents") as bus:
        await streams.ensure_documents(bus)
        yield Documents(bus)
