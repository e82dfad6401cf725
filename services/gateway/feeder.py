"""Moves waiting requests on to the workers: users take turns, and only so many at a time as workers are about to take.

Every gateway does so with everything that waits, whoever put it there. The queue in front of the workers is kept short,
so a request that does not have to wait is never far from being served.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Mapping

from baton_proto import codec, subjects
from baton_proto.messages import WorkRef
from services.common import metrics, waiting
from services.common.bus import Bus, Full, Unconfirmed
from services.common.clock import from_rfc3339, now_ms
from services.common.endings import end_log
from services.common.errors import DEADLINE
from services.common.log import Position, push_ref, read_tail
from services.common.presence import Presence
from services.common.waiting import Waiting

from .admission import Load

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
BUSY_PAUSE_S = 0.02
SWEPT_AT_ONCE = 16


def turns(line: Mapping[str, int], after: str, room: int) -> list[str]:
    """Whose turn it is, one after the other: lanes in the order of their names, from the one behind `after`.

    Args:
        line: how many wait in each lane.
        room: how many may go in all.
    """
    order = sorted(line)
    order = [lane for lane in order if lane > after] + [lane for lane in order if lane <= after]
    left = dict(line)
    chosen: list[str] = []
    while len(chosen) < room and (order := [lane for lane in order if left[lane] > 0]):
        for lane in order[: room - len(chosen)]:
            left[lane] -= 1
            chosen.append(lane)
    return chosen


class Feeder:
    """Runs until cancelled. `wake` it when something has begun to wait."""

    def __init__(self, bus: Bus, presence: Presence, load: Load) -> None:
        self._bus = bus
        self._presence = presence
        self._load = load
        self._wake = asyncio.Event()
        self._looked = 0.0
        self._waits = False
        self._last = ""

    def wake(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        while True:
            try:
                if await self._step():
                    continue
            except (Unconfirmed, Full) as error:
                log.warning("waiting requests cannot be moved on now: %s", error)
                await asyncio.sleep(LOOK_EVERY_S)
            except Exception:
                log.exception("the feeder stumbled")
                await asyncio.sleep(LOOK_EVERY_S)
            if self._waits:
                await asyncio.sleep(BUSY_PAUSE_S)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._wake.wait()

    async def _step(self) -> bool:
        """Look once a second, move what there is room for; whether anything was moved."""
        if time.monotonic() - self._looked >= LOOK_EVERY_S:
            await self._look()
        if self._wake.is_set():
            self._wake.clear()
            self._waits = True
        if not self._waits:
            return False
        room = await self._room()
        if room <= 0:
            return False
        line = await waiting.lanes(self._bus)
        self._waits = bool(line)
        if not (chosen := turns(line, self._last, room)):
            return False
        self._last = chosen[-1]
        moved = await asyncio.gather(*(self._serve(lane, count) for lane, count in Counter(chosen).items()))
        return any(moved)

    async def _look(self) -> None:
        """The state of both queues; and whatever waits in vain is taken out, also while there is no room."""
        self._looked = time.monotonic()
        self._load.look()
        # In this order: what moves on meanwhile is counted in both rather than in neither.
        line = await waiting.stream_state(self._bus, subjects.WAITING_STREAM)
        work = await waiting.stream_state(self._bus, subjects.WORK_STREAM)
        self._load.observe(work, line, self._looked)
        metrics.WAITING.set(line.messages)
        self._waits = line.messages > 0
        if self._waits:
            self._load.room = 0
            await self._sweep()
        else:
            passed = self._load.passed
            self._load.room = await self._room() - (self._load.passed - passed)

    async def _room(self) -> int:
        """How many may go: as many as keep each stage's queues no longer than its workers have slots.

        So a request that comes now waits for about one other to end, and a slot that becomes free finds work. A later
        stage without live workers holds up nobody; those who need it are told. The queues of a stage's variants count
        together: one that is short of workers must not hold up those who do not try it.
        """
        slots = self._presence.slots()
        queued = await waiting.undelivered(self._bus, slots)
        room: Counter[str] = Counter()
        for queue, count in slots.items():
            room[subjects.parse_queue(queue)[0]] += count - queued[queue]
        return min(room.values()) if subjects.RETRIEVE in room else 0

    async def _serve(self, lane: str, count: int) -> bool:
        found = await waiting.first(self._bus, lane, count)
        return any(await asyncio.gather(*map(self._move, found)))

    async def _move(self, one: Waiting) -> bool:
        """Send a reference on, unless its request has ended or its time is up; whether it went to the workers."""
        try:
            ref = codec.decode(one.data, WorkRef)
            tail = await self._still_wanted(ref)
        except (codec.WireError, ValueError) as error:
            log.error("an unreadable reference waited; it is dropped: %s", error)
            tail = None
        if tail is not None:
            await push_ref(self._bus, ref)
            metrics.WAITED.observe(max(0, now_ms() - from_rfc3339(tail.final.timestamp)) / 1000)
        await waiting.remove(self._bus, one.seq)
        return tail is not None

    async def _still_wanted(self, ref: WorkRef) -> Position | None:
        """Where its log stands if it waits for exactly this reference. A log whose time is up is ended."""
        at = self._bus.address(ref.key)
        tail = await read_tail(self._bus, at)
        if tail is None or tail.ended or tail.final.seq != ref.seq or tail.final.handoff is None:
            return None
        if tail.final.handoff.item is None:
            return tail  # too large for its frame; whoever takes it looks at the clock
        item = codec.item_from_map(tail.final.handoff.item)
        if now_ms() <= item.deadline_ms:
            return tail
        await end_log(self._bus, at, item.request_id, DEADLINE, only_after=ref.seq)
        return None

    async def _sweep(self) -> None:
        """Take out the oldest that wait in vain: nobody else may be left to end their logs."""
        for one in await waiting.first(self._bus, None, SWEPT_AT_ONCE):
            with contextlib.suppress(codec.WireError, ValueError):
                if await self._still_wanted(codec.decode(one.data, WorkRef)) is not None:
                    continue
            await waiting.remove(self._bus, one.seq)
