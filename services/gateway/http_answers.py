"""What the addresses over HTTP have in common: who may ask, how many at once, and errors told in one form."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from baton_proto import codec
from services.common.bus import Full, Unconfirmed
from services.common.config import GatewaySettings

from .auth import Authenticator, Identity, Unauthorized, bearer, request_allowed

log = logging.getLogger(__name__)

STALL_S = 60.0
"""How long what somebody sends, or is sent, may stand still."""
PIECE_BYTES = 64 * 1024
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

Answer = Callable[[Request, Identity], Awaitable[ASGIApp]]


def guarded(
    authenticator: Authenticator, settings: GatewaySettings, answer: Answer
) -> Callable[[Request], Awaitable[ASGIApp]]:
    """`answer`, for those who may ask; where the bus fails it is told."""

    async def respond(request: Request) -> ASGIApp:
        if not _allowed(request, settings, protected=authenticator.required):
            return error_answer(403, "forbidden", "Pages of this origin may not ask; BATON_ALLOWED_ORIGINS lets them.")
        try:
            who = await authenticator.identify(bearer(request.headers.get("authorization")))
        except Unauthorized as error:
            return error_answer(401, "unauthorized", str(error), {"WWW-Authenticate": "Bearer"})
        try:
            return await answer(request, who)
        except Crowded as error:
            return error_answer(429, "rate_limited", f"{error}; try again soon.", {"Retry-After": "2"})
        except (Unconfirmed, Full, TimeoutError, codec.WireError) as error:
            log.warning("the bus: %s", error or type(error).__name__)
            return error_answer(503, "overloaded", "The message bus does not answer; try again.", {"Retry-After": "2"})

    return respond


def _allowed(request: Request, settings: GatewaySettings, *, protected: bool) -> bool:
    headers = request.headers
    if not request_allowed(headers, settings, protected=protected):
        return False
    # A browser names its origin with whatever changes something; one that hides it is not asked for by our page.
    hidden = headers.get("origin") is None and headers.get("sec-fetch-site", "same-origin") != "same-origin"
    return request.method in ("GET", "HEAD") or not hidden


def json_answer(content: dict[str, Any], status: int = 200) -> Response:
    return JSONResponse(content, status, HEADERS)


def error_answer(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status, {**HEADERS, **(headers or {})})


class Crowded(Exception):
    """Too many do the same at once; the text says what."""


class Places:
    """For so many at once, of all and of one user; where nobody is known, each request is somebody else's."""

    def __init__(self, what: str, most: int, most_of_one: int) -> None:
        self._what = what
        self._most = most
        self._most_of_one = most_of_one
        self._taken: Counter[str] = Counter()

    @contextmanager
    def one(self, who: Identity) -> Iterator[None]:
        """Raises Crowded where there is no place."""
        if self._taken.total() >= self._most or self._taken[who.lane] >= self._most_of_one:
            raise Crowded(f"Too many {self._what} at once")
        self._taken[who.lane] += 1
        try:
            yield
        finally:
            self._taken -= Counter({who.lane: 1})


class Held:
    """An answer that keeps what it took until all of it is sent, and is broken off where nobody reads it."""

    def __init__(self, answer: ASGIApp, taken: ExitStack) -> None:
        self._answer = answer
        self._taken = taken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def patiently(message: Message) -> None:
            for piece in _pieces(message):
                async with asyncio.timeout(STALL_S):
                    await send(piece)

        with self._taken:
            try:
                await self._answer(scope, receive, patiently)
            except TimeoutError:
                log.info("an answer was broken off: nobody has read it for %g s", STALL_S)


def _pieces(message: Message) -> Iterator[Message]:
    """A message in several: what is sent at once is copied while it waits, and has one time to be read in."""
    body = memoryview(message.get("body", b""))
    if len(body) <= PIECE_BYTES:
        yield message
        return
    for start in range(0, len(body), PIECE_BYTES):
        end = start + PIECE_BYTES
        more = end < len(body) or message.get("more_body", False)
        yield {"type": message["type"], "body": bytes(body[start:end]), "more_body": more}
