"""The requests of this gateway: accepting, attaching, resuming, cancelling, watching those whose client has left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from baton_proto import codec, subjects
from baton_proto.language import guess_language
from baton_proto.messages import (
    Accepted,
    CancelOrder,
    LogFrame,
    Query,
    Resume,
    Sampling,
    WorkItem,
)
from baton_proto.sequencer import Replaced
from services.common import metrics, tracing
from services.common.bus import Bus, Full, Unconfirmed
from services.common.clock import now_ms
from services.common.config import GatewaySettings
from services.common.endings import end_log
from services.common.errors import ServiceError, no_worker
from services.common.log import Position, publish_again, push_ref, read_tail, start_log
from services.common.presence import Presence

from .auth import Identity
from .follower import Follower
from .observer import Observer

log = logging.getLogger(__name__)

ACCEPT_TIMEOUT_S = 6.0
Show = Callable[[LogFrame], None]


def _nobody(_: LogFrame) -> None:
    """Where frames go after their client has left."""


class Requests:
    """All requests that this gateway follows."""

    def __init__(self, bus: Bus, presence: Presence, settings: GatewaySettings) -> None:
        self._bus = bus
        self._presence = presence
        self._settings = settings
        self._followers: set[Follower] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, query: Query, request_id: str, who: Identity, show: Show) -> Follower:
        """Make a query a request and follow it; a request id that is known already is attached to from its start.

        Raises:
            ServiceError: it could not become a request; nothing of it remains.
        """
        observer = Observer()
        at = self._bus.address(subjects.request_key(who.owner, request_id))
        await self._require_worker(subjects.RETRIEVE, at)
        item = self._work_item(query, who, request_id, at)
        accepted = Accepted(conversation_id=item.conversation_id or "")

        follower = Follower(self._bus, self._presence, at, request_id, show, observer=observer)
        follower.deadline_ms = item.deadline_ms
        try:
            with _bus_troubles():
                async with asyncio.timeout(ACCEPT_TIMEOUT_S):
                    await follower.listen()
                    if not await self._create(accepted, item):
                        follower.attach()
                        await publish_again(self._bus, at, await self._existing(at, request_id))
        except BaseException:
            await follower.close()
            raise
        self._follow(follower)
        return follower

    async def resume(self, message: Resume, who: Identity, show: Show) -> Follower:
        """Follow a request that runs or ran, from after `after_seq`.

        Raises:
            ServiceError: `not_found` (also for somebody else's), or `bad_message` for a place beyond the log's end.
        """
        at = self._bus.address(subjects.request_key(who.owner, message.request_id))
        with _bus_troubles():
            tail = await self._existing(at, message.request_id)
            if message.after_seq > tail.final.seq:
                raise ServiceError(
                    "bad_message", f"after_seq is {message.after_seq}; the last frame so far is {tail.final.seq}."
                )
            next_seq = message.after_seq + 1
            follower = Follower(self._bus, self._presence, at, message.request_id, show, next_seq=next_seq)
            follower.attach()
            if tail.ended and message.after_seq == tail.final.seq:
                follower.over.set()
                return follower
            await publish_again(self._bus, at, tail)
            await follower.listen()
        self._follow(follower)
        return follower

    async def cancel(self, request_id: str, who: Identity) -> None:
        """Cancel a request, wherever it runs. Harmless when it has ended.

        Raises:
            ServiceError: `not_found` (also for somebody else's), or NATS does not answer.
        """
        at = self._bus.address(subjects.request_key(who.owner, request_id))
        metrics.CANCELS.inc()
        with _bus_troubles():
            follower = next((one for one in self._followers if one.at == at and not one.ended), None)
            # One that is followed here exists and runs; that saves a look at the log while somebody waits.
            if follower is None and (await self._existing(at, request_id)).ended:
                return
            await self._order_cancel(at)
            if follower is None:
                # Nobody follows it here; someone must still see to it that the log ends.
                follower = Follower(self._bus, self._presence, at, request_id, _nobody)
                follower.attach()
                await follower.listen()
                self._follow(follower)
                follower.release()
        follower.cancel()

    async def _existing(self, at: subjects.LogAddress, request_id: str) -> Position:
        """Where the log of a request stands; somebody else's is at another address, so it does not exist either."""
        tail = await read_tail(self._bus, at)
        if tail is None:
            raise ServiceError("not_found", f"There is no request {request_id!r}.")
        return tail

    def leave(self, follower: Follower, on_disconnect: str) -> None:
        """The client of a request is gone. It goes on, and is watched to its end, unless its client chose otherwise."""
        follower.show = _nobody
        if follower.ended:
            return
        if on_disconnect == "cancel":
            self._spawn(self._cancel_abandoned(follower))
        elif follower.deadline_ms is None:
            follower.over.set()  # somebody else accepted it and watches it

    def tick(self) -> None:
        """Once a second: let each request do what time demands, forget those that have ended."""
        for follower in list(self._followers):
            follower.tick(self._settings.no_worker_s)
            if follower.ended:
                self._followers.discard(follower)
                self._spawn(follower.close())
        metrics.RUNNING.set(len(self._followers))

    async def close(self) -> None:
        for follower in list(self._followers):
            await follower.close()
        for task in list(self._tasks):
            task.cancel()

    def _follow(self, follower: Follower) -> None:
        self._followers.add(follower)
        metrics.RUNNING.set(len(self._followers))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _order_cancel(self, at: subjects.LogAddress) -> None:
        order = CancelOrder(key=at.key, requested_ms=now_ms())
        await self._bus.store(subjects.cancel_subject(at.key), codec.encode(order))

    async def _cancel_abandoned(self, follower: Follower) -> None:
        try:
            await self._order_cancel(follower.at)
        except (Unconfirmed, Full) as error:
            log.warning("an abandoned request could not be cancelled: %s", error)
        follower.cancel()

    async def _require_worker(self, stage: str, at: subjects.LogAddress) -> None:
        """Refuse a new query that nobody would take; one that is known already needs no worker to be shown."""
        if not self._presence.settled or self._presence.live(stage):
            return
        with _bus_troubles():
            if await read_tail(self._bus, at) is None:
                raise no_worker(stage)

    def _work_item(self, query: Query, who: Identity, request_id: str, at: subjects.LogAddress) -> WorkItem:
        now = now_ms()
        with tracing.span("baton.request") as traceparent:
            return WorkItem(
                stage=subjects.RETRIEVE,
                key=at.key,
                shard=at.shard,
                request_id=request_id,
                owner=who.owner,
                claims=dict(who.claims),
                query=query.query,
                language=query.language or guess_language(query.query, self._settings.language),
                conversation_id=query.conversation_id or f"conv_{secrets.token_hex(8)}",
                received_ms=now,
                queued_ms=now,
                deadline_ms=now + (query.deadline_ms or self._settings.deadline_ms),
                top_k=query.top_k or self._settings.top_k,
                filters=query.filters,
                sampling=Sampling(seed=query.seed, temperature=query.temperature, max_tokens=query.max_tokens),
                cache=query.cache,
                traceparent=traceparent,
            )

    async def _create(self, accepted: Accepted, item: WorkItem) -> bool:
        """Create the log and queue the work. False: the log is there already.

        Raises:
            ServiceError, Unconfirmed
        """
        at = subjects.LogAddress(item.shard, item.key)
        try:
            ref = await start_log(self._bus, item, accepted)
        except Replaced:
            return False
        except Full:
            raise _overloaded() from None
        try:
            await push_ref(self._bus, ref)
        except Full:
            await end_log(self._bus, at, item.request_id, _overloaded().frame())
        # Where NATS did not answer (a new leader is being elected, say), the client is told to send its query again:
        # that finds the log as it stands and queues the work once more.
        return True


@contextlib.contextmanager
def _bus_troubles() -> Iterator[None]:
    """NATS away, full, or its log unreadable, as a client is told of it."""
    try:
        yield
    except (Unconfirmed, Full, TimeoutError, codec.WireError) as error:
        log.warning("the bus: %s", error or type(error).__name__)
        message = "The message bus does not answer; try again."
        raise ServiceError("overloaded", message, retryable=True, retry_after_ms=2_000) from None


def _overloaded() -> ServiceError:
    message = "Too much work is waiting; try again later."
    return ServiceError("overloaded", message, retryable=True, retry_after_ms=3_000)
