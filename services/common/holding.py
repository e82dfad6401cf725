"""Holding the baton: the handler runs against everything that may stop it, and the log is closed accordingly."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from baton_proto.messages import Done, Error, LogFrame, WorkItem, WorkRef
from baton_proto.sequencer import Closed, Replaced, Sequencer

from . import metrics, tracing
from .bus import Bus, Full, Unconfirmed
from .cancelling import cancel_orders
from .clock import now_ms
from .endings import end_log, record_end
from .errors import DEADLINE, ServiceError
from .job import Handler
from .log import LogWriter, make_handoff, push_ref, ref_to
from .queue import Lease
from .taking import Taken, arrived, note_return, returned

log = logging.getLogger(__name__)

FULL = Error(code="overloaded", message="The system is full; try again later.", retryable=True, retry_after_ms=5_000)
INTERNAL = Error(
    code="internal",
    message="Something went wrong inside the service; the operator finds it in the logs under this request's id.",
    retryable=True,
)


class _LeaseLost(Exception):
    """The work item may belong to somebody else by now."""


class _Cancelled(Exception):
    """The user does not want the answer any more, since `requested_ms` (Unix epoch)."""

    def __init__(self, requested_ms: int) -> None:
        self.requested_ms = requested_ms


class _GivenBack(Exception):
    """The worker is going away before the work is done."""


class _DeadlinePassed(Exception):
    """Time is up. Not a TimeoutError: the handler may raise one of its own."""


@dataclass(slots=True)
class HeldJob:
    """The `Job` that a handler sees (contract in job.py)."""

    bus: Bus
    item: WorkItem
    written: Sequence[LogFrame]
    writer: LogWriter
    traceparent: str = ""
    handed_over: WorkRef | None = field(default=None)

    async def write(self, frame: LogFrame) -> None:
        await self.writer.write(frame)

    async def flush(self) -> None:
        await self.writer.flush()

    async def hand_over(self, frame: LogFrame, item: WorkItem) -> None:
        seq = self.writer.next_seq
        item = msgspec.structs.replace(item, queued_ms=now_ms(), traceparent=self.traceparent or item.traceparent)
        handoff = await make_handoff(self.bus, item, seq)
        await self.write(msgspec.structs.replace(frame, handoff=handoff))
        # Set before it is known to be stored: a cancel at this moment must not leave a hand-off that nobody published.
        self.handed_over = ref_to(item, seq)
        await self.writer.flush()

    async def finish(self, frame: Done | Error) -> None:
        await self.write(frame)
        await self.writer.flush()


async def hold(
    bus: Bus,
    stage: str,
    handler: Handler,
    ref: WorkRef,
    taken: Taken,
    lease: Lease,
    giving_back: asyncio.Event,
) -> str:
    """Run the handler as the holder of the baton, and settle the work item; returns the outcome for the metrics.

    Args:
        giving_back: when it is set, the work is left to another worker.

    Raises:
        Unconfirmed, Full: NATS is away, or keeps nothing more; nothing is settled, so the item comes again.
    """
    item = arrived(taken.item)
    sequencer = Sequencer(item.request_id, bus.name, next_seq=taken.next_seq, last=taken.last)
    async with LogWriter(bus, bus.address(item.key), sequencer, lambda: lease.held) as writer:
        job = HeldJob(bus, item, taken.written, writer)
        try:
            about: dict[str, tracing.Value | None] = {
                "baton.request_id": item.request_id,
                "baton.deliveries": lease.deliveries,
            }
            with tracing.span(f"baton.{stage}", item.traceparent, "consumer", about) as span:
                job.traceparent = span.traceparent
                outcome = await _run(job, handler, lease, giving_back)
                span.set("baton.outcome", outcome)
                if outcome not in ("handed_over", "done", "cancelled"):
                    span.fail(outcome)
            if job.handed_over is not None:
                await push_ref(bus, job.handed_over)
        except (Replaced, _LeaseLost) as error:
            log.warning("replaced: %s", error)
            return "replaced"
        except _GivenBack:
            if lease.held:
                with contextlib.suppress(Full):
                    await note_return(bus, ref.key, ref.seq, await returned(bus, ref.key, ref.seq) + 1)
            await lease.give_back()
            return "given_back"
        except Full:
            # Where not even this finds room, the item stays in the queue.
            await end_log(bus, bus.address(item.key), item.request_id, FULL)
            outcome = "full"
    if job.handed_over is None:
        await record_end(bus, bus.address(item.key))
    await lease.acknowledge()
    if taken.handoff.object is not None:
        # The log has a later hand-off or its end, so nobody will open this one again.
        with contextlib.suppress(Unconfirmed):
            await bus.delete_object(taken.handoff.object)
    return outcome


async def _run(job: HeldJob, handler: Handler, lease: Lease, giving_back: asyncio.Event) -> str:
    """Run the handler, and close the log with what came of it."""
    item = job.item
    try:
        await _supervised(job, handler, lease, giving_back)
        if not job.writer.closed:
            raise RuntimeError("the handler returned without finishing or handing over")
    except _Cancelled as reason:
        cancelled = Done(finish_reason="cancelled", cited=[], citations=[], usage=item.usage, timings=item.timings)
        await _close(job, msgspec.structs.replace(cancelled, variant=item.variant or None))
        if job.handed_over is None:
            metrics.CANCEL_SECONDS.observe(max(0, now_ms() - reason.requested_ms) / 1000)
        return "cancelled"
    except _DeadlinePassed:
        await _close(job, DEADLINE)
        return "deadline"
    except ServiceError as error:
        log.warning("%s: %s", error.code, error.message)
        await _close(job, error.frame())
        return error.code
    except (Replaced, Full, Unconfirmed, _LeaseLost, _GivenBack):
        raise
    except Exception:
        log.exception("the handler failed")
        await _close(job, INTERNAL)
        return "internal"
    return "handed_over" if job.handed_over else "done"


async def _supervised(job: HeldJob, handler: Handler, lease: Lease, giving_back: asyncio.Event) -> None:
    """Await the handler, unless cancel, deadline, a lost lease, a lost baton or the end of a drain comes first."""
    left_s = (job.item.deadline_ms - now_ms()) / 1000
    if left_s <= 0:
        raise _DeadlinePassed
    async with cancel_orders(job.bus, job.item.key) as order:
        if order.done():
            raise _Cancelled(order.result())
        handling: asyncio.Task[None] = asyncio.create_task(handler(job))

        def stop(_: asyncio.Future[int]) -> None:
            """At once, not when this coroutine has its turn: while tokens arrive fast, each turn is milliseconds."""
            handling.cancel()

        order.add_done_callback(stop)
        watching: dict[asyncio.Task[Any], Exception] = {
            asyncio.create_task(lease.lost.wait()): _LeaseLost("the lease was not renewed in time"),
            asyncio.create_task(giving_back.wait()): _GivenBack(),
        }
        everything: set[asyncio.Future[Any]] = {handling, job.writer.failed, order, *watching}
        try:
            done, _ = await asyncio.wait(everything, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            for ended in (handling, job.writer.failed):
                if ended in done and not (ended.cancelled() and order.done()):
                    ended.result()
                    return
            if order.done():
                raise _Cancelled(order.result())
            for task, reason in watching.items():
                if task in done:
                    raise reason
            raise _DeadlinePassed
        finally:
            order.remove_done_callback(stop)
            for task in watching:
                task.cancel()
            if not order.done():  # else it is cancelled already, and once more would disturb it in cleaning up
                handling.cancel()
            await asyncio.wait([handling], timeout=5)


async def _close(job: HeldJob, frame: Done | Error) -> None:
    """Write the last frame, unless the handler has done so in the very moment it was stopped."""
    try:
        await job.finish(frame)
    except Closed:
        await job.writer.flush()
