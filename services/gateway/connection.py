"""One WebSocket connection: its messages in, its frames out, its time-outs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable
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
    StoredAnswer,
)
from services.common import metrics
from services.common.config import GatewaySettings
from services.common.errors import ServiceError
from services.common.logs import request_context

from .admission import spread
from .auth import Authenticator, Identity, Unauthorized, bearer
from .follower import Follower
from .outbox import Outbox
from .requests import Requests
from .websocket import MORE

log = logging.getLogger(__name__)

HEARTBEAT_MS = 20_000
MESSAGES_PER_SECOND = 200.0
MESSAGE_BURST = 1_000.0

LEAVING = "this replica is going away"
WRITE_BYTES = 16 * 1024
"""Messages that wait are written to the connection together, until they are so large."""
HANDLE_S = 10.0
FLUSH_S = 1.5
CLOSE_S = 1.0
CLOSE_SLOW_S = 10.0
"""How long a close waits behind what a slow client has yet to read; after that it sees a broken connection instead."""

GOING_AWAY, UNAUTHORIZED, BAD_ORIGIN, IDLE, TOO_SLOW, TOO_MANY = CLOSE_CODES = 1012, 4001, 4003, 4008, 4009, 4029


class Close(Exception):
    """Ends the connection with a code of the protocol."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Shown:
    """One request as this connection's client sees it."""

    def __init__(self, request_id: str, outbox: Outbox) -> None:
        self._request_id = request_id
        self._outbox = outbox
        self._stopped = False

    def __call__(self, frame: LogFrame) -> None:
        metrics.FRAMES.inc()
        self._outbox.put(codec.client_map(self._request_id, frame))

    def in_turn(self, frame: LogFrame) -> Awaitable[None] | None:
        metrics.FRAMES.inc()
        return self._outbox.put_in_turn(codec.client_map(self._request_id, frame), lambda: not self._stopped)

    def stop(self) -> None:
        self._stopped = True


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
        self._running: dict[str, Follower] = {}
        self._handling: set[asyncio.Task[None]] = set()
        self._latest: dict[str, asyncio.Task[None]] = {}  # request id -> the message about it that is handled last
        self._accepting = 0
        self._who: Identity | None = None
        self._active = time.monotonic()
        self._allowance = MESSAGE_BURST
        self._allowed_at = time.monotonic()
        self._draining = False
        self._close: asyncio.Future[Close] = asyncio.get_running_loop().create_future()

    @property
    def busy(self) -> bool:
        """Whether a request runs or something waits to be sent."""
        answering = any(not one.ended for one in self._running.values())
        return answering or bool(self._handling) or not self._outbox.empty

    @property
    def behind(self) -> bool:
        """Whether its client is slow: what waits for it is joined."""
        return self._outbox.behind

    async def serve(self) -> None:
        """Until the client leaves or the connection is closed for a reason."""
        sending = asyncio.create_task(self._send())
        receiving = asyncio.create_task(self._receive())
        overrun = asyncio.create_task(self._outbox.overrun.wait())
        everything: set[asyncio.Future[Any]] = {sending, receiving, overrun, self._close}
        close: Close | None = None
        try:
            done, _ = await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
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
            await self._handled()
            self._outbox.close()
            for follower in self._running.values():
                # A connection that we have closed ourselves says nothing about what its client wants.
                self._requests.leave(follower, wished=close is None)

    def close(self, code: int, reason: str) -> None:
        if not self._close.done():
            self._close.set_result(Close(code, reason))

    def drain(self) -> None:
        """Begin nothing new; close at once if nothing runs. Called again and again until it has closed.

        A query or resume that comes now closes the connection unanswered: its client sends it again to another replica,
        and resumes there what ran here.
        """
        self._draining = True
        if not self.busy:
            self.close(GOING_AWAY, LEAVING)

    def tick(self) -> None:
        """Idle for too long, or a token that has expired."""
        self._running = {name: one for name, one in self._running.items() if not one.ended}
        if self._who is not None and self._who.expired:
            self.close(UNAUTHORIZED, "the token has expired")
        if self.busy:
            self._active = time.monotonic()
        elif time.monotonic() - self._active > self._settings.idle_s:
            self.close(IDLE, "idle")

    # --- out ----------------------------------------------------------------------------------------------------------

    async def _send(self) -> None:
        size = 0
        while True:
            data = await self._outbox.take()
            size += len(data)
            # What waits behind it goes with it; `take` gives that without waiting, so nobody waits for it either.
            more = not self._outbox.empty and size < WRITE_BYTES
            if not more:
                size = 0
            content = {"bytes": data} if self._binary else {"text": data.decode()}
            await self._socket.send({"type": "websocket.send", MORE: more, **content})

    def _put(self, message: msgspec.Struct, **fields: Any) -> None:
        self._outbox.put({**msgspec.to_builtins(message), **fields})

    def _error(self, code: ErrorCode, message: str, request_id: str | None, **fields: Any) -> None:
        """An error that is no frame of a log."""
        metrics.REFUSED.labels(code).inc()
        named = {"request_id": request_id} if request_id else {}
        self._put(Error(code=code, message=message, retryable=fields.pop("retryable", False), **fields), **named)

    async def _finish(self, close: Close | None) -> None:
        """Answer what is being handled and send what waits, for a moment, then close."""
        if close is None:
            return
        metrics.CLOSED.labels(str(close.code)).inc()
        if close.code == TOO_SLOW:
            self._outbox.close()
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    if self._handling:
                        await asyncio.wait(self._handling)
                    await self._outbox.drained()
        if self._socket.application_state is not WebSocketState.DISCONNECTED:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
                async with asyncio.timeout(CLOSE_SLOW_S if close.code == TOO_SLOW else CLOSE_S):
                    await self._socket.close(close.code, close.reason)

    async def _handled(self) -> None:
        """Wait for what is being handled: a query that is cut off might leave a log that nobody watches."""
        if self._handling:
            await asyncio.wait(self._handling, timeout=HANDLE_S)
        for task in list(self._handling):
            task.cancel()

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
        elif self._draining and not isinstance(parsed, Cancel):
            self.close(GOING_AWAY, LEAVING)
        elif not self._close.done():
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
            if query.request_id and (stored := await self._requests.kept(name, who)) is not None:
                self._put_stored(name, 0, stored)
                return
            with request_context(name):
                follower = await self._requests.accept(query, name, who, Shown(name, self._outbox))
        finally:
            self._accepting -= 1
        self._replace(name, follower)
        follower.release()

    async def _on_resume(self, message: Resume, who: Identity) -> None:
        self._require_room(message.request_id)
        name = message.request_id
        found = await self._requests.resume(message, who, Shown(name, self._outbox))
        if isinstance(found, StoredAnswer):
            self._put_stored(name, message.after_seq + 1, found)
            return
        self._replace(name, found)
        self._put(Resumed(request_id=name, recovered=True, next_seq=found.next_seq))
        metrics.RESUMES.labels("followed").inc()
        found.release()

    def _put_stored(self, name: str, next_seq: int, stored: StoredAnswer) -> None:
        """What is left of a request whose log has expired; where there is no answer, say that it is gone."""
        resumed = Resumed(request_id=name, recovered=False, next_seq=next_seq)
        if stored.answer is not None:
            resumed = msgspec.structs.replace(
                resumed, answer=stored.answer, sources=stored.sources, finish_reason=stored.finish_reason
            )
        self._put(resumed)
        metrics.RESUMES.labels("gone" if stored.answer is None else "kept").inc()
        if stored.answer is None:
            self._error("gone", "The answer to this question is no longer stored; ask it again.", name)

    def _require_room(self, request_id: str | None) -> None:
        running = sum(not one.ended for one in self._running.values()) + self._accepting
        if request_id not in self._running and running >= self._settings.requests_per_connection:
            raise ServiceError(
                "rate_limited",
                f"{running} requests run on this connection already; wait until one ends.",
                retryable=True,
                retry_after_ms=spread(1_000),
            )

    def _replace(self, name: str, follower: Follower) -> None:
        """The newest query or resume of a request on a socket takes the place of an earlier one."""
        earlier = self._running.get(name)
        self._running[name] = follower
        if earlier is not None:
            self._requests.replace(earlier)


def _why_ended(task: asyncio.Task[None]) -> Close | None:
    """The close that a finished task asks for; None when the client has left by itself."""
    error = task.exception()
    if isinstance(error, Close):
        return error
    if error is not None and not isinstance(error, WebSocketDisconnect | RuntimeError):
        log.error("a connection broke", exc_info=error)
        return Close(1011, "internal error")
    return None
