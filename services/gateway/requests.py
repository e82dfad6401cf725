"""The requests of this gateway: accepting, attaching, resuming, cancelling, watching those whose client has left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Coroutine, Iterator
from typing import Any

from baton_proto import codec, subjects
from baton_proto.language import guess_language
from baton_proto.messages import (
    Accepted,
    Query,
    Resume,
    RunningTurn,
    Sampling,
    StoredAnswer,
    WorkItem,
    WorkRef,
)
from baton_proto.sequencer import Replaced
from services.common import metrics
from services.common.bus import Bus, Full, Unconfirmed
from services.common.cancelling import order_cancel
from services.common.claims import Claim
from services.common.clock import now_ms
from services.common.config import GatewaySettings
from services.common.endings import end_log, stored_answer
from services.common.errors import ServiceError
from services.common.log import Position, publish_again, queue_ref, read_tail, start_log
from services.common.presence import Presence
from services.common.shares import chosen

from .admission import Admission
from .auth import Identity
from .entrance import Entrance
from .feeder import Feeder
from .follower import NOBODY, Follower
from .leaving import Leaving
from .observer import Observer
from .reader import Show

log = logging.getLogger(__name__)

ACCEPT_TIMEOUT_S = 6.0
LOOK_AGAIN_S = (0.1, 0.4)
"""A cancel may overtake its query on its way through another connection or gateway."""


class Requests:
    """All requests that this gateway follows."""

    def __init__(self, bus: Bus, presence: Presence, settings: GatewaySettings) -> None:
        self._bus = bus
        self._presence = presence
        self._settings = settings
        self._followers: set[Follower] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._admission = Admission(bus, presence, settings)
        self._entrance = Entrance(bus, self._admission, self._spawn)
        self.feeder = Feeder(bus, presence, self._admission.load)
        self._leaving = Leaving(bus, settings.disconnect_grace_s, self._cancel_abandoned)

    async def listen(self) -> None:
        """Tell other gateways what is followed here. Raises Unconfirmed without a connection."""
        await self._leaving.listen()

    async def accept(self, query: Query, request_id: str, who: Identity, show: Show) -> Follower:
        """Make a query a request and follow it; a request id that is known already is attached to from its start.

        Raises:
            ServiceError: it could not become a request; nothing of it remains.
        """
        observer = Observer(request_id)
        with observer.span.current():
            return await self._accept(query, request_id, who, show, observer)

    async def _accept(self, query: Query, request_id: str, who: Identity, show: Show, observer: Observer) -> Follower:
        at = self._bus.address(subjects.request_key(who.owner, request_id))
        item = self._work_item(query, who, request_id, at, observer.span.traceparent)
        if self._settings.variants:
            observer.tries(item.variant)
        accepted = Accepted(conversation_id=item.conversation_id or "", variant=item.variant or None)

        follower = Follower(self._bus, self._presence, at, request_id, show, observer=observer)
        follower.deadline_ms, follower.on_disconnect = item.deadline_ms, item.on_disconnect
        self._admission.enter(who.lane, follower)
        try:
            with _bus_troubles():
                async with asyncio.timeout(ACCEPT_TIMEOUT_S):
                    await follower.listen()
                    if not await self._create(accepted, item, query, who):
                        self._admission.leave(who.lane, follower)
                        follower.attach()
                        await publish_again(self._bus, at, await self._existing(at, request_id))
        except BaseException:
            await follower.close()
            raise
        self._follow(follower)
        return follower

    async def kept(self, request_id: str, who: Identity) -> StoredAnswer | None:
        """What is kept of a request whose log has expired; None where there is a log, or neither.

        Raises:
            ServiceError: NATS does not answer.
        """
        at = self._bus.address(subjects.request_key(who.owner, request_id))
        with _bus_troubles():
            stored = await stored_answer(self._bus, at.key)
            return None if stored is None or await read_tail(self._bus, at) is not None else stored

    async def resume(self, message: Resume, who: Identity, show: Show) -> Follower | StoredAnswer:
        """Follow a request that runs or ran, from after `after_seq`; where its log has expired, what is kept of it.

        Raises:
            ServiceError: `not_found` (also for somebody else's), or `bad_message` for a place beyond the log's end.
        """
        at = self._bus.address(subjects.request_key(who.owner, message.request_id))
        with _bus_troubles():
            tail = await read_tail(self._bus, at)
            if tail is None:
                return await self._stored(at, message.request_id)
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
            if not tail.ended:
                await publish_again(self._bus, at, tail)
                await follower.listen()
        self._follow(follower)
        return follower

    async def cancel(self, request_id: str, who: Identity) -> None:
        """Cancel a request, wherever it runs. Harmless when it has ended, also when its log has expired since.

        Raises:
            ServiceError: `not_found` (also for somebody else's), or NATS does not answer.
        """
        at = self._bus.address(subjects.request_key(who.owner, request_id))
        metrics.CANCELS.inc()
        with _bus_troubles():
            follower = next((one for one in self._followers if one.at == at and not one.ended), None)
            # One that is followed here exists and runs; that saves a look at the log while somebody waits.
            if follower is None and await self._has_ended(at, request_id):
                return
            await self._stop(at, request_id, follower)

    async def stop(self, one: RunningTurn) -> None:
        """Cancel a request of a conversation, wherever it runs or waits, and see to it that its log ends.

        Raises:
            Unconfirmed, Full
        """
        metrics.CANCELS.inc()
        at = self._bus.address(one.key)
        follower = next((other for other in self._followers if other.at == at and not other.ended), None)
        await self._stop(at, one.request_id, follower)

    async def _stop(self, at: subjects.LogAddress, request_id: str, follower: Follower | None) -> None:
        await order_cancel(self._bus, at.key)
        if follower is None:
            # Nobody follows it here; someone must still see to it that the log ends.
            follower = Follower(self._bus, self._presence, at, request_id, NOBODY)
            follower.attach()
            await follower.listen()
            self._follow(follower)
            follower.release()
        follower.cancel()

    async def _existing(self, at: subjects.LogAddress, request_id: str) -> Position:
        """Where the log of a request stands; somebody else's is at another address, so it does not exist either."""
        tail = await read_tail(self._bus, at)
        if tail is None:
            raise _not_found(request_id)
        return tail

    async def _has_ended(self, at: subjects.LogAddress, request_id: str) -> bool:
        """Whether a request has ended, perhaps so long ago that its log has expired; its log may be about to be
        created. Raises ServiceError `not_found`, Unconfirmed."""
        for pause in (*LOOK_AGAIN_S, None):
            tail = await read_tail(self._bus, at)
            if tail is not None:
                return tail.ended
            if pause is not None:
                await asyncio.sleep(pause)
        await self._stored(at, request_id)
        return True

    async def _stored(self, at: subjects.LogAddress, request_id: str) -> StoredAnswer:
        """What is kept of a request without a log."""
        stored = await stored_answer(self._bus, at.key)
        if stored is None:
            raise _not_found(request_id)
        return stored

    def leave(self, follower: Follower, *, wished: bool) -> None:
        """A follower's client is gone; `wished`: by its own choice. The request is watched to its end (see Leaving)."""
        self._leaving.left(follower, wished=wished)

    def replace(self, earlier: Follower) -> None:
        """The client follows this request by a newer follower."""
        self._leaving.forget(earlier)
        earlier.hide()
        if not earlier.observed:
            earlier.over.set()  # nobody needs it any more: `tick` closes it

    def tick(self) -> None:
        """Once a second: let each request do what time demands, forget those that have ended."""
        for follower in list(self._followers):
            follower.tick(self._settings.no_worker_s)
            if follower.ended:
                self._leaving.forget(follower)
                self._followers.discard(follower)
                self._spawn(follower.close())
        self._admission.forget_ended()
        self._leaving.tick()
        metrics.RUNNING.set(len(self._followers))

    async def close(self) -> None:
        self._leaving.close()
        for follower in list(self._followers):
            await follower.close()
        for task in list(self._tasks):
            task.cancel()

    def _follow(self, follower: Follower) -> None:
        self._followers.add(follower)
        if follower.watched:
            self._leaving.joined(follower)
        metrics.RUNNING.set(len(self._followers))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _cancel_abandoned(self, follower: Follower) -> None:
        try:
            await order_cancel(self._bus, follower.at.key)
        except (Unconfirmed, Full) as error:
            log.warning("an abandoned request could not be cancelled: %s", error)
        follower.cancel()

    def _work_item(
        self, query: Query, who: Identity, request_id: str, at: subjects.LogAddress, traceparent: str
    ) -> WorkItem:
        now = now_ms()
        conversation_id = query.conversation_id or f"conv_{secrets.token_hex(8)}"
        variant, varied = self._variant(who.owner, conversation_id)
        return WorkItem(
            stage=subjects.RETRIEVE,
            key=at.key,
            shard=at.shard,
            request_id=request_id,
            owner=who.owner,
            claims=dict(who.claims),
            query=query.query,
            language=query.language or guess_language(query.query, self._settings.language),
            conversation_id=conversation_id,
            received_ms=now,
            queued_ms=now,
            deadline_ms=now + (query.deadline_ms or self._settings.deadline_ms),
            top_k=query.top_k or self._settings.top_k,
            filters=query.filters,
            sampling=sampling_of(query),
            cache=query.cache,
            traceparent=traceparent,
            on_disconnect=query.on_disconnect,
            variant=variant,
            varied=varied,
        )

    def _variant(self, owner: str, conversation_id: str) -> tuple[str, list[str]]:
        """The variant that a request tries, and the stages at which it has workers now; where it has none the request
        is served as every other."""
        variant = chosen(self._settings.variants, owner, conversation_id)
        varied = [
            stage
            for stage in subjects.VARIED_STAGES
            if variant and self._presence.live(subjects.queue_name(stage, variant))
        ]
        return (variant, varied) if varied else ("", [])

    async def _create(self, accepted: Accepted, item: WorkItem, query: Query, who: Identity) -> bool:
        """Create the log and queue the work. False: the log is there already; then it is let in whatever runs.

        Raises:
            ServiceError, Unconfirmed
        """
        at = subjects.LogAddress(item.shard, item.key)
        try:
            claimed = await self._entrance.enter(item, query, who)
        except ServiceError:
            if await read_tail(self._bus, at) is None:
                raise
            return False
        ref: WorkRef | None = None
        try:
            if (ref := await self._start(accepted, claimed)) is None:
                return False
            await asyncio.gather(self._queue(claimed.item, ref), *map(self._interrupt, claimed.interrupts))
        except Full:
            raise self._admission.overloaded() from None
        finally:
            self._admission.load.settle(stored=ref is not None)
        return True

    async def _start(self, accepted: Accepted, claimed: Claim) -> WorkRef | None:
        """Create the log. None: it is there already.

        Raises:
            Full, Unconfirmed
        """
        try:
            return await start_log(self._bus, claimed.item, accepted)
        except Replaced:
            self._entrance.was_known(claimed)
            return None
        except Full:
            self._entrance.refused(claimed)
            raise
        except BaseException:
            self._entrance.failed(claimed)
            raise

    async def _interrupt(self, one: RunningTurn) -> None:
        """Cancel what a request of the same conversation interrupts. It waits for that to end in any case."""
        try:
            await self.stop(one)
        except (Unconfirmed, Full) as error:
            log.warning("a request could not be interrupted: %s", error)

    async def _queue(self, item: WorkItem, ref: WorkRef) -> None:
        """To the workers, or where it waits for its user's turn. The log is there: if there is no room after all, it
        says so itself, on whichever replica it is read.

        Raises:
            Unconfirmed: NATS did not answer (a new leader is being elected, say). The client is told to send its query
                again, which finds the log as it stands and queues the work once more.
        """
        try:
            await queue_ref(self._bus, ref, item.lane)
        except Full:
            at = subjects.LogAddress(item.shard, item.key)
            await end_log(self._bus, at, item.request_id, self._admission.overloaded().frame())
        if item.lane is not None:
            self.feeder.wake()


@contextlib.contextmanager
def _bus_troubles() -> Iterator[None]:
    """NATS away, full, or its log unreadable, as a client is told of it."""
    try:
        yield
    except (Unconfirmed, Full, TimeoutError, codec.WireError) as error:
        log.warning("the bus: %s", error or type(error).__name__)
        message = "The message bus does not answer; try again."
        raise ServiceError("overloaded", message, retryable=True, retry_after_ms=2_000) from None


def _not_found(request_id: str) -> ServiceError:
    return ServiceError("not_found", f"There is no request {request_id!r}.")


def sampling_of(query: Query) -> Sampling:
    """All of a query's sampling, whatever fields there are."""
    return Sampling(**{name: getattr(query, name) for name in Sampling.__struct_fields__})
