"""The gateway's routes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from services.common import metrics
from services.common.bus import Bus, end_tasks
from services.common.config import GatewaySettings
from services.common.presence import Presence
from services.common.process import package_version

from .auth import Authenticator, origin_allowed
from .connection import BAD_ORIGIN, CLOSE_CODES, GOING_AWAY, LEAVING, TOO_MANY, Connection
from .conversations import Conversations
from .documents import DocumentRoutes
from .gauges import Gauges
from .mover import Mover
from .observer import begin_series
from .requests import Requests

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
SUBPROTOCOLS = ("baton.v1.json", "baton.v1.msgpack")
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "frame-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Gateway:
    """What the routes share: connections, requests, readiness."""

    def __init__(self, bus: Bus, presence: Presence, settings: GatewaySettings) -> None:
        self._bus = bus
        self._presence = presence
        self._settings = settings
        self._authenticator = Authenticator(settings)
        self._documents = DocumentRoutes(bus, self._authenticator, settings)
        self._connections: set[Connection] = set()
        self.requests = Requests(bus, presence, settings)
        self._conversations = Conversations(bus, self.requests, self._authenticator, settings)
        self.draining = False
        begin_series(settings.variants)
        metrics.begin(metrics.CLOSED, *map(str, CLOSE_CODES))

    def application(self) -> Starlette:
        routes = [
            Route("/", self._page),
            Route("/healthz", self._healthz),
            Route("/readyz", self._readyz),
            Route("/metrics", self._metrics),
            *self._documents.routes(),
            *self._conversations.routes(),
            WebSocketRoute("/ws", self._ws),
            Mount("/static", _Static(directory=STATIC, check_dir=False)),
        ]
        return Starlette(routes=routes)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answers other gateways, moves waiting requests on, and runs the clock that time-outs, absent workers and
        silent logs are measured by."""
        await self.requests.listen()
        background = [
            asyncio.create_task(self._tick(), name="tick"),
            asyncio.create_task(self.requests.feeder.run(), name="feed"),
            asyncio.create_task(Gauges(self._bus, self._presence).run(), name="gauges"),
            asyncio.create_task(Mover(self._bus, self._presence).run(), name="move"),
        ]
        try:
            yield
        finally:
            await end_tasks(*background)
            await self._documents.leave()
            await self.requests.close()

    async def drain(self, drain_s: float) -> None:
        """Not ready any more; idle connections go at once, the others when their answers are through or time is up."""
        self.draining = True
        await self._documents.leave()
        log.info("draining %d connections, %g s at most", len(self._connections), drain_s)
        await self._until_gone(drain_s, idle_only=True)
        await self._until_gone(3.0, idle_only=False)

    async def _until_gone(self, limit_s: float, *, idle_only: bool) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._connections:
                    for connection in self._connections:
                        connection.drain()
                        if not idle_only:
                            connection.close(GOING_AWAY, LEAVING)
                    await asyncio.sleep(0.05)

    async def _tick(self) -> None:
        pause = min(1.0, self._settings.idle_s / 4)
        while True:
            await asyncio.sleep(pause)
            try:
                self.requests.tick()
                for connection in list(self._connections):
                    connection.tick()
                metrics.SLOW.set(sum(connection.behind for connection in self._connections))
            except Exception:
                log.exception("the clock stumbled")

    async def _ws(self, socket: WebSocket) -> None:
        offered = socket.scope.get("subprotocols", [])
        chosen = next((name for name in offered if name in SUBPROTOCOLS), None)
        await socket.accept(subprotocol=chosen)
        socket.scope["subprotocol"] = chosen
        if not origin_allowed(socket.headers.get("origin"), socket.headers.get("host"), self._settings):
            metrics.CLOSED.labels(str(BAD_ORIGIN)).inc()
            origin = str(socket.headers.get("origin"))[:200]
            log.warning("a page of origin %r was kept out; BATON_ALLOWED_ORIGINS would let it in", origin)
            await socket.close(BAD_ORIGIN, "origin not allowed")
            return
        if self.draining:
            await socket.close(GOING_AWAY, LEAVING)
            return
        if len(self._connections) >= self._settings.max_connections:
            metrics.CLOSED.labels(str(TOO_MANY)).inc()
            await socket.close(TOO_MANY, "too many connections")
            return
        connection = Connection(socket, self.requests, self._authenticator, self._settings, self._bus.name)
        self._connections.add(connection)
        metrics.CONNECTIONS.inc()
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)
            metrics.CONNECTIONS.dec()

    async def _page(self, _: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers=PAGE_HEADERS)

    async def _healthz(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, _: Request) -> Response:
        ready = self._bus.connected and not self.draining
        state = {
            "ready": ready,
            "draining": self.draining,
            "nats": self._bus.connected,
            "workers": self._presence.counts(),
            "version": package_version(),
        }
        return JSONResponse(state, 200 if ready else 503)

    async def _metrics(self, request: Request) -> Response:
        content, content_type = metrics.exposition(request.headers.get("accept", ""))
        return Response(content, headers={"content-type": content_type})


class _Static(StaticFiles):
    """Static files under the page's security headers."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers.update(PAGE_HEADERS)
        return response
