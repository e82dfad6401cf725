"""Puts together what the work queue, the workers and the set-aside items say into one `Snapshot`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from baton_proto import codec, subjects
from baton_proto.messages import Announcement, Holdings, LogEntry
from services.common import waiting
from services.common.bus import Bus
from services.common.clock import from_rfc3339, now_ms
from services.common.inspection import (
    Dead,
    Queued,
    StageQueue,
    dead_items,
    gather_holdings,
    queue_lengths,
    queued_refs,
    stage_queues,
    still_there,
)
from services.common.presence import watch

from .work_lines import Poisoned, Running, Snapshot, Stage, Unanswered

GATHER_S = 1.0
MAX_UNANSWERED = 200


async def take_snapshot(bus: Bus) -> Snapshot:
    """The state of all work, in a good second.

    The queue is read before the workers are asked, so an item that was delivered by then is in the answer of whoever
    holds it; what nobody claims is looked up once more, for it may have been settled meanwhile.

    Raises:
        Unconfirmed
    """
    queues = {queue.stage: queue for queue in await stage_queues(bus)}
    lengths = await queue_lengths(bus)
    stages = sorted({*queues, *lengths})
    delivered = {
        stage: await queued_refs(bus, stage, last=queues[stage].last_delivered) if stage in queues else []
        for stage in stages
    }
    oldest = {stage: await queued_refs(bus, stage, limit=1) for stage in stages}
    async with watch(bus) as presence:
        holdings = await gather_holdings(bus, GATHER_S)
        live = {stage: presence.live(stage) for stage in {*stages, *presence.counts()}}
    held = {(item.key, item.seq) for one in holdings for item in one.items}
    unclaimed = [
        (queues[stage], one)
        for stage, refs in delivered.items()
        for one in refs
        if (one.ref.key, one.ref.seq) not in held
    ]
    line = await waiting.lanes(bus)
    return Snapshot(
        at_ms=now_ms(),
        waiting_for_turn=sum(line.values()),
        users_waiting=len(line),
        stages=[
            _stage(stage, live[stage], queues.get(stage), lengths.get(stage, 0), oldest.get(stage, ()))
            for stage in sorted(live)
        ],
        running=_running(holdings),
        unanswered=await _unanswered(bus, unclaimed[:MAX_UNANSWERED]),
        poisoned=[_poisoned(dead) for dead in reversed(await dead_items(bus))],
        silent=_silent(live.values(), holdings),
    )


def _stage(
    stage: str, live: Sequence[Announcement], queue: StageQueue | None, length: int, oldest: Sequence[Queued]
) -> Stage:
    return Stage(
        stage=stage,
        workers=len(live),
        slots=sum(one.slots for one in live),
        running=sum(one.running for one in live),
        waiting=queue.waiting if queue else length,
        delivered=queue.delivered if queue else 0,
        oldest_ms=oldest[0].stored_ms if oldest else None,
    )


def _running(holdings: Iterable[Holdings]) -> list[Running]:
    found = [
        Running(item.key, item.request_id, one.stage, one.worker, item.since_ms, item.deliveries)
        for one in holdings
        for item in one.items
    ]
    return sorted(found, key=lambda item: item.since_ms)


async def _unanswered(bus: Bus, unclaimed: Sequence[tuple[StageQueue, Queued]]) -> list[Unanswered]:
    found = await asyncio.gather(*(_one_unanswered(bus, queue, queued) for queue, queued in unclaimed))
    return [one for one in found if one is not None]


async def _one_unanswered(bus: Bus, queue: StageQueue, queued: Queued) -> Unanswered | None:
    if not await still_there(bus, subjects.WORK_STREAM, queued.stream_seq):
        return None
    request_id, writer, at = "", "", None
    if (tail := await bus.tail(bus.address(queued.ref.key))) is not None:
        try:
            entry = codec.decode(tail.data, LogEntry)
        except codec.WireError:
            entry = None
        if entry is not None:
            request_id, writer, at = entry.request_id, entry.writer, from_rfc3339(entry.frames[-1].timestamp)
    return Unanswered(
        key=queued.ref.key,
        request_id=request_id,
        stage=queue.stage,
        queued_ms=queued.stored_ms,
        last_frame_ms=at,
        last_writer=writer,
        redelivery_s=queue.ack_wait_s,
    )


def _poisoned(dead: Dead) -> Poisoned:
    work = dead.work
    return Poisoned(
        key=work.ref.key,
        request_id=work.request_id,
        stage=work.ref.stage,
        at_ms=work.at_ms,
        deliveries=work.deliveries,
        reason=work.reason,
        retryable=work.handoff is not None,
    )


def _silent(live: Iterable[Sequence[Announcement]], holdings: Iterable[Holdings]) -> list[str]:
    told = {(one.stage, one.worker) for one in holdings}
    return sorted(
        f"{one.worker} ({one.stage}, {one.running} running)"
        for stage in live
        for one in stage
        if one.running and (one.stage, one.worker) not in told
    )
