"""Ingestion: files in, passages and originals stored; again and again without doing anything twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from services.common.config import RetrieverSettings

from .bad_document import BadDocument
from .chunking import FORMAT, chunk
from .collection import Collection, open_collection
from .corpus import Change, changing
from .embedding import Embedder, open_embedder
from .extract import Document, extract
from .files import PassedOver, SourceFile, find_files
from .report import Outcome, Progress, Report, Status
from .schema import DocumentInfo, StoredPassage
from .writer import PassageWriter, persistently

_DOCUMENT_ID = re.compile(r"[0-9a-f]{32}")


class Originals(Protocol):
    """Where the files themselves are kept, for the links behind the sources. All of it is idempotent."""

    async def put(self, document_id: str, data: bytes, *, title: str, media_type: str, name: str) -> None: ...

    async def has(self, document_id: str) -> bool: ...

    async def delete(self, document_id: str) -> None: ...


@asynccontextmanager
async def open_library(settings: RetrieverSettings, originals: Originals) -> AsyncIterator[Library]:
    """The library in the Milvus that `settings` name."""
    async with open_embedder(settings) as embedder, open_collection(settings) as collection:
        yield Library(collection, originals, settings, embedder)


@dataclass(slots=True)
class Library:
    """The documents that questions are answered from. One ingestion at a time for each library; several processes may
    ingest into the same collection."""

    collection: Collection
    originals: Originals
    settings: RetrieverSettings
    embedder: Embedder | None = None
    _known: dict[str, DocumentInfo] = field(default_factory=dict)

    async def ingest(
        self,
        paths: Iterable[Path],
        on_progress: Callable[[Progress], None] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Report:
        """Ingest files and folders; a bad file is reported, and the rest goes on.

        A document is known by its name: changed content replaces it, the same content again costs nothing. `metadata`
        is added to every document, for filters.

        Raises:
            ServiceError: Milvus, the embedding server or the store of originals failed for good. What was ingested
                before stays; the same call later goes on from there.
        """
        started = time.monotonic()
        found = await asyncio.to_thread(lambda: list(find_files(paths)))
        writer = PassageWriter(self.collection, self.embedder)
        await writer.prepare()
        self._known = {info.document_id: info for info in await self.collection.documents()}
        outcomes: list[Outcome] = []
        async with changing(self.collection) as change:
            for entry in found:
                if isinstance(entry, PassedOver):
                    outcome = Outcome(str(entry.path), "failed" if entry.wrong else "skipped", entry.reason)
                else:
                    outcome = await self._file(entry, metadata or {}, writer, change)
                outcomes.append(outcome)
                if on_progress is not None:
                    on_progress(Progress(len(outcomes), len(found), outcome))
            report = Report(outcomes, time.monotonic() - started)
            if report.of("added", "replaced"):
                await persistently(self.collection.settle)
            await change.ensure_known()
        return report

    async def documents(self) -> list[DocumentInfo]:
        """All documents, by name."""
        return await self.collection.documents()

    async def delete(self, document_id: str) -> bool:
        """Remove a document, its passages and its original; False if there is none of that id."""
        if not _DOCUMENT_ID.fullmatch(document_id):
            return False
        if not await self.collection.ordinals(document_id):
            return False
        async with changing(self.collection) as change:
            await self._forget(document_id, change)
        return True

    async def _file(
        self, source: SourceFile, metadata: Mapping[str, Any], writer: PassageWriter, change: Change
    ) -> Outcome:
        path = str(source.path)
        older = [info for info in self._known.values() if info.name == source.name]
        try:
            data = await asyncio.to_thread(_read, source.path, self.settings.max_document_bytes)
            content_hash = hashlib.sha256(data).hexdigest()
            document_id = self._document_id(source.name, content_hash, metadata)
            there = self._there(document_id, content_hash, source.name)
            if there is not None:
                # A run that was cut off may have left the version before.
                await self._forget_all((info for info in older if info.document_id != there.document_id), change)
                if not await self.originals.has(there.document_id):  # kept in memory, and lost with it
                    await self._keep(there, data)
                same = there.name == source.name
                reason = "" if same else f"same content as {there.name}"
                status: Status = "unchanged" if same else "duplicate"
                return Outcome(path, status, reason, there.document_id, there.passages)
            document = await asyncio.to_thread(extract, source.path.name, data)
            info = _info(document_id, source.name, document, content_hash, len(data), metadata)
            passages = await asyncio.to_thread(_passages, info, document, self.settings.chunk_chars)
        except BadDocument as error:
            return Outcome(path, "failed", str(error))
        await self._keep(info, data)
        await persistently(change.begin)
        await writer.write(passages)
        self._known[document_id] = replace(info, passages=len(passages))
        await self._forget_all((info for info in older if info.document_id != document_id), change)
        return Outcome(path, "replaced" if older else "added", "", document_id, len(passages))

    def _there(self, document_id: str, content_hash: str, name: str) -> DocumentInfo | None:
        """The whole document that a file would become, or, for a name that is new, one of the same content."""
        known = self._known.get(document_id)
        if known is not None and known.passages:
            return known
        if any(info.name == name for info in self._known.values()):
            return None
        same = (info for info in self._known.values() if info.content_hash == content_hash and info.passages)
        return next(same, None)

    async def _keep(self, info: DocumentInfo, data: bytes) -> None:
        name = PurePosixPath(info.name).name
        await self.originals.put(info.document_id, data, title=info.title, media_type=info.media_type, name=name)

    async def _forget_all(self, documents: Iterable[DocumentInfo], change: Change) -> None:
        for info in documents:
            await self._forget(info.document_id, change)

    async def _forget(self, document_id: str, change: Change) -> None:
        await persistently(change.begin)
        await persistently(lambda: self.collection.delete(document_id))
        await self.originals.delete(document_id)
        self._known.pop(document_id, None)

    def _document_id(self, name: str, content_hash: str, metadata: Mapping[str, Any]) -> str:
        """The same for the same name, content and settings; anything else is another document."""
        parts = [FORMAT, name, content_hash, self.settings.chunk_chars, dict(metadata)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise BadDocument(f"cannot be read: {error.strerror or error}") from error
    if len(data) > most:
        raise BadDocument(f"larger than {most:,} bytes (BATON_MAX_DOCUMENT_BYTES)")
    return data


def _info(
    document_id: str, name: str, document: Document, content_hash: str, size: int, metadata: Mapping[str, Any]
) -> DocumentInfo:
    return DocumentInfo(
        document_id=document_id,
        name=name,
        title=document.title,
        language=document.language,
        media_type=document.media_type,
        content_hash=content_hash,
        passages=0,
        bytes=size,
        ingested_ms=int(time.time() * 1000),
        metadata={**document.metadata, **metadata},
    )


def _passages(info: DocumentInfo, document: Document, limit: int) -> list[StoredPassage]:
    chunks = chunk(document.text, limit=limit, markdown=document.markdown, pages=document.pages)
    return [
        StoredPassage(
            document=info,
            ordinal=ordinal,
            text=document.text[piece.start : piece.end],
            heading=_below_title(piece.heading, info.title),
            start=piece.start,
            end=piece.end,
            page=bisect_right(document.pages, piece.start) or None,
        )
        for ordinal, piece in enumerate(chunks)
    ]


def _below_title(heading: str, title: str) -> str:
    """A document's title usually is its first heading too; once is enough."""
    return "" if heading == title else heading.removeprefix(f"{title} > ")
