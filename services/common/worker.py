"""The worker around a handler: it takes work, renews it, enforces deadline and cancel, and settles what comes out.

A service gives a `Handler` (see job.py) and knows nothing of NATS, leases or logs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from nats.aio.msg import Msg

from baton_proto import codec, subjects
from baton_proto.messages import (
    Announcement,
    CancelOrder,
    DeadWork,
    Done,
    Error,
    LogFrame,
    ToolSpec,
    WorkItem,
    WorkRef,
)
from baton_proto.sequencer import Closed, Replaced, Sequencer

from . import metrics, tracing
from .bus import Bus, Full, Unconfirmed
from .config import WorkerSettings
from .errors import ServiceError
from .job import Handler
from .log import LogWriter, end_log, make_handoff, open_handoff, publish_again, push_ref, read_log, read_tail
from .logs import request_context
from .presence import announce
from .queue import Lease, Puller
from .streams import ensure_consumer

log = logging.getLogger(__name__)


class _LeaseLost(Exception):
    """The work item may belong to somebody else by now."""


class _Cancelled(Exception):
    """The user does not want the answer any more."""


class _GivenBack(Exception):
    """The worker is going away before the work is done."""


def now_ms() -> int:
    """Unix epoch, milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class HeldJob:
    """The `Job` that a handler sees (contract in job.py)."""

    bus: Bus
    item: WorkItem
    written: Sequence[LogFrame]
    writer: LogWriter
    handed_over: WorkRef | None = field(default=None)

    async def write(self, frame: LogFrame) -> None:
        await self.writer.write(frame)

    async def flush(self) -> None:
        await self.writer.flush()

    async def hand_over(self, frame: LogFrame, item: WorkItem) -> None:
        seq = self.writer.next_seq
        item = msgspec.structs.replace(item, queued_ms=now_ms())
        handoff = await make_handoff(self.bus, item, seq)
        await self.write(msgspec.structs.replace(frame, handoff=handoff))
        # Set before it is known to be stored: a cancel at this moment must not leave a hand-off that nobody published.
        self.handed_over = WorkRef(stage=item.stage, key=item.key, shard=item.shard, seq=seq)
        await self.writer.flush()

    async def finish(self, frame: Done | Error) -> None:
        await self.write(frame)
        await self.writer.flush()


class Worker:
    """Serves one stage of the work queue until `stop`."""

    def __init__(
        self, bus: Bus, stage: str, handler: Handler, settings: WorkerSettings, tools: Sequence[ToolSpec] = ()
    ) -> None:
        self._bus = bus
        self._stage = subjects.checked_stage(stage)
        self._handler = handler
        self._settings = settings
        self._tools = list(tools)
        self._tasks: set[asyncio.Task[None]] = set()
        self._giving_back = asyncio.Event()
        self.draining = False
        self._puller = Puller(bus, stage, self._free, self._take)

    @property
    def running(self) -> int:
        return len(self._tasks)

    async def run(self, stop: asyncio.Event, drain_s: float) -> None:
        """Serve until `stop` is set, then drain: take nothing more, finish within `drain_s`, give back the rest."""
        await ensure_consumer(self._bus, self._stage, self._settings.ack_wait_s, self._settings.concurrency)
        background = [
            asyncio.create_task(announce(self._bus, self.announcement), name="announce"),
            asyncio.create_task(self._puller.run(), name="pull"),
        ]
        stopping = asyncio.create_task(stop.wait(), name="stop")
        log.info("serving %s as %s", self._stage, self._bus.name)
        try:
            done, _ = await asyncio.wait([*background, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()  # neither returns by itself: this raises what went wrong
        finally:
            stopping.cancel()
            background[1].cancel()
            await self._drain(drain_s)
            background[0].cancel()
            await asyncio.gather(*background, stopping, return_exceptions=True)

    def announcement(self) -> Announcement:
        return Announcement(
            worker=self._bus.name,
            stage=self._stage,
            slots=self._settings.concurrency,
            running=self.running,
            draining=self.draining,
            tools=self._tools,
        )

    async def _drain(self, drain_s: float) -> None:
        await self._puller.stop()
        self.draining = True
        await self._bus.publish(subjects.presence_subject(self._stage), codec.encode(self.announcement()))
        if self._tasks:
            log.info("draining %d running items, %g s at most", self.running, drain_s)
            await asyncio.wait(self._tasks, timeout=drain_s)
        self._giving_back.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    def _free(self) -> int:
        return 0 if self.draining else self._settings.concurrency - self.running

    def _take(self, message: Msg) -> None:
        task = asyncio.create_task(self._serve(message))
        self._tasks.add(task)
        metrics.WORK_RUNNING.set(self.running)
        task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        metrics.WORK_RUNNING.set(self.running)
        self._puller.wake()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a work item broke the worker's own code", exc_info=error)

    async def _serve(self, message: Msg) -> None:
        """One delivery, from taking it to settling it."""
        started = time.monotonic()
        lease = Lease(self._bus, message, self._settings.ack_wait_s)
        renewing = asyncio.create_task(lease.renew_forever())
        try:
            outcome = await self._deliver(message, lease)
        except _LeaseLost:
            outcome = "replaced"
        except Unconfirmed as error:
            # Not settled: the queue delivers it again.
            log.warning("NATS did not answer: %s", error)
            outcome = "unconfirmed"
        finally:
            renewing.cancel()
        metrics.WORK.labels(self._stage, outcome).inc()
        metrics.WORK_SECONDS.labels(self._stage).observe(time.monotonic() - started)

    async def _deliver(self, message: Msg, lease: Lease) -> str:
        try:
            ref = codec.decode(message.data, WorkRef)
            at = self._bus.address(ref.key)
        except (codec.WireError, ValueError) as error:
            log.error("unreadable work on %s dropped: %s", message.subject, error)
            await lease.acknowledge()
            return "unreadable"
        if lease.deliveries > 1:
            metrics.REDELIVERED.labels(self._stage).inc()
        try:
            taken = await take(self._bus, ref)
        except codec.WireError as error:
            log.error("the log %s is unreadable: %s", at.key, error)
            await lease.acknowledge()
            return "unreadable"
        if taken is None:
            await lease.acknowledge()
            return "dropped"
        with request_context(taken.item.request_id):
            if lease.deliveries > self._settings.max_deliveries:
                return await self._set_aside(ref, taken, lease)
            return await self._hold(ref, taken, lease)

    async def _set_aside(self, ref: WorkRef, taken: Taken, lease: Lease) -> str:
        """An item that no worker has survived: end its log, keep it for a person to look at."""
        reason = f"no {self._stage} worker finished it in {lease.deliveries - 1} deliveries"
        dead = DeadWork(
            ref=ref,
            request_id=taken.item.request_id,
            reason=reason,
            deliveries=lease.deliveries - 1,
            at_ms=now_ms(),
        )
        try:
            await self._bus.store(subjects.dead_subject(self._stage), codec.encode(dead))
        except Full:
            log.error("%s is full: this item is not kept", subjects.DEAD_STREAM)
        error = Error(code="poisoned", message="This request made every worker fail that tried it.", retryable=False)
        await end_log(self._bus, self._bus.address(ref.key), taken.item.request_id, error)
        log.error("set aside: %s", reason)
        await lease.acknowledge()
        return "poisoned"

    async def _hold(self, ref: WorkRef, taken: Taken, lease: Lease) -> str:
        """Hold the baton: run the handler and write what comes out of it."""
        at = self._bus.address(ref.key)
        sequencer = Sequencer(taken.item.request_id, self._bus.name, next_seq=taken.next_seq, last=taken.last)
        async with LogWriter(self._bus, at, sequencer) as writer:
            item = arrived(taken.item)
            job = HeldJob(self._bus, item, taken.written, writer)
            try:
                with tracing.span(f"baton.{self._stage}", item.traceparent):
                    outcome = await self._run(job, lease)
                if job.handed_over is not None:
                    await push_ref(self._bus, job.handed_over)
            except (Replaced, _LeaseLost) as error:
                log.warning("replaced: %s", error)
                return "replaced"
            except _GivenBack:
                await lease.give_back()
                return "given_back"
            except Full:
                await self._end_full(job)
                outcome = "full"
        await lease.acknowledge()
        return outcome

    async def _end_full(self, job: HeldJob) -> None:
        error = Error(
            code="overloaded", message="The system is full; try again later.", retryable=True, retry_after_ms=5_000
        )
        with contextlib.suppress(Full):
            await end_log(self._bus, self._bus.address(job.item.key), job.item.request_id, error)

    async def _run(self, job: HeldJob, lease: Lease) -> str:
        """Run the handler against everything that may stop it, and close the log accordingly."""
        try:
            await self._supervised(job, lease)
            if not job.writer.closed:
                raise RuntimeError("the handler returned without finishing or handing over")
        except _Cancelled:
            await _close(
                job,
                Done(finish_reason="cancelled", cited=[], citations=[], usage=job.item.usage, timings=job.item.timings),
            )
            return "cancelled"
        except TimeoutError:
            await _close(
                job, Error(code="deadline", message="The answer took longer than its deadline allows.", retryable=True)
            )
            return "deadline"
        except ServiceError as error:
            log.warning("%s: %s", error.code, error.message)
            await _close(
                job,
                Error(
                    code=error.code,
                    message=error.message,
                    retryable=error.retryable,
                    retry_after_ms=error.retry_after_ms,
                ),
            )
            return error.code
        except (Replaced, Full, Unconfirmed, _LeaseLost, _GivenBack):
            raise
        except Exception:
            log.exception("the %s handler failed", self._stage)
            await _close(
                job,
                Error(
                    code="internal",
                    message="Something went wrong inside the service; the operator "
                    "finds it in the logs under this request's id.",
                    retryable=True,
                ),
            )
            return "internal"
        return "handed_over" if job.handed_over else "done"

    async def _supervised(self, job: HeldJob, lease: Lease) -> None:
        """Await the handler, unless cancel, deadline, a lost lease, a lost baton or the end of a drain comes first."""
        async with _cancel_orders(self._bus, job.item.key) as cancelled:
            handling: asyncio.Task[None] = asyncio.create_task(self._handler(job))
            watching: dict[asyncio.Task[Any], Exception] = {
                asyncio.create_task(cancelled.wait()): _Cancelled(),
                asyncio.create_task(lease.lost.wait()): _LeaseLost("the lease was not renewed in time"),
                asyncio.create_task(self._giving_back.wait()): _GivenBack(),
            }
            left_s = max(0.0, (job.item.deadline_ms - now_ms()) / 1000)
            everything: set[asyncio.Future[Any]] = {handling, job.writer.failed, *watching}
            try:
                done, _ = await asyncio.wait(everything, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                for ended in (handling, job.writer.failed):
                    if ended in done:
                        ended.result()
                        return
                for task, reason in watching.items():
                    if task in done:
                        raise reason
                raise TimeoutError
            finally:
                for task in watching:
                    task.cancel()
                handling.cancel()
                await asyncio.wait([handling], timeout=5)


async def _close(job: HeldJob, frame: Done | Error) -> None:
    """Write the last frame, unless the handler has done so in the very moment it was stopped."""
    try:
        await job.finish(frame)
    except Closed:
        await job.writer.flush()


def arrived(item: WorkItem) -> WorkItem:
    """The item with the time it lay in the queue; the first worker's arrival is the first byte's time."""
    now, timings = now_ms(), item.timings
    timings = msgspec.structs.replace(
        timings,
        queue_ms=timings.queue_ms + max(0, now - item.queued_ms),
        ttfb_ms=max(0, now - item.received_ms) if timings.ttfb_ms is None else timings.ttfb_ms,
    )
    return msgspec.structs.replace(item, timings=timings)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a holder starts from."""

    item: WorkItem
    written: list[LogFrame]
    next_seq: int
    last: int


async def take(bus: Bus, ref: WorkRef) -> Taken | None:
    """Where to start on a work reference; None when it is not (or no longer) its log's latest hand-off.

    A log that ends in a newer hand-off has it published again: whoever wrote it may have died before doing so.

    Raises:
        Unconfirmed, codec.WireError
    """
    at = bus.address(ref.key)
    position = await read_tail(bus, at)
    if position is None or position.ended:
        return None
    if position.final.seq != ref.seq:
        position = await read_log(bus, at)
        if position is None or position.ended:
            return None
    latest = next((frame for frame in reversed(position.frames) if frame.handoff is not None), None)
    if latest is None or latest.handoff is None:
        return None
    if latest.seq != ref.seq:
        if latest is position.final:
            await publish_again(bus, at)
        return None
    try:
        item = await open_handoff(bus, latest.handoff)
    except KeyError:
        raise codec.WireError(f"the object of the hand-off in frame {latest.seq} is gone") from None
    written = [frame for frame in position.frames if frame.seq > ref.seq]
    return Taken(item, written, position.final.seq + 1, position.last)


@contextlib.asynccontextmanager
async def _cancel_orders(bus: Bus, key: str) -> AsyncIterator[asyncio.Event]:
    """An event that is set when the request is cancelled, also when that happened before we looked."""
    cancelled = asyncio.Event()
    subject = subjects.cancel_subject(key)

    async def on_order(_: Msg) -> None:
        cancelled.set()

    subscription = await bus.subscribe(subject, on_order)
    try:
        earlier = await bus.last(subjects.CANCEL_STREAM, subject)
        if earlier is not None and codec.decode(earlier.data, CancelOrder).key == key:
            cancelled.set()
        yield cancelled
    finally:
        with contextlib.suppress(Exception):
            await subscription.unsubscribe()
