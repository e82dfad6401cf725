"""Documents over HTTP: bring them in, watch them, see them, remove them; each as far as a token allows."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import ExitStack
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from baton_proto.messages import FileRecord
from baton_proto.readers import checked_readers, may_read
from services.common.bus import Bus, Full
from services.common.config import GatewaySettings
from services.common.documents import DocumentMeta, Documents
from services.common.files import Files

from .auth import Authenticator, Identity
from .catalogue import Catalogue, Viewer, shown
from .document_page import Wanted, document_response
from .http_answers import HEADERS, Held, Places, error_answer, guarded, json_answer
from .originals import SAFE_HEADERS, file_response, original_response
from .uploads import BadUpload, Upload, is_archive, uploaded

log = logging.getLogger(__name__)

MOST_LISTED = 1_000
MAX_LISTENERS = 2_000
MAX_LISTENERS_OF_ONE = 50
UPLOADS_AT_ONCE = 32
UPLOADS_AT_ONCE_OF_ONE = 4
STORED_AT_ONCE = 2
"""Files that are held in memory, on their way into the object store."""
READ_AT_ONCE = 16
READ_AT_ONCE_OF_ONE = 8
"""Documents on their way to somebody; a file is in memory until its reader has it."""
PAGES_AT_ONCE = 2
MOST_TEXT_CHARS = 100_000
HEARTBEAT_S = 15.0
_ID = re.compile(r"[0-9a-f]{32}")
_CODES = {400: "bad_message", 408: "deadline", 413: "too_large"}

Answer = Callable[[Request, Identity, Viewer], Awaitable[ASGIApp]]


class DocumentRoutes:
    """The routes of `/documents`."""

    def __init__(self, bus: Bus, authenticator: Authenticator, settings: GatewaySettings) -> None:
        self._authenticator = authenticator
        self._settings = settings
        self._files = Files(bus)
        self._documents = Documents(bus)
        self._catalogue = Catalogue(self._files)
        self._uploading = Places("uploads", UPLOADS_AT_ONCE, UPLOADS_AT_ONCE_OF_ONE)
        self._watching = Places("streams of events", MAX_LISTENERS, MAX_LISTENERS_OF_ONE)
        self._reading = Places("readings of documents", READ_AT_ONCE, READ_AT_ONCE_OF_ONE)
        self._storing = asyncio.Semaphore(STORED_AT_ONCE)
        self._rendering = asyncio.Semaphore(PAGES_AT_ONCE)
        self._leaving = False

    def routes(self) -> list[Route]:
        one = "/documents/{document_id}"
        return [
            Route("/documents", self._guarded(self._list), methods=["GET"]),
            Route("/documents", self._guarded(self._upload), methods=["POST"]),
            Route("/documents/events", self._guarded(self._events), methods=["GET"]),
            Route(one, self._guarded(self._show), methods=["GET"]),
            Route(one, self._guarded(self._remove), methods=["DELETE"]),
        ]

    async def leave(self) -> None:
        """End the streams of events: whoever listens comes back to another replica."""
        self._leaving = True
        await self._catalogue.close()

    def _guarded(self, answer: Answer) -> Callable[[Request], Awaitable[ASGIApp]]:
        async def told(request: Request, who: Identity) -> ASGIApp:
            try:
                return await answer(request, who, Viewer(who, self._settings))
            except KeyError:
                return _not_found()
            except BadUpload as error:
                # What is still on its way of a form that was refused is not waited for.
                return error_answer(error.status, _CODES[error.status], str(error), {"Connection": "close"})
            except Full as error:
                log.warning("no further files are taken: %s", error)
                message = "So many files wait that no more can be taken."
                return error_answer(503, "overloaded", message, {"Retry-After": "9"})

        return guarded(self._authenticator, self._settings, told)

    # --- bringing in --------------------------------------------------------------------------------------------------

    async def _upload(self, request: Request, who: Identity, viewer: Viewer) -> Response:
        if not self._settings.uploads:
            return error_answer(403, "forbidden", "Documents are not brought in over HTTP here (BATON_UPLOADS is off).")
        if not viewer.may_upload:
            return error_answer(403, "forbidden", "Only members of certain groups may bring in documents here.")
        with self._uploading.one(who):
            async with uploaded(request, self._settings.upload_max_bytes) as upload:
                return await self._take(upload, viewer)

    async def _take(self, upload: Upload, viewer: Viewer) -> Response:
        asked = viewer.own_readers if upload.readers is None else upload.readers
        try:
            readers = checked_readers(asked)
        except ValueError as error:
            raise BadUpload(str(error)) from None
        if (refused := next((one for one in readers if not viewer.may_name(one)), None)) is not None:
            return error_answer(403, "forbidden", _sharing_refused(refused, viewer))
        taken: list[FileRecord] = []
        for name, file in upload.files:
            async with self._storing:
                record = await self._add(name, await file.read(), readers, upload.metadata, viewer)
            taken.append(record)
            self._catalogue.added(record)
        return json_answer({"files": [shown(record, viewer) for record in taken]}, 202)

    async def _add(
        self, name: str, data: bytes, readers: Collection[str], metadata: dict[str, Any], viewer: Viewer
    ) -> FileRecord:
        try:
            return await self._files.add(
                owner=viewer.owner,
                name=name,
                data=data,
                readers=readers,
                metadata=metadata,
                archive=is_archive(name),
            )
        except ValueError as error:
            raise BadUpload(str(error)) from None

    # --- watching -----------------------------------------------------------------------------------------------------

    async def _list(self, _: Request, __: Identity, viewer: Viewer) -> Response:
        await self._catalogue.open()
        records, truncated = self._catalogue.newest(viewer, MOST_LISTED)
        return json_answer(
            {
                "files": [shown(record, viewer) for record in records],
                "truncated": truncated,
                "may_upload": viewer.may_upload,
                "may_share": viewer.may_share,
                "max_bytes": self._settings.upload_max_bytes,
            }
        )

    async def _events(self, _: Request, who: Identity, viewer: Viewer) -> ASGIApp:
        if self._leaving:
            return error_answer(503, "overloaded", "This replica is going away; try again.", {"Retry-After": "1"})
        with ExitStack() as taken:
            taken.enter_context(self._watching.one(who))
            await self._catalogue.open()
            headers = {**HEADERS, "X-Accel-Buffering": "no"}
            stream = StreamingResponse(self._stream(who, viewer), media_type="text/event-stream", headers=headers)
            return Held(stream, taken.pop_all())

    async def _stream(self, who: Identity, viewer: Viewer) -> AsyncIterator[bytes]:
        """The changes from now on. The first line says that none is missed any more."""
        listener = self._catalogue.listen(viewer)
        try:
            yield b": watching\n\n"
            while not (who.expired or self._leaving):
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        event = await listener.next()
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                if event is None:
                    return
                yield b"data: " + msgspec.json.encode(event) + b"\n\n"
        finally:
            listener.end()

    # --- one document -------------------------------------------------------------------------------------------------

    async def _show(self, request: Request, who: Identity, viewer: Viewer) -> ASGIApp:
        document_id = request.path_params["document_id"]
        if not _ID.fullmatch(document_id):
            return _not_found()
        meta = await self._documents.meta(document_id)
        if not may_read(meta.readers, viewer.principals):
            return _not_found()
        query = request.query_params
        wanted = Wanted(
            _number(query.get("passage")),
            _number(query.get("part")),
            "zh" if request.headers.get("accept-language", "").lower().startswith("zh") else "en",
            query.get("bare") == "1",
        )
        with ExitStack() as taken:
            taken.enter_context(self._reading.one(who))
            if query.get("original") == "1":
                answer = file_response(await self._documents.get(document_id))
            elif query.get("text") == "1":
                answer = await self._text(document_id, _number(query.get("start")), _number(query.get("end")))
            else:
                answer = await self._page(document_id, meta, wanted)
            return Held(answer, taken.pop_all())

    async def _page(self, document_id: str, meta: DocumentMeta, wanted: Wanted) -> Response:
        async with self._rendering:
            view = await self._documents.view(document_id)
            if view is not None:
                return await asyncio.to_thread(document_response, document_id, meta, view, wanted)
            original = await self._documents.get(document_id)
            return await asyncio.to_thread(original_response, original)

    async def _text(self, document_id: str, start: int | None, end: int | None) -> Response:
        """A piece of the text that passages were cut from, by the offsets of a source, for programs."""
        async with self._rendering:  # a view may be large
            view = await self._documents.view(document_id)
        if view is None:
            return _not_found()
        headers = {**SAFE_HEADERS, "Content-Security-Policy": "default-src 'none'; sandbox"}
        return PlainTextResponse(view.text[start or 0 : end][:MOST_TEXT_CHARS], headers=headers)

    async def _remove(self, request: Request, _: Identity, viewer: Viewer) -> Response:
        name = request.path_params["document_id"]
        if not _ID.fullmatch(name):
            return _not_found()
        await self._catalogue.open()
        found = self._catalogue.find(name, viewer)
        record = await self._files.get(found.owner, found.file) if found is not None else None
        if record is None or not viewer.may_remove(record):
            return _not_found()
        await self._files.remove(record)
        return json_answer({"file": record.file, "state": "removing"}, 202)


def _sharing_refused(reader: str, viewer: Viewer) -> str:
    if not viewer.may_share:
        return f"Your documents are for yourself; only members of BATON_SHARE_GROUPS may let {reader[:80]!r} read them."
    return f"You may let everybody, users and your own groups read; {reader[:80]!r} is none of these."


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 10 else None


def _not_found() -> Response:
    return error_answer(404, "not_found", "There is no such document.")
