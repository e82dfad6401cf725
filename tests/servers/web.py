"""A web server that misbehaves on demand, in a thread of the test: for tools that are HTTP requests."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.servers.processes import wait_until

ALL = ["GET", "POST", "PUT", "PATCH", "DELETE"]


class Web:
    """`seen` are the requests in order: method, raw target, headers, body."""

    def __init__(self) -> None:
        self.port = 0
        self.seen: list[dict[str, Any]] = []
        self.hits: Counter[str] = Counter()
        self.left = threading.Event()
        """Set when a client has gone before its answer was complete."""
        self.asked = threading.Event()
        self.sent_bytes = 0
        self.scheme = "http"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    async def note(self, request: Request) -> dict[str, Any]:
        target = request.scope["raw_path"].decode()
        if request.scope["query_string"]:
            target += "?" + request.scope["query_string"].decode()
        seen = {
            "method": request.method,
            "target": target,
            "headers": dict(request.headers),
            "body": (await request.body()).decode(),
        }
        self.seen.append(seen)
        self.hits[request.url.path] += 1
        self.asked.set()
        return seen

    async def echo(self, request: Request) -> Response:
        return JSONResponse(await self.note(request))

    async def redirect(self, request: Request) -> Response:
        """To `to`, with the status in the path."""
        await self.note(request)
        return Response(status_code=request.path_params["status"], headers={"location": request.query_params["to"]})

    async def status(self, request: Request) -> Response:
        await self.note(request)
        headers = {"retry-after": request.query_params["after"]} if "after" in request.query_params else {}
        return JSONResponse({"problem": "no such order"}, request.path_params["status"], headers)

    async def flaky(self, request: Request) -> Response:
        """Fails with `status` as often as the path says, and works then."""
        await self.note(request)
        if self.hits[request.url.path] <= request.path_params["times"]:
            return Response(status_code=int(request.query_params["status"]))
        return PlainTextResponse("worked")

    async def slow(self, request: Request) -> Response:
        await self.note(request)
        try:
            for _ in range(2_000):
                if await request.is_disconnected():
                    self.left.set()
                    break
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.left.set()
            raise
        return PlainTextResponse("late")

    async def drip(self, request: Request) -> Response:
        await self.note(request)

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(1_000):
                yield b"."
                await asyncio.sleep(0.02)

        return StreamingResponse(pieces(), media_type="text/plain")

    async def huge(self, request: Request) -> Response:
        """A gigabyte, for whoever wants to read it."""
        await self.note(request)

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(16_384):
                self.sent_bytes += 65_536
                yield b"x" * 65_536
                await asyncio.sleep(0)

        return StreamingResponse(pieces(), media_type="text/plain")

    async def bomb(self, request: Request) -> Response:
        await self.note(request)
        body = gzip.compress(b" " * 100_000_000, 9)
        return Response(body, media_type="application/json", headers={"content-encoding": "gzip"})

    async def packed(self, request: Request) -> Response:
        await self.note(request)
        body = gzip.compress(b'{"packed": true}')
        if request.path_params["how"] == "cut":
            body = body[:-6]
        encoding = {"brotli": "br"}.get(request.path_params["how"], "gzip")
        return Response(body, media_type="application/json", headers={"content-encoding": encoding})

    async def body(self, request: Request) -> Response:
        """Whatever was registered under the path's last part."""
        await self.note(request)
        content, media_type = BODIES[request.path_params["name"]]
        return Response(content, headers={"content-type": media_type} if media_type else {})

    async def page(self, request: Request) -> Response:
        await self.note(request)
        return HTMLResponse("<html><head><title>t</title></head><body><h1>Hours</h1><script>x()</script><p>9-17</p>")

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/redirect/{status:int}", self.redirect, methods=ALL),
                Route("/status/{status:int}", self.status, methods=ALL),
                Route("/flaky/{times:int}", self.flaky, methods=ALL),
                Route("/slow", self.slow, methods=ALL),
                Route("/drip", self.drip),
                Route("/huge", self.huge),
                Route("/bomb", self.bomb),
                Route("/packed/{how}", self.packed),
                Route("/body/{name}", self.body),
                Route("/page", self.page),
                Route("/{path:path}", self.echo, methods=ALL),
            ]
        )


BODIES: dict[str, tuple[bytes, str]] = {
    "orders": ('{"data": {"orders": [{"id": "A/1", "状态": "已发货"}], "a/b": 1.5}}'.encode(), "application/json"),
    "problem": (b'{"title": "x"}', "application/problem+json; charset=utf-8"),
    "text": ("你好".encode(), "text/plain; charset=utf-8"),
    "gbk": ("你好".encode("gbk"), "text/plain; charset=gbk"),
    "image": (b"\x89PNG\r\n", "image/png"),
    "no_type": (b"plain", ""),
    "binary": (b"\xff\x00\xfe", ""),
    "broken": (b'{"data": ', "application/json"),
    "deep": (b"[" * 100_000, "application/json"),
    "deep_page": (b"<div>" * 20_000 + b"x", "text/html"),
    "charset": (b"x", "text/plain; charset=no-such"),
    "empty": (b"", "application/json"),
}


@contextmanager
def web(certificate: Path | None = None) -> Iterator[Web]:
    """Args: certificate: a PEM file with key and certificate, for https."""
    one = Web()
    config = uvicorn.Config(
        one.app(),
        host="127.0.0.1",
        port=0,
        log_level="warning",
        lifespan="off",
        timeout_graceful_shutdown=1,
        ssl_certfile=certificate,
    )
    if certificate:
        one.scheme = "https"
        config.ssl_cert_reqs = ssl.CERT_NONE
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, "the web server is there")
        one.port = server.servers[0].sockets[0].getsockname()[1]
        yield one
    finally:
        server.should_exit = True
        thread.join(10)
