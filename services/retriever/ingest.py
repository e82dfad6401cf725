"""Ingestion: files in, passages and originals stored; again and again without doing anything twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from baton_proto.readers import EVERYBODY
from services.common.config import RetrieverSettings
from services.common.documents import DocumentMeta, Original, View

from .bad_document import BadDocument
from .chunking import FORMAT, chunk, lead
from .corpus import changing
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

Reader = Callable[[str, bytes], Awaitable[Document]]
"""Reads the document in a file of this name, or raises BadDocument."""


async def read_here(name: str, data: bytes) -> Document:
    """Reads in a thread of this process: for files that are trusted not to be made to do harm."""
    return await asyncio.to_thread(extract, name, data)


class Begins(Protocol):
    """Says that documents are about to change (see `corpus.Change`). Safe to repeat."""

    async def begin(self) -> None: ...


class Tells(Protocol):
    """Is told how far a file is. What it raises stops the ingestion there."""

    async def progress(self, done: int, total: int) -> None:
        """So many of the passages are written."""
        ...

    async def found(self, info: DocumentInfo) -> None:
        """The document can be found, and the version before is about to go."""
        ...


class Silent:
    """Nobody wants to know."""

    async def progress(self, done: int, total: int) -> None:
        return

    async def found(self, info: DocumentInfo) -> None:
        return


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a file."""

    status: Status
    info: DocumentInfo


class Originals(Protocol):
    """Where the files themselves are kept, for the links behind the sources. All of it is idempotent."""

    async def put(self, document_id: str, original: Original) -> None: ...

    async def has(self, document_id: str) -> bool: ...

    async def delete(self, document_id: str) -> None: ...


@asynccontextmanager
async def open_library(
    settings: RetrieverSettings, originals: Originals, read: Reader = read_here
) -> AsyncIterator[Library]:
    """The library in the store that `settings` name."""
    async with open_embedder(settings) as embedder, open_store(settings) as store:
        yield Library(store, originals, settings, embedder, read)


@dataclass(slots=True)
class Library:
    """The documents that questions are answered from. `add` and `remove` may run at once for different files, `ingest`
    once at a time; several processes may ingest into the same store."""

    store: Store
    originals: Originals
    settings: RetrieverSettings
    embedder: Embedder | None = None
    read: Reader = read_here
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
        await self.prepare()
        self._known = {info.document_id: info for info in await self.store.documents()}
        outcomes: list[Outcome] = []
        async with changing(self.store) as change:
            for entry in found:
                if isinstance(entry, PassedOver):
                    outcome = Outcome(str(entry.path), "failed" if entry.wrong else "skipped", entry.reason)
                else:
                    outcome = await self._file(entry, metadata or {}, whose, change)
                outcomes.append(outcome)
                if on_progress is not None:
                    on_progress(Progress(len(outcomes), len(found), outcome))
            report = Report(outcomes, time.monotonic() - started)
            if report.of("added", "replaced"):
                await persistently(self.store.settle)
            await change.ensure_known()
        return report

    async def prepare(self) -> None:
        """Make the collection, or check that it fits the settings. Before the first `add`.

        Raises:
            ServiceError
        """
        await PassageWriter(self.store, self.embedder).prepare()

    async def add(
        self,
        name: str,
        data: bytes,
        *,
        change: Begins,
        metadata: Mapping[str, Any] | None = None,
        whose: Whose = OPERATOR,
        tells: Tells | None = None,
    ) -> Added:
        """Ingest one file. Safe to repeat after it was cut off anywhere, and to call for other files at once; for the
        same file by several workers too, as long as all but the last are stopped by `tells`.

        Raises:
            BadDocument: it cannot be read.
            ServiceError: the store or the embedding server failed, `retryable` telling for how long.
        """
        versions = await persistently(lambda: self.store.find(whose.owner, name))
        added = await self._add(name, data, metadata or {}, whose, change, tells or Silent(), versions)
        # Asked again: somebody who was stopped may have begun another version meanwhile.
        versions = await persistently(lambda: self.store.find(whose.owner, name))
        await self._forget_all((info for info in versions if info.document_id != added.info.document_id), change)
        return added

    async def remove(self, owner: str, name: str, change: Begins) -> int:
        """Remove all versions of a file, their passages and originals; how many there were.

        Raises:
            ServiceError
        """
        versions = await persistently(lambda: self.store.find(owner, name))
        await self._forget_all(versions, change)
        return len(versions)

    async def forget(self, document_id: str, change: Begins) -> None:
        """Remove a document, its passages and its original, whether there are any or not.

        Raises:
            ServiceError
        """
        await self.originals.delete(document_id)
        if await persistently(lambda: self.store.ordinals(document_id)):
            await self._forget(document_id, change)

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

    async def _file(self, source: SourceFile, metadata: Mapping[str, Any], whose: Whose, change: Begins) -> Outcome:
        path = str(source.path)
        older = [info for info in self._known.values() if (info.owner, info.name) == (whose.owner, source.name)]
        try:
            data = await asyncio.to_thread(_read, source.path, self.settings.max_document_bytes)
            copy = self._copy_of(hashlib.sha256(data).hexdigest(), source.name, whose)
            if copy is not None:
                return Outcome(path, "duplicate", f"same content as {copy.name}", copy.document_id, copy.passages)
            added = await self._add(source.name, data, metadata, whose, change, Silent(), older)
        except BadDocument as error:
            return Outcome(path, "failed", str(error))
        info = added.info
        self._known[info.document_id] = info
        await self._forget_all((one for one in older if one.document_id != info.document_id), change)
        return Outcome(path, added.status, "", info.document_id, info.passages)

    async def _add(
        self,
        name: str,
        data: bytes,
        metadata: Mapping[str, Any],
        whose: Whose,
        change: Begins,
        tells: Tells,
        versions: Sequence[DocumentInfo],
    ) -> Added:
        """Write a file's document, beside the versions that are stored already."""
        if len(data) > self.settings.max_document_bytes:
            raise BadDocument(too_large(self.settings.max_document_bytes))
        content_hash = hashlib.sha256(data).hexdigest()
        document_id = document_id_of(self.settings, name, content_hash, metadata, whose)
        there = next((info for info in versions if info.document_id == document_id and info.passages), None)
        # The original may be lost: it was kept in memory, say.
        if there is not None and await self.originals.has(document_id):
            await tells.found(there)
            return Added("unchanged", there)
        document = await self.read(name, data)
        info = _info(document_id, name, document, content_hash, len(data), metadata, whose)
        passages = await asyncio.to_thread(self._passages, info, document)
        await tells.progress(0, len(passages))
        await self._keep(there or info, data, document, passages)
        if there is None:
            await persistently(change.begin)
            try:
                await PassageWriter(self.store, self.embedder).write(passages, tells.progress)
            except BadDocument:
                await self._forget(document_id, change)
                raise
        stored = there or replace(info, passages=len(passages))
        await tells.found(stored)
        if there is not None:
            return Added("unchanged", stored)
        return Added("replaced" if versions else "added", stored)

    def _passages(self, info: DocumentInfo, document: Document) -> list[StoredPassage]:
        return _passages(info, document, self.settings.chunk_tokens)

    def _copy_of(self, content_hash: str, name: str, whose: Whose) -> DocumentInfo | None:
        """For a name that is new, a whole document of the same content.

        That one must be of the same owner and readers: whoever brings in what somebody else has brought in must not
        learn of it, let alone be given it.
        """
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

    async def _forget_all(self, documents: Iterable[DocumentInfo], change: Begins) -> None:
        for info in documents:
            await self._forget(info.document_id, change)

    async def _forget(self, document_id: str, change: Begins) -> None:
        await persistently(change.begin)
        # The passages last: while they are there, whoever comes after a crash knows what has to go.
        await self.originals.delete(document_id)
        await persistently(lambda: self.store.delete(document_id))
        self._known.pop(document_id, None)


def document_id_of(
    settings: RetrieverSettings, name: str, content_hash: str, metadata: Mapping[str, Any], whose: Whose
) -> str:
    """The same for the same name, content, owner, readers and settings; anything else is another document."""
    parts = [FORMAT, name, content_hash, settings.chunk_tokens, dict(metadata), whose.owner, whose.readers]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def too_large(most: int) -> str:
    return f"larger than {most:,} bytes (BATON_MAX_DOCUMENT_BYTES)"


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise BadDocument(f"cannot be read: {error.strerror or error}") from error
    if len(data) > most:
        raise BadDocument(too_large(most))
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
    titled = info.title != PurePosixPath(info.name).stem
    begins = "" if titled else lead(document.text)
    return [
        StoredPassage(
            document=info,
            ordinal=ordinal,
            text=document.text[piece.start : piece.end],
            heading=_below_title(piece.heading, info.title),
            start=piece.start,
            end=piece.end,
            page=bisect_right(document.pages, piece.start) or None,
            lead=begins if ordinal else "",
        )
        for ordinal, piece in enumerate(chunks)
    ]


def _below_title(heading: str, title: str) -> str:
    """A document's title usually is its first heading too; once is enough."""
    return "" if heading == title else heading.removeprefix(f"{title} > ")
