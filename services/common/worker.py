"""The worker around a handler: it pulls work, keeps it renewed, and drains in order (see holding.py for one item).

A service gives a `Handler` (see job.py) and knows nothing of NATS, leases or logs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence

from nats.aio.msg import Msg

from baton_proto import codec, subjects
from baton_proto.messages import (
    MAX_HELD_ITEMS,
    Announcement,
    DeadWork,
    Error,
    HeldItem,
    Holdings,
    ToolSpec,
    WorkRef,
)

from . import metrics, streams, tracing
from .bus import Bus, Full, Unconfirmed, end_tasks, quietly
from .clock import now_ms
from .config import WorkerSettings
from .endings import end_log
from .holding import hold
from .job import Handler
from .logs import request_context
from .presence import announce
from .queue import Lease, Puller
from .taking import Taken, note_return, returned, take

log = logging.getLogger(__name__)

WAIT_S = (0.05, 0.1, 0.2, 0.5)
"""Pauses between the deliveries of an item that waits for another request; the last one goes on."""


class Worker:
    """Serves one stage until `stop`; with a `variant` only the requests that try it."""

    def __init__(
        self,
        bus: Bus,
        stage: str,
        handler: Handler,
        settings: WorkerSettings,
        tools: Callable[[], Sequence[ToolSpec]] = tuple,
        variant: str = "",
    ) -> None:
        self._bus = bus
        self._stage = stage
        self._queue = subjects.queue_name(stage, variant)
        _, self._variant = subjects.parse_queue(self._queue)  # none where the stage has no variants
        self._handler = handler
        self._settings = settings
        self._tools = tools
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: dict[int, HeldItem] = {}
        self._giving_back = asyncio.Event()
        self.draining = False
        for counter in (metrics.REDELIVERED, metrics.FAILOVERS):
            metrics.begin(counter, self._stage)
        consumer = subjects.work_consumer(self._queue)
        self._puller = Puller(bus, subjects.WORK_STREAM, consumer, self._free, self._take, self._make_consumer)

    @property
    def running(self) -> int:
        return len(self._tasks)

    async def run(self, stop: asyncio.Event, drain_s: float) -> None:
        """Serve until `stop` is set, then drain: take nothing more, finish within `drain_s`, give back the rest."""
        await self._make_consumer()
        inventory = await self._bus.subscribe(subjects.INVENTORY, self._on_inventory)
        background = [
            asyncio.create_task(announce(self._bus, self.announcement), name="announce"),
            asyncio.create_task(self._puller.run(), name="pull"),
        ]
        stopping = asyncio.create_task(stop.wait(), name="stop")
        log.info("serving %s as %s", self._queue, self._bus.name)
        try:
            done, _ = await asyncio.wait([*background, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()  # neither returns by itself: this raises what went wrong
        finally:
            stopping.cancel()
            background[1].cancel()
            await self._drain(drain_s)
            await quietly(inventory.unsubscribe())
            await end_tasks(*background, stopping)

    async def _make_consumer(self) -> None:
        await streams.ensure_consumer(self._bus, self._queue, self._settings.ack_wait_s, self._settings.concurrency)

    def announcement(self) -> Announcement:
        return Announcement(
            worker=self._bus.name,
            stage=self._stage,
            variant=self._variant,
            slots=self._settings.concurrency,
            running=self.running,
            draining=self.draining,
            tools=list(self._tools()),
        )

    async def _drain(self, drain_s: float) -> None:
        await self._puller.stop()
        self.draining = True
        await self._bus.publish(subjects.presence_subject(self._queue), codec.encode(self.announcement()))
        if self._tasks:
            log.info("draining %d running items, %g s at most", self.running, drain_s)
            await asyncio.wait(self._tasks, timeout=drain_s)
        self._giving_back.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    def _free(self) -> int:
        return 0 if self.draining else self._settings.concurrency - self.running

    async def _on_inventory(self, message: Msg) -> None:
        held = sorted(self._held.values(), key=lambda item: item.since_ms)
        holdings = Holdings(worker=self._bus.name, stage=self._stage, total=len(held), items=held[:MAX_HELD_ITEMS])
        await self._bus.publish(message.reply, codec.encode(holdings))

    def _take(self, message: Msg, since: float) -> None:
        task = asyncio.create_task(self._serve(message, since))
        self._tasks.add(task)
        metrics.WORK_RUNNING.set(self.running)
        task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        metrics.WORK_RUNNING.set(self.running)
        self._puller.wake()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a work item broke the worker's own code", exc_info=error)

    async def _serve(self, message: Msg, since: float) -> None:
        """One delivery, from taking it to settling it."""
        lease = Lease(self._bus, message, self._settings.ack_wait_s, since)
        if not lease.held:
            log.warning("an item came too late: it belongs to somebody else by now")
            metrics.WORK.labels(self._stage, "late").inc()
            return
        renewing = asyncio.create_task(lease.renew_forever())
        try:
            outcome = await self._deliver(message, lease)
        except (Unconfirmed, Full) as error:
            # Not settled: the queue delivers it again.
            log.warning("NATS did not store it: %s", error)
            outcome = "unconfirmed"
        finally:
            lease.stop()
            renewing.cancel()
        metrics.WORK.labels(self._stage, outcome).inc()

    async def _deliver(self, message: Msg, lease: Lease) -> str:
        try:
            ref = codec.decode(message.data, WorkRef)
            at = self._bus.address(ref.key)
        except (codec.WireError, ValueError) as error:
            log.error("unreadable work on %s dropped: %s", message.subject, error)
            await lease.acknowledge()
            return "unreadable"
        try:
            taken = await self._taken(ref, lease)
        except codec.WireError as error:
            log.error("the log %s is unreadable: %s", at.key, error)
            await lease.acknowledge()
            return "unreadable"
        if taken is not None and taken.waits:
            return await self._let_wait(ref, lease)
        if lease.deliveries > 1 and not (taken is not None and taken.waited):
            metrics.REDELIVERED.labels(self._stage).inc()
        if taken is None:
            await lease.acknowledge()
            return "dropped"
        with request_context(taken.item.request_id):
            lost = await self._lost(ref, lease)
            # A log that moved just now has a holder who lives: this delivery is a copy, or NATS lost its leader.
            dead = now_ms() - taken.moved_ms > self._settings.ack_wait_s * 500
            if lost >= self._settings.max_deliveries and dead:
                return await self._set_aside(ref, taken, lease, lost)
            if lost > 0:
                metrics.FAILOVERS.labels(self._stage).inc()
            number, started = id(lease), time.monotonic()
            self._held[number] = HeldItem(
                key=ref.key,
                request_id=taken.item.request_id,
                seq=ref.seq,
                since_ms=now_ms(),
                deliveries=lease.deliveries,
            )
            try:
                return await hold(self._bus, self._stage, self._handler, ref, taken, lease, self._giving_back)
            finally:
                del self._held[number]
                held_s = time.monotonic() - started
                metrics.WORK_SECONDS.labels(self._stage).observe(held_s, tracing.exemplar(taken.item.traceparent))

    async def _taken(self, ref: WorkRef, lease: Lease) -> Taken | None:
        """`take`, again and again while NATS does not answer and the item is still ours: giving up would leave it to
        the next delivery, an ack wait later."""
        while True:
            try:
                return await take(self._bus, ref, self._variant)
            except Unconfirmed:
                if not lease.held:
                    raise
            await asyncio.sleep(random.uniform(0.1, 0.3))

    async def _lost(self, ref: WorkRef, lease: Lease) -> int:
        """How many holders of an item were lost before us. Raises Unconfirmed where that may be too many to go on."""
        lost = lease.deliveries - 1
        if lost <= 0:
            return 0
        try:
            return lost - await returned(self._bus, ref.key, ref.seq)
        except Unconfirmed:
            if lost >= self._settings.max_deliveries:
                raise
            return lost

    async def _let_wait(self, ref: WorkRef, lease: Lease) -> str:
        """Give back an item whose turn has not come; it is asked for again. So it waits without a slot and without
        anybody who must stay alive for it."""
        # All deliveries so far: while it waits, nobody works on it, so nobody can have died of it.
        with contextlib.suppress(Full):
            await note_return(self._bus, ref.key, ref.seq, lease.deliveries)
        await lease.give_back(WAIT_S[min(lease.deliveries, len(WAIT_S)) - 1])
        return "waiting"

    async def _set_aside(self, ref: WorkRef, taken: Taken, lease: Lease, deliveries: int) -> str:
        """An item that no worker has survived: end its log, keep it for a person to look at."""
        reason = f"no {self._stage} worker finished it in {deliveries} deliveries"
        dead = DeadWork(
            ref=ref,
            request_id=taken.item.request_id,
            reason=reason,
            deliveries=deliveries,
            at_ms=now_ms(),
            handoff=taken.handoff,
        )
        try:
            await self._bus.store(subjects.dead_subject(self._stage), codec.encode(dead))
        except Full:
            log.error("%s is full: this item is not kept", subjects.DEAD_STREAM)
        error = Error(code="poisoned", message="This request made every worker fail that tried it.", retryable=False)
        if not await end_log(self._bus, self._bus.address(ref.key), taken.item.request_id, error):
            return "dropped"  # somebody else was quicker; the next delivery finds out what is left to do
        log.error("set aside: %s", reason)
        await lease.acknowledge()
        return "poisoned"
