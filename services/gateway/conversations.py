"""Conversations over HTTP: list, read, delete; each only for its owner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from baton_proto import codec, subjects
from baton_proto.messages import Conversation, RunningTurn
from services.common import conversations
from services.common.bus import Bus, Full, Refused, Unconfirmed
from services.common.claims import settled
from services.common.config import GatewaySettings
from services.common.log import read_log, read_tail

from .auth import Authenticator, Identity
from .http_answers import HEADERS, Answer, error_answer, guarded, json_answer
from .requests import Requests

log = logging.getLogger(__name__)

MOST_LISTED = 200
END_S = 4.0
"""How long a deletion waits for what it has cancelled. A request that takes longer is forgotten when it ends."""
LOOK_S = 0.1
AT_ONCE = 16


class Conversations:
    """The routes of `/conversations`."""

    def __init__(self, bus: Bus, requests: Requests, authenticator: Authenticator, settings: GatewaySettings) -> None:
        self._bus = bus
        self._requests = requests
        self._authenticator = authenticator
        self._settings = settings

    def routes(self) -> list[Route]:
        one = "/conversations/{conversation_id}"
        return [
            Route("/conversations", self._guarded(self._list)),
            Route(one, self._guarded(self._read), methods=["GET"]),
            Route(one, self._guarded(self._delete), methods=["DELETE"]),
        ]

    def _guarded(self, answer: Answer) -> Callable[[Request], Awaitable[ASGIApp]]:
        async def found(request: Request, who: Identity) -> ASGIApp:
            try:
                return await answer(request, who)
            except (KeyError, ValueError):  # an id that cannot be one is that of no conversation
                return error_answer(404, "not_found", "There is no such conversation.")

        return guarded(self._authenticator, self._settings, found)

    async def _list(self, _: Request, who: Identity) -> Response:
        found = await conversations.newest(self._bus, who.owner, MOST_LISTED)
        return json_answer({"conversations": [_summary(one) for one in found]})

    async def _read(self, request: Request, who: Identity) -> Response:
        conversation = await settled(self._bus, who.owner, request.path_params["conversation_id"])
        if conversation is None or _empty(conversation):
            raise KeyError
        return json_answer(_whole(conversation))

    async def _delete(self, request: Request, who: Identity) -> Response:
        """First what may fail and be asked for again; then the mark, behind which nothing comes back."""
        conversation_id = request.path_params["conversation_id"]
        at_once = asyncio.Semaphore(AT_ONCE)
        forgotten: set[str] = set()
        stopped: dict[str, RunningTurn] = {}
        for attempt in range(conversations.TRIES):
            found = await conversations.load(self._bus, who.owner, conversation_id)
            if found.conversation is None or _empty(found.conversation):
                raise KeyError
            keys = {subjects.request_key(who.owner, turn.request_id) for turn in found.conversation.turns}
            running = {one.key: one for one in found.conversation.running if one.key not in stopped}
            await asyncio.gather(
                *(self._forget(key, at_once) for key in keys - forgotten), *map(self._requests.stop, running.values())
            )
            forgotten |= keys
            stopped |= running
            try:
                await conversations.mark_deleted(self._bus, who.owner, conversation_id, found.revision)
            except Refused:
                await conversations.pause(attempt)
                continue
            await asyncio.gather(*(self._end(key, at_once) for key in stopped.keys() - forgotten))
            return Response(status_code=204, headers=HEADERS)
        raise conversations.busy()

    async def _forget(self, key: str, at_once: asyncio.Semaphore) -> None:
        at = self._bus.address(key)
        async with at_once:
            try:
                position = await read_log(self._bus, at)
            except codec.WireError:
                position = None
            await conversations.forget_request(self._bus, at, position.frames if position else ())

    async def _end(self, key: str, at_once: asyncio.Semaphore) -> None:
        """Wait until what was cancelled has ended, and forget it. Where that takes too long, whoever records its end
        sees that there is nothing to keep."""
        at = self._bus.address(key)
        try:
            async with asyncio.timeout(END_S):
                while True:
                    tail = await read_tail(self._bus, at)
                    if tail is None or tail.ended:
                        break
                    await asyncio.sleep(LOOK_S)
            await self._forget(key, at_once)
        except (TimeoutError, Unconfirmed, Full, codec.WireError) as error:
            log.warning("a request of a deleted conversation is forgotten later: %s", error or type(error).__name__)


def _summary(one: conversations.Listed) -> dict[str, Any]:
    return {
        "conversation_id": one.conversation_id,
        "title": one.title,
        "created_ms": one.created_ms,
        "updated_ms": one.updated_ms,
        "turns": len(one.turns),
        "running": len(one.running),
    }


def _whole(one: Conversation) -> dict[str, Any]:
    return {
        "conversation_id": one.conversation_id,
        "title": one.title,
        "created_ms": one.created_ms,
        "updated_ms": one.updated_ms,
        "dropped": one.dropped,
        "turns": msgspec.to_builtins(one.turns),
        "running": [running.request_id for running in one.running],
    }


def _empty(one: Conversation) -> bool:
    return not one.turns and not one.running
