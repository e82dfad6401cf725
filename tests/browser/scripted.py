"""A gateway that says what a test tells it to, for what a real one does rarely: drop in mid-answer, lose frames, lie.

It serves the real page under the gateway's policy, and real WebSockets; only the frames come from the test. It runs in
the test's own event loop, so a test reads as a dialogue: wait for a connection, receive, send, close.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from baton_proto.codec import client_map
from baton_proto.messages import (
    Accepted,
    AnswerChunk,
    AnswerReset,
    Citation,
    Done,
    Error,
    Frame,
    Source,
    Sources,
    Status,
    Timings,
    ToolCalled,
    ToolResult,
    Usage,
)
from tests.browser.scripted_shelf import Shelf

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "services" / "gateway" / "static"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
DOCUMENT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'"
WAIT_S = 30.0


class Connection:
    """One WebSocket, seen from the server."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.closed = asyncio.Event()
        self.answers_pings = True
        self.ping = asyncio.Event()

    async def send(self, *frames: dict[str, Any]) -> None:
        for frame in frames:
            await self.socket.send_json(frame)

    async def receive(self, kind: str | None = None) -> dict[str, Any]:
        """The next message that is no `ping`; with `kind`, it must be of that type."""
        message = await asyncio.wait_for(self.messages.get(), WAIT_S)
        assert kind is None or message.get("type") == kind, message
        return message

    async def close(self, code: int = 1011) -> None:
        await self.socket.close(code)

    async def serve(self) -> None:
        try:
            while True:
                message = await self.socket.receive_json()
                if message.get("type") == "ping":
                    self.ping.set()
                    if self.answers_pings:
                        await self.send({"type": "pong"})
                else:
                    self.messages.put_nowait(message)
        except (WebSocketDisconnect, RuntimeError):
            pass  # The other end, or the test, closed it.
        finally:
            self.closed.set()


class ScriptedGateway:
    def __init__(self) -> None:
        self.auth = "off"
        self.greets = True
        self.shelf = Shelf()
        self.documents: dict[str, str] = {}
        self.document_requests: list[dict[str, str]] = []
        self.conversations: dict[str, dict[str, Any]] = {}
        self.conversation_requests: list[tuple[str, str, str]] = []
        """Method, id (empty for the list) and `Authorization` of each request."""
        self.conversations_fail: int | None = None
        self.port = 0
        self._new: asyncio.Queue[Connection] = asyncio.Queue()
        self._open: set[Connection] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def connection(self) -> Connection:
        """The next connection that a client makes."""
        return await asyncio.wait_for(self._new.get(), WAIT_S)

    def has_new_connection(self) -> bool:
        return not self._new.empty()

    def hello(self) -> dict[str, Any]:
        limits = {
            "message_bytes": 10_000_000,
            "query_bytes": 32_768,
            "requests_per_connection": 64,
            "idle_seconds": 300,
        }
        return {
            "type": "hello",
            "protocol": "baton.v1",
            "heartbeat_ms": 20_000,
            "limits": limits,
            "auth": self.auth,
            "server": "scripted",
        }

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self._page),
                Route("/article", self._article),
                Route("/blank", lambda _: HTMLResponse("<!doctype html><title>blank</title>")),
                *self.shelf.routes(),
                Route("/documents/{name:path}", self._document),
                Route("/conversations", self._conversations),
                Route("/conversations/{id}", self._conversations, methods=["GET", "DELETE"]),
                WebSocketRoute("/ws", self._socket),
                Mount("/static", StaticFiles(directory=STATIC)),
            ]
        )

    async def _page(self, _: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers={"Content-Security-Policy": PAGE_POLICY})

    async def _article(self, _: Request) -> Response:
        return FileResponse(Path(__file__).parent / "article_client.html")

    async def _document(self, request: Request) -> Response:
        name = request.path_params["name"]
        authorization = request.headers.get("Authorization", "")
        self.document_requests.append({"name": name, "authorization": authorization})
        if self.auth != "off" and not authorization:
            return Response(status_code=401)
        if name not in self.documents:
            return Response(status_code=404)
        return HTMLResponse(self.documents[name], headers={"Content-Security-Policy": DOCUMENT_POLICY})

    async def _conversations(self, request: Request) -> Response:
        id, authorization = request.path_params.get("id", ""), request.headers.get("Authorization", "")
        self.conversation_requests.append((request.method, id, authorization))
        status = self.conversations_fail or (404 if id and id not in self.conversations else 200)
        if self.auth != "off" and not authorization:
            status = 401
        if status != 200:
            code = {401: "unauthorized", 404: "not_found"}.get(status, "overloaded")
            return JSONResponse({"error": {"code": code, "message": f"Said with {status}."}}, status)
        if request.method == "DELETE":
            del self.conversations[id]
            return Response(status_code=204)
        if id:
            return JSONResponse(self.conversations[id])
        summaries = [
            {**each, "turns": len(each["turns"]), "running": len(each["running"])}
            for each in self.conversations.values()
        ]
        return JSONResponse({"conversations": sorted(summaries, key=lambda each: -each["updated_ms"])})

    async def _socket(self, websocket: WebSocket) -> None:
        await websocket.accept()
        connection = Connection(websocket)
        if self.greets:
            await connection.send(self.hello())
        self._open.add(connection)
        self._new.put_nowait(connection)
        await connection.serve()
        self._open.discard(connection)

    async def hang_up(self) -> None:
        self.shelf.hang_up()
        for connection in list(self._open):
            with suppress(RuntimeError):  # The test may have closed it, and the client not answered yet.
                await connection.close(1001)


@asynccontextmanager
async def scripted_gateway() -> AsyncIterator[ScriptedGateway]:
    gateway = ScriptedGateway()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    gateway.port = listener.getsockname()[1]
    config = uvicorn.Config(gateway.app(), log_level="error", ws="websockets-sansio", lifespan="off")
    config.timeout_graceful_shutdown = 1
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield gateway
    finally:
        server.should_exit = True
        await gateway.hang_up()
        await asyncio.wait_for(task, WAIT_S)


class Log:
    """Writes the frames of one request as workers would: numbered from 0, each later than the one before."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.frames: list[dict[str, Any]] = []
        self.text = ""
        self._clock = datetime(2026, 11, 22, 8, 0, 0, tzinfo=UTC)

    def __getitem__(self, seq: int | slice) -> Any:
        return self.frames[seq]

    def add(self, frame: Frame, *, after_ms: int = 10, **raw: Any) -> dict[str, Any]:
        """One more frame. `raw` replaces fields, for what no worker should ever write."""
        self._clock += timedelta(milliseconds=after_ms)
        fields = client_map(self.request_id, frame)
        fields |= {"seq": len(self.frames), "timestamp": self._clock.isoformat(timespec="milliseconds"), **raw}
        self.frames.append(fields)
        return fields

    def accepted(self, conversation_id: str = "conversation-1") -> dict[str, Any]:
        return self.add(Accepted(conversation_id=conversation_id))

    def status(self, stage: Any, content: str, **fields: Any) -> dict[str, Any]:
        return self.add(Status(stage=stage, content=content, **fields))

    def sources(self, *sources: Source) -> dict[str, Any]:
        return self.add(Sources(sources=list(sources)))

    def chunk(self, content: str, **raw: Any) -> dict[str, Any]:
        self.text += content
        return self.add(AnswerChunk(content=content), **raw)

    def chunks(self, text: str, size: int = 6) -> list[dict[str, Any]]:
        return [self.chunk(text[at : at + size]) for at in range(0, len(text), size)]

    def tool_call(self, name: str, arguments: dict[str, Any], call_id: str = "call-1") -> dict[str, Any]:
        return self.add(ToolCalled(call_id=call_id, name=name, arguments=arguments))

    def tool_result(
        self, content: str, *, ok: bool = True, call_id: str = "call-1", name: str = "tool"
    ) -> dict[str, Any]:
        return self.add(ToolResult(call_id=call_id, name=name, ok=ok, elapsed_ms=84, content=content), after_ms=84)

    def reset(self) -> dict[str, Any]:
        self.text = ""
        return self.add(AnswerReset())

    def citations(self, *cited: int) -> list[Citation]:
        """Where `[n]` stands in the text, in characters."""
        marks = re.finditer(r"\[(\d+)\]", self.text)
        found = [Citation(n=int(mark[1]), start=mark.start(), end=mark.end()) for mark in marks]
        return [citation for citation in found if citation.n in cited]

    def done(self, *cited: int, finish_reason: Any = "stop", **fields: Any) -> dict[str, Any]:
        timings = Timings(
            queue_ms=3,
            retrieval_ms=38,
            ttfb_ms=12,
            ttft_ms=164,
            generation_ms=910,
            tokens_per_second=52.4,
            tool_calls=0,
        )
        fields = {"usage": Usage(), **fields}
        citations = self.citations(*cited)
        return self.add(
            Done(finish_reason=finish_reason, cited=list(cited), citations=citations, timings=timings, **fields)
        )

    def error(
        self, code: Any, message: str, *, retryable: bool = False, retry_after_ms: int | None = None
    ) -> dict[str, Any]:
        return self.add(Error(code=code, message=message, retryable=retryable, retry_after_ms=retry_after_ms))


def source(n: int, title: str, snippet: str, **fields: Any) -> Source:
    document_id = fields.pop("document_id", f"document-{n}")
    return Source(
        n=n,
        id=f"{document_id}-{n}",
        document_id=document_id,
        title=title,
        url=f"/documents/{document_id}",
        snippet=snippet,
        score=1.0 / n,
        **fields,
    )
