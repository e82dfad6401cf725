"""Documents of the scripted gateway: the test says when an upload is taken, what becomes of it, and who hears of it."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from baton_proto.subjects import file_key

File = dict[str, Any]


class Shelf:
    """`/documents` as proto/README.md, 6.6, has it. Where it is not `open`, the gateway keeps no documents."""

    def __init__(self) -> None:
        self.open = False
        self.files: dict[str, File] = {}
        self.uploads: list[tuple[str, bytes]] = []
        """Name and content of each file that was sent."""
        self.refusals: list[int] = []
        """Statuses that the next uploads are answered with."""
        self.takes = asyncio.Event()
        self.takes.set()
        self.answers = asyncio.Event()
        """Set, who has sent a file is told that it was taken; all who watch hear of it in any case."""
        self.answers.set()
        self.lists = asyncio.Event()
        """Set, lists arrive that were asked for when `listed` was at `held_from` already."""
        self.held_from = 1_000
        self.listed = 0
        self.watchers: set[asyncio.Queue[File | None]] = set()
        self._clock = itertools.count(1)

    def routes(self) -> list[Route]:
        return [
            Route("/documents", self._list, methods=["GET"]),
            Route("/documents", self._upload, methods=["POST"]),
            Route("/documents/events", self._events, methods=["GET"]),
            Route("/documents/{id}", self._remove, methods=["DELETE"]),
        ]

    def put(self, name: str, state: str = "ready", **fields: Any) -> File:
        """A file as it is now; all who watch hear of it."""
        id = file_key("", name)
        file = {"file": id, "name": name, "state": state, "bytes": 1, "readers": [], "mine": True, **fields}
        file["updated_ms"] = next(self._clock)
        self.files[id] = file
        self.tell(file)
        return file

    def remove(self, name: str) -> None:
        file = next(file for file in self.files.values() if file["name"] == name)
        del self.files[file["file"]]
        self.tell({"file": file["file"], "state": "removed"})

    def tell(self, event: File) -> None:
        for watcher in self.watchers:
            watcher.put_nowait(event)

    def hang_up(self) -> None:
        """End all streams of events."""
        for watcher in self.watchers:
            watcher.put_nowait(None)

    async def _list(self, _: Request) -> Response:
        if not self.open:
            return Response(status_code=404)
        files = list(self.files.values())
        self.listed += 1
        if self.listed > self.held_from:
            await self.lists.wait()
        return JSONResponse({"files": files, "truncated": False, "may_upload": True, "max_bytes": 1_000_000})

    async def _upload(self, request: Request) -> Response:
        async with request.form() as form:
            file = form["file"]
            assert isinstance(file, UploadFile)
            name, content = file.filename or "", await file.read()
        await self.takes.wait()
        if self.refusals:
            status = self.refusals.pop(0)
            return JSONResponse({"error": {"code": "bad_message", "message": f"Refused with {status}."}}, status)
        self.uploads.append((name, content))
        queued = self.put(name, "queued")
        await self.answers.wait()
        return JSONResponse({"files": [queued]}, 202)

    async def _events(self, _: Request) -> Response:
        return StreamingResponse(self._changes(), media_type="text/event-stream")

    async def _changes(self) -> AsyncIterator[bytes]:
        watcher: asyncio.Queue[File | None] = asyncio.Queue()
        self.watchers.add(watcher)
        try:
            yield b": watching\n\n"
            while (event := await watcher.get()) is not None:
                yield f"data: {json.dumps(event)}\n\n".encode()
        finally:
            self.watchers.discard(watcher)

    async def _remove(self, request: Request) -> Response:
        file = self.files.get(request.path_params["id"])
        if file is None:
            return JSONResponse({"error": {"code": "not_found", "message": "There is no such document."}}, 404)
        self.put(file["name"], "removing")
        return JSONResponse({"file": file["file"], "state": "removing"}, 202)
