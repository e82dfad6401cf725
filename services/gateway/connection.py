"""One WebSocket connection: its messages in, its frames out, its time-outs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from baton_proto import codec
from baton_proto.client import BadMessage, parse_client_message
from baton_proto.messages import (
    MAX_MESSAGE_BYTES,
    MAX_QUERY_BYTES,
    Auth,
    Cancel,
    Error,
    ErrorCode,
    Hello,
    Limits,
    LogFrame,
    Ping,
    Pong,
    Query,
    Resume,
    Resumed,
)
from services.common import metrics
from services.common.config import GatewaySettings
from services.common.errors import ServiceError
from services.common.logs import request_context

from .auth import Authenticator, Identity, Unauthorized, bearer
from .follower import Follower
from .outbox import Outbox
from .requests import Requests

log = logging.getLogger(__name__)

HEARTBEAT_MS = 20_000
MESSAGES_PER_SECOND = 200.0
MESSAGE_BURST = 1_000.0

GOING_AWAY, UNAUTHORIZED, BAD_ORIGIN, IDLE, TOO_SLOW, TOO_MANY = 1012, 4001, 4003, 4008, 4009, 4029


class Close(Exception):
    """Ends the connection with a code of the protocol."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(slots=True)
class _Running:
    follower: Follower
    on_disconnect: str


class Connection:
    """Serves one socket from its acceptance to its close. `tick` is called about once a second."""

    def __init__(
        self,
        socket: WebSocket,
        requests: Requests,
        authenticator: Authenticator,
        settings: GatewaySettings,
        server: str,
    ) -> None:
        self._socket = socket
        self._requests = requests
        self._authenticator = authenticator
        self._settings = settings
        self._server = server
        self._binary = socket.scope.get("subprotocol") == "baton.v1.msgpack"
        self._outbox = Outbox(binary=self._binary, limit=settings.send_buffer_bytes)
        self._running: dict[str, _Running] = {}
        self._handling: set[asyncio.Task[None]] = set()
        self._latest: dict[str, asyncio.Task[None]] = {}  # request id -> the message about it that is handled last
        self._accepting = 0
        self._who: Identity | None = None
        self._active = time.monotonic()
        self._allowance = MESSAGE_BURST
        self._allowed_at = time.monotonic()
        self._close: asyncio.Future[Close] = asyncio.get_running_loop().create_future()

    @property
    def busy(self) -> bool:
        """Whether a request runs or something waits to be sent."""
        answering = any(not one.follower.ended for one in self._running.values())
        return answering or bool(self._handling) or not self._outbox.empty

    async def serve(self) -> None:
        """Until the client leaves or the connection is closed for a reason."""
        sending = asyncio.create_task(self._send())
        receiving = asyncio.create_task(self._receive())
        overrun = asyncio.create_task(self._outbox.overrun.wait())
        everything: set[asyncio.Future[Any]] = {sending, receiving, overrun, self._close}
        try:
            done, _ = await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            close: Close | None
            if self._close in done:
                close = self._close.result()
            elif overrun in done:
                close = Close(TOO_SLOW, "too slow for its own stream")
            else:
                close = _why_ended(receiving if receiving in done else sending)
            await self._finish(close)
        finally:
            for task in (sending, receiving, overrun):
                task.cancel()
            await asyncio.gather(sending, receiving, overrun, return_exceptions=True)
            for task in list(self._handling):
                task.cancel()
            for running in self._running.values():
                self._requests.leave(running.follower, running.on_disconnect)

    def close(self, code: int, reason: str) -> None:
        if not self._close.done():
            self._close.set_result(Close(code, reason))

    def tick(self) -> None:
        """Idle for too long, or a token that has expired."""
        self._running = {name: one for name, one in self._running.items() if not one.follower.ended}
        if self._who is not None and self._who.expired:
            self.close(UNAUTHORIZED, "the token has expired")
        if self.busy:
            self._active = time.monotonic()
        elif time.monotonic() - self._active > self._settings.idle_s:
            self.close(IDLE, "idle")

    # --- out ----------------------------------------------------------------------------------------------------------

    async def _send(self) -> None:
        while True:
            data = await self._outbox.take()
            if self._binary:
                await self._socket.send_bytes(data)
            else:
                await self._socket.send_text(data.decode())

    def _put(self, message: msgspec.Struct, **fields: Any) -> None:
        self._outbox.put({**msgspec.to_builtins(message), **fields})

    def _error(self, code: ErrorCode, message: str, request_id: str | None, **fields: Any) -> None:
        """An error that is no frame of a log."""
        metrics.REFUSED.labels(code).inc()
        named = {"request_id": request_id} if request_id else {}
        self._put(Error(code=code, message=message, retryable=fields.pop("retryable", False), **fields), **named)

    def _show(self, request_id: str, frame: LogFrame) -> None:
        metrics.FRAMES.inc()
        shown = codec.client_map(request_id, frame)
        self._outbox.put(shown)

    async def _finish(self, close: Close | None) -> None:
        """Send what waits, for a moment, then close."""
        if close is None:
            return
        metrics.CLOSED.labels(str(close.code)).inc()
        if close.code != TOO_SLOW:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._outbox.drained()
        if self._socket.application_state is not WebSocketState.DISCONNECTED:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
                async with asyncio.timeout(2.0):
                    await self._socket.close(close.code, close.reason)

    # --- in -----------------------------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        await self._greet()
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1005))
            self._check_rate()
            await self._on_data(message)

    async def _greet(self) -> None:
        """Say hello; where authentication is on and no header carries a token, wait for one."""
        token = bearer(self._socket.headers.get("authorization"))
        auth: Any = "off"
        if self._authenticator.required:
            auth = "ok" if token else "required"
        if token or not self._authenticator.required:
            await self._identify(token)
        self._put(
            Hello(
                protocol="baton.v1",
                heartbeat_ms=HEARTBEAT_MS,
                limits=Limits(
                    message_bytes=MAX_MESSAGE_BYTES,
                    query_bytes=MAX_QUERY_BYTES,
                    requests_per_connection=self._settings.requests_per_connection,
                    idle_seconds=round(self._settings.idle_s),
                ),
                auth=auth,
                server=self._server,
            )
        )
        if self._who is None:
            await self._await_token()

    async def _await_token(self) -> None:
        try:
            async with asyncio.timeout(self._settings.auth_timeout_s):
                message = await self._socket.receive()
        except TimeoutError:
            raise Close(UNAUTHORIZED, "no token came in time") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        try:
            parsed = parse_client_message(self._data(message), self._binary)
        except BadMessage as error:
            self._error(error.code, str(error), error.request_id)
            raise Close(UNAUTHORIZED, "the first message must be auth") from None
        if not isinstance(parsed, Auth):
            self._error("unauthorized", 'A token is required: send {"type": "auth", "token": …} first.', None)
            raise Close(UNAUTHORIZED, "the first message must be auth")
        await self._identify(parsed.token)

    async def _identify(self, token: str) -> None:
        try:
            who = await self._authenticator.identify(token)
        except Unauthorized as error:
            self._error("unauthorized", str(error), None)
            raise Close(UNAUTHORIZED, str(error)[:100]) from None
        if self._who is not None and self._who.owner != who.owner:
            raise Close(UNAUTHORIZED, "the token belongs to somebody else")
        self._who = who

    def _check_rate(self) -> None:
        now = time.monotonic()
        self._allowance = min(MESSAGE_BURST, self._allowance + (now - self._allowed_at) * MESSAGES_PER_SECOND)
        self._allowed_at = now
        self._allowance -= 1
        if self._allowance < 0:
            raise Close(TOO_MANY, "too many messages")

    def _data(self, message: Any) -> bytes:
        """The bytes of a WebSocket message; text and binary are both fine for JSON."""
        text: str | None = message.get("text")
        if text is not None:
            if self._binary:
                raise BadMessage("bad_message", "This connection speaks msgpack: send binary messages, not text.")
            return text.encode("utf-8", "surrogatepass")
        data: bytes = message["bytes"]
        return data

    async def _on_data(self, message: Any) -> None:
        try:
            parsed = parse_client_message(self._data(message), self._binary)
        except BadMessage as error:
            self._error(error.code, str(error), error.request_id)
            return
        if isinstance(parsed, Ping):
            self._put(Pong())
            return
        # Pings do not count: an open page that nobody uses sends them for ever.
        self._active = time.monotonic()
        if isinstance(parsed, Auth):
            await self._identify(parsed.token)
        else:
            await self._begin(parsed)

    async def _begin(self, message: Query | Resume | Cancel) -> None:
        """Handle a message beside the others, but after an earlier one about the same request."""
        if len(self._handling) >= 2 * self._settings.requests_per_connection:
            await asyncio.wait(self._handling, return_when=asyncio.FIRST_COMPLETED)
        name = message.request_id or ""
        task = asyncio.create_task(self._handle(message, self._latest.get(name) if name else None))
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)
        if name:
            self._latest[name] = task
            task.add_done_callback(lambda ended: self._latest.pop(name) if self._latest.get(name) is ended else None)

    async def _handle(self, message: Query | Resume | Cancel, earlier: asyncio.Task[None] | None) -> None:
        assert self._who is not None
        if earlier is not None:
            await asyncio.wait([earlier])
        try:
            with request_context(message.request_id or ""):
                if isinstance(message, Query):
                    await self._on_query(message, self._who)
                elif isinstance(message, Resume):
                    await self._on_resume(message, self._who)
                else:
                    await self._requests.cancel(message.request_id, self._who)
        except ServiceError as error:
            extra = {} if error.retry_after_ms is None else {"retry_after_ms": error.retry_after_ms}
            self._error(error.code, error.message, message.request_id, retryable=error.retryable, **extra)
        except Exception:
            log.exception("a message could not be handled")
            self._error("internal", "Something went wrong inside the gateway.", message.request_id, retryable=True)

    async def _on_query(self, query: Query, who: Identity) -> None:
        self._require_room(query.request_id)
        name = query.request_id or f"req_{secrets.token_hex(12)}"
        self._accepting += 1
        try:
            follower = await self._requests.accept(query, name, who, lambda frame: self._show(name, frame))
        finally:
            self._accepting -= 1
        self._replace(follower.request_id, _Running(follower, query.on_disconnect or "continue"))
        follower.release()

    async def _on_resume(self, message: Resume, who: Identity) -> None:
        self._require_room(message.request_id)
        name = message.request_id
        follower = await self._requests.resume(message, who, lambda frame: self._show(name, frame))
        self._replace(name, _Running(follower, "continue"))
        self._put(Resumed(request_id=name, recovered=True, next_seq=follower.next_seq))
        follower.release()

    def _require_room(self, request_id: str | None) -> None:
        running = sum(not one.follower.ended for one in self._running.values()) + self._accepting
        if request_id not in self._running and running >= self._settings.requests_per_connection:
            raise ServiceError(
                "rate_limited",
                f"{running} requests run on this connection already; wait until one ends.",
                retryable=True,
                retry_after_ms=1_000,
            )

    def _replace(self, name: str, running: _Running) -> None:
        """The newest query or resume of a request on a socket takes the place of an earlier one."""
        earlier = self._running.get(name)
        self._running[name] = running
        if earlier is not None:
            self._requests.leave(earlier.follower, "continue")


def _why_ended(task: asyncio.Task[None]) -> Close | None:
    """The close that a finished task asks for; None when the client has left by itself."""
    error = task.exception()
    if isinstance(error, Close):
        return error
    if error is not None and not isinstance(error, WebSocketDisconnect | RuntimeError):
        log.error("a connection broke", exc_info=error)
        return Close(1011, "internal error")
    return None
