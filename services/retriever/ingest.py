"""Ingestion: files in, passages and originals stored; again and again without doing anything twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from baton_proto.readers import EVERYBODY
from services.common.config import RetrieverSettings
from services.common.documents import DocumentMeta, Original, View

from .bad_document import BadDocument
from .chunking import FORMAT, chunk
from .corpus import Change, changing
from .embedding import Embedder, open_embedder
from .extract import Document, extract
from .files import PassedOver, SourceFile, find_files
from .report import Outcome, Progress, Report, Status
from .stored import DocumentInfo, StoredPassage
from .stores.opening import open_store
from .stores.port import Store
from .writer import PassageWriter, persistently

_DOCUMENT_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Whose:
    """Who brings documents in (empty: the operator), and the principals who may read them."""

    owner: str = ""
    readers: tuple[str, ...] = (EVERYBODY,)


OPERATOR = Whose()


class Originals(Protocol):
    """Where the files themselves are kept, for the links behind the sources. All of it is idempotent."""

    async def put(self, document_id: str, original: Original) -> None: ...

    async def has(self, document_id: str) -> bool: ...

    async def delete(self, document_id: str) -> None: ...


@asynccontextmanager
async def open_library(settings: RetrieverSettings, originals: Originals) -> AsyncIterator[Library]:
    """The library in the store that `settings` name."""
    async with open_embedder(settings) as embedder, open_store(settings) as store:
        yield Library(store, originals, settings, embedder)


@dataclass(slots=True)
class Library:
    """The documents that questions are answered from. One ingestion at a time for each library; several processes may
    ingest into the same store."""

    store: Store
    originals: Originals
    settings: RetrieverSettings
    embedder: Embedder | None = None
    _known: dict[str, DocumentInfo] = field(default_factory=dict)

    async def ingest(
        self,
        paths: Iterable[Path],
        on_progress: Callable[[Progress], None] | None = None,
        metadata: Mapping[str, Any] | None = None,
        whose: Whose = OPERATOR,
    ) -> Report:
        """Ingest files and folders; a bad file is reported, and the rest goes on.

        A document is known by its owner and name: changed content replaces it, the same content again costs nothing.
        `metadata` is added to every document, for filters.

        Raises:
            ServiceError: the store, the embedding server or the store of originals failed for good. What was ingested
                before stays; the same call later goes on from there.
        """
        started = time.monotonic()
        found = await asyncio.to_thread(lambda: list(find_files(paths)))
        writer = PassageWriter(self.store, self.embedder)
        await writer.prepare()
        self._known = {info.document_id: info for info in await self.store.documents()}
        outcomes: list[Outcome] = []
        async with changing(self.store) as change:
            for entry in found:
                if isinstance(entry, PassedOver):
                    outcome = Outcome(str(entry.path), "failed" if entry.wrong else "skipped", entry.reason)
                else:
                    outcome = await self._file(entry, metadata or {}, whose, writer, change)
                outcomes.append(outcome)
                if on_progress is not None:
                    on_progress(Progress(len(outcomes), len(found), outcome))
            report = Report(outcomes, time.monotonic() - started)
            if report.of("added", "replaced"):
                await persistently(self.store.settle)
            await change.ensure_known()
        return report

    async def documents(self) -> list[DocumentInfo]:
        """All documents, by name."""
        return await self.store.documents()

    async def delete(self, document_id: str) -> bool:
        """Remove a document, its passages and its original; False if there is none of that id."""
        if not _DOCUMENT_ID.fullmatch(document_id):
            return False
        if not await self.store.ordinals(document_id):
            return False
        async with changing(self.store) as change:
            await self._forget(document_id, change)
        return True

    async def _file(
        self, source: SourceFile, metadata: Mapping[str, Any], whose: Whose, writer: PassageWriter, change: Change
    ) -> Outcome:
        path = str(source.path)
        older = [info for info in self._known.values() if (info.owner, info.name) == (whose.owner, source.name)]
        try:
            data = await asyncio.to_thread(_read, source.path, self.settings.max_document_bytes)
            content_hash = hashlib.sha256(data).hexdigest()
            document_id = self._document_id(source.name, content_hash, metadata, whose)
            there = self._there(document_id, content_hash, source.name, whose)
            if there is not None:
                # A run that was cut off may have left the version before.
                await self._forget_all((info for info in older if info.document_id != there.document_id), change)
                if not await self.originals.has(there.document_id):  # kept in memory, and lost with it
                    document = await asyncio.to_thread(extract, source.path.name, data)
                    await self._keep(there, data, document, self._passages(there, document))
                same = there.name == source.name
                reason = "" if same else f"same content as {there.name}"
                status: Status = "unchanged" if same else "duplicate"
                return Outcome(path, status, reason, there.document_id, there.passages)
            document = await asyncio.to_thread(extract, source.path.name, data)
            info = _info(document_id, source.name, document, content_hash, len(data), metadata, whose)
            passages = await asyncio.to_thread(self._passages, info, document)
        except BadDocument as error:
            return Outcome(path, "failed", str(error))
        await self._keep(info, data, document, passages)
        await persistently(change.begin)
        await writer.write(passages)
        self._known[document_id] = replace(info, passages=len(passages))
        await self._forget_all((info for info in older if info.document_id != document_id), change)
        return Outcome(path, "replaced" if older else "added", "", document_id, len(passages))

    def _passages(self, info: DocumentInfo, document: Document) -> list[StoredPassage]:
        return _passages(info, document, self.settings.chunk_tokens)

    def _there(self, document_id: str, content_hash: str, name: str, whose: Whose) -> DocumentInfo | None:
        """The whole document that a file would become, or, for a name that is new, one of the same content.

        That one must be of the same owner and readers: whoever brings in what somebody else has brought in must not
        learn of it, let alone be given it.
        """
        known = self._known.get(document_id)
        if known is not None and known.passages:
            return known
        theirs = [info for info in self._known.values() if info.owner == whose.owner]
        if any(info.name == name for info in theirs):
            return None
        same = (info for info in theirs if info.content_hash == content_hash and info.readers == whose.readers)
        return next((info for info in same if info.passages), None)

    async def _keep(
        self, info: DocumentInfo, data: bytes, document: Document, passages: Sequence[StoredPassage]
    ) -> None:
        meta = DocumentMeta(info.title, info.media_type, PurePosixPath(info.name).name, info.owner, info.readers)
        cut = tuple((passage.start, passage.end) for passage in passages)
        view = View(document.text, document.markdown, document.pages, cut)
        await self.originals.put(info.document_id, Original(data, meta, view))

    async def _forget_all(self, documents: Iterable[DocumentInfo], change: Change) -> None:
        for info in documents:
            await self._forget(info.document_id, change)

    async def _forget(self, document_id: str, change: Change) -> None:
        await persistently(change.begin)
        await persistently(lambda: self.store.delete(document_id))
        await self.originals.delete(document_id)
        self._known.pop(document_id, None)

    def _document_id(self, name: str, content_hash: str, metadata: Mapping[str, Any], whose: Whose) -> str:
        """The same for the same name, content, owner, readers and settings; anything else is another document."""
        parts = [FORMAT, name, content_hash, self.settings.chunk_tokens, dict(metadata), whose.owner, whose.readers]
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
    document_id: str,
    name: str,
    document: Document,
    content_hash: str,
    size: int,
    metadata: Mapping[str, Any],
    whose: Whose,
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
        owner=whose.owner,
        readers=whose.readers,
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
