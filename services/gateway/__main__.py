"""`python -m services.gateway`: puts the gateway together and reads the environment."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Iterator

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from services.common import streams
from services.common.config import GatewaySettings, NatsSettings, ProcessSettings
from services.common.connection import connect
from services.common.presence import watch
from services.common.process import instance_name, read_settings, run, stop_on_signals

from .app import Gateway
from .auth import is_loopback
from .connection import GOING_AWAY, HEARTBEAT_MS, LEAVING
from .websocket import WebSocketProtocol

log = logging.getLogger(__name__)

BACKLOG = 2048


class _Server(uvicorn.Server):
    """uvicorn closes WebSockets the moment a signal comes; here signals are ours, and it is told when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def main() -> None:
    nats, settings, process = read_settings("gateway", NatsSettings, GatewaySettings)
    _check_authentication(settings)
    listening = _listen(settings)
    run(_serve(nats, settings, process, listening))


class _Door:
    """What the socket serves: the gateway as soon as it is there. Before, while it waits for NATS, it says that it
    lives and is not ready: whoever started it shall wait too, and not start it again and again."""

    def __init__(self) -> None:
        self.gateway: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.gateway is not None:
            await self.gateway(scope, receive, send)
        elif scope["type"] == "websocket":
            socket = WebSocket(scope, receive, send)
            await socket.accept()
            await socket.close(GOING_AWAY, LEAVING)
        else:
            lives = scope["path"] == "/healthz"
            answer = PlainTextResponse("ok\n" if lives else "not ready: waiting for NATS\n", 200 if lives else 503)
            await answer(scope, receive, send)


async def _serve(
    nats: NatsSettings, settings: GatewaySettings, process: ProcessSettings, listening: socket.socket
) -> None:
    stop = stop_on_signals()
    door = _Door()
    server = _Server(_uvicorn_config(door))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    stopping = asyncio.create_task(stop.wait())
    async with contextlib.AsyncExitStack() as stack:
        starting = asyncio.create_task(_open(stack, nats, settings))
        try:
            await asyncio.wait([starting, serving, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                return
            gateway = starting.result()
            door.gateway = gateway.application()
            log.info("listening on http://%s:%d", settings.host, listening.getsockname()[1])
            await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                await gateway.drain(process.drain_s)
        finally:
            server.should_exit = True
            await serving


async def _open(stack: contextlib.AsyncExitStack, nats: NatsSettings, settings: GatewaySettings) -> Gateway:
    bus = await stack.enter_async_context(connect(nats, instance_name("gateway")))
    await stack.enter_async_context(streams.kept(bus, settings.requests_per_user))
    presence = await stack.enter_async_context(watch(bus))
    gateway = Gateway(bus, presence, settings)
    await stack.enter_async_context(gateway.running())
    return gateway


def _uvicorn_config(application: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        ws=WebSocketProtocol,
        ws_max_size=10_000_000,
        ws_ping_interval=HEARTBEAT_MS / 1000,
        ws_ping_timeout=HEARTBEAT_MS / 1000,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        log_level="warning",  # otherwise two lines for each connection
        access_log=False,
        timeout_graceful_shutdown=2,
        server_header=False,
    )


def _listen(settings: GatewaySettings) -> socket.socket:
    """The listening socket, or a clear error: before anything else is started."""
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listening = socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        print(
            f"gateway: cannot listen on {settings.host} port {settings.port}: {error.strerror}. "
            "Stop what is using it, or choose another one with BATON_GATEWAY_PORT.",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    # asyncio does this only for sockets that it made itself. Without it Nagle's algorithm and delayed acknowledgements
    # hold small frames back for 40 ms. Accepted connections inherit it.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _check_authentication(settings: GatewaySettings) -> None:
    if settings.jwt_secret or settings.jwt_jwks:
        return
    if not is_loopback(settings.host) and settings.auth != "off":
        print(
            f"gateway: without authentication it listens on loopback only, not on {settings.host}. Set "
            "BATON_JWT_SECRET or BATON_JWT_JWKS, or allow everybody in with BATON_AUTH=off.",
            file=sys.stderr,
        )
        raise SystemExit(2)
    log.warning("NO AUTHENTICATION: everybody who reaches this address may ask. Set BATON_JWT_SECRET or _JWKS.")


if __name__ == "__main__":
    main()
