"""Documents over HTTP: bring them in, watch them, see them, remove them; each as far as a token allows."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from baton_proto import codec
from baton_proto.messages import FileRecord
from baton_proto.readers import checked_readers, may_read
from services.common.bus import Bus, Full, Unconfirmed
from services.common.config import GatewaySettings
from services.common.documents import DocumentMeta, Documents
from services.common.files import Files

from .auth import Authenticator, Identity, Unauthorized, bearer, request_allowed
from .catalogue import Catalogue, Viewer, shown
from .document_page import Wanted, document_response
from .originals import SAFE_HEADERS, file_response, original_response
from .uploads import BadUpload, Upload, is_archive, uploaded

log = logging.getLogger(__name__)

MOST_LISTED = 1_000
MAX_LISTENERS = 2_000
UPLOADS_AT_ONCE = 32
UPLOADS_AT_ONCE_OF_ONE = 4
STORED_AT_ONCE = 2
"""Files that are held in memory, on their way into the object store."""
PAGES_AT_ONCE = 2
MOST_TEXT_CHARS = 100_000
HEARTBEAT_S = 15.0
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_ID = re.compile(r"[0-9a-f]{32}")
_CODES = {400: "bad_message", 408: "deadline", 413: "too_large"}

Answer = Callable[[Request, Identity, Viewer], Awaitable[Response]]


class DocumentRoutes:
    """The routes of `/documents`."""

    def __init__(self, bus: Bus, authenticator: Authenticator, settings: GatewaySettings) -> None:
        self._authenticator = authenticator
        self._settings = settings
        self._files = Files(bus)
        self._documents = Documents(bus)
        self._catalogue = Catalogue(self._files)
        self._uploading: Counter[str] = Counter()
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

    def _guarded(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        """For those who may, and with every failure told in the same form."""

        async def respond(request: Request) -> Response:
            if not self._allowed(request):
                return _error(403, "forbidden", "Pages of this origin may not ask; BATON_ALLOWED_ORIGINS lets them.")
            try:
                who = await self._authenticator.identify(bearer(request.headers.get("authorization")))
            except Unauthorized as error:
                return _error(401, "unauthorized", str(error), {"WWW-Authenticate": "Bearer"})
            try:
                return await answer(request, who, Viewer(who, self._settings))
            except KeyError:
                return _not_found()
            except BadUpload as error:
                # What is still on its way of a form that was refused is not waited for.
                return _error(error.status, _CODES[error.status], str(error), {"Connection": "close"})
            except Full as error:
                log.warning("no further files are taken: %s", error)
                return _error(503, "overloaded", "So many files wait that no more can be taken.", {"Retry-After": "9"})
            except (Unconfirmed, TimeoutError, codec.WireError) as error:
                log.warning("the bus: %s", error or type(error).__name__)
                return _error(503, "overloaded", "The document store does not answer; try again.", {"Retry-After": "2"})

        return respond

    def _allowed(self, request: Request) -> bool:
        headers = request.headers
        if not request_allowed(headers, self._settings, protected=self._authenticator.required):
            return False
        # A browser names its origin with whatever changes something; one that hides it is not asked for by our page.
        hidden = headers.get("origin") is None and headers.get("sec-fetch-site", "same-origin") != "same-origin"
        return request.method in ("GET", "HEAD") or not hidden

    # --- bringing in --------------------------------------------------------------------------------------------------

    async def _upload(self, request: Request, who: Identity, viewer: Viewer) -> Response:
        if not self._settings.uploads:
            return _error(403, "forbidden", "Documents are not brought in over this address (BATON_UPLOADS is off).")
        if not viewer.may_upload:
            return _error(403, "forbidden", "Only members of certain groups may bring in documents here.")
        lane = who.lane
        if self._uploading.total() >= UPLOADS_AT_ONCE or self._uploading[lane] >= UPLOADS_AT_ONCE_OF_ONE:
            return _error(429, "rate_limited", "Too many uploads at once; try again soon.", {"Retry-After": "2"})
        self._uploading[lane] += 1
        try:
            async with uploaded(request, self._settings.upload_max_bytes) as upload:
                return await self._take(upload, viewer)
        finally:
            self._uploading -= Counter({lane: 1})

    async def _take(self, upload: Upload, viewer: Viewer) -> Response:
        asked = viewer.own_readers if upload.readers is None else upload.readers
        try:
            readers = checked_readers(asked)
        except ValueError as error:
            raise BadUpload(str(error)) from None
        if (refused := next((one for one in readers if not viewer.may_name(one)), None)) is not None:
            return _error(403, "forbidden", _sharing_refused(refused, viewer))
        taken: list[FileRecord] = []
        for name, file in upload.files:
            async with self._storing:
                record = await self._add(name, await file.read(), readers, upload.metadata, viewer)
            taken.append(record)
            self._catalogue.added(record)
        return _json({"files": [shown(record, viewer) for record in taken]}, 202)

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
        return _json(
            {
                "files": [shown(record, viewer) for record in records],
                "truncated": truncated,
                "may_upload": viewer.may_upload,
                "may_share": viewer.may_share,
                "max_bytes": self._settings.upload_max_bytes,
            }
        )

    async def _events(self, _: Request, who: Identity, viewer: Viewer) -> Response:
        if self._leaving:
            return _error(503, "overloaded", "This replica is going away; try again.", {"Retry-After": "1"})
        if self._catalogue.listeners >= MAX_LISTENERS:
            return _error(429, "rate_limited", "Too many are watching already.", {"Retry-After": "30"})
        await self._catalogue.open()
        headers = {**HEADERS, "X-Accel-Buffering": "no"}
        return StreamingResponse(self._stream(who, viewer), media_type="text/event-stream", headers=headers)

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

    async def _show(self, request: Request, _: Identity, viewer: Viewer) -> Response:
        document_id = request.path_params["document_id"]
        if not _ID.fullmatch(document_id):
            return _not_found()
        meta = await self._documents.meta(document_id)
        if not may_read(meta.readers, viewer.principals):
            return _not_found()
        query = request.query_params
        if query.get("original") == "1":
            return file_response(await self._documents.get(document_id))
        if query.get("text") == "1":
            return await self._text(document_id, _number(query.get("start")), _number(query.get("end")))
        wanted = Wanted(
            _number(query.get("passage")),
            _number(query.get("part")),
            "zh" if request.headers.get("accept-language", "").lower().startswith("zh") else "en",
            query.get("bare") == "1",
        )
        return await self._page(document_id, meta, wanted)

    async def _page(self, document_id: str, meta: DocumentMeta, wanted: Wanted) -> Response:
        view = await self._documents.view(document_id)
        if view is None:
            return original_response(await self._documents.get(document_id))
        async with self._rendering:
            return await asyncio.to_thread(document_response, document_id, meta, view, wanted)

    async def _text(self, document_id: str, start: int | None, end: int | None) -> Response:
        """A piece of the text that passages were cut from, by the offsets of a source, for programs."""
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
        return _json({"file": record.file, "state": "removing"}, 202)


def _sharing_refused(reader: str, viewer: Viewer) -> str:
    if not viewer.may_share:
        return f"Your documents are for yourself; only members of BATON_SHARE_GROUPS may let {reader[:80]!r} read them."
    return f"You may let everybody, users and your own groups read; {reader[:80]!r} is none of these."


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 10 else None


def _not_found() -> Response:
    return _error(404, "not_found", "There is no such document.")


def _json(content: dict[str, Any], status: int = 200) -> Response:
    return JSONResponse(content, status, HEADERS)


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status, {**HEADERS, **(headers or {})})
