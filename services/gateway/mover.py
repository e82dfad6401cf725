"""What becomes of a variant's work when its workers are gone: those of no variant do it."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from baton_proto import codec, subjects
from baton_proto.messages import WorkRef
from services.common import metrics
from services.common.bus import Bus, Full, Unconfirmed
from services.common.presence import Presence
from services.common.queue import take_now

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
MOVED_AT_ONCE = 64


class Mover:
    """Moves the work of variants whose workers are gone to the workers of none. Every gateway does; runs until
    cancelled."""

    def __init__(self, bus: Bus, presence: Presence) -> None:
        self._bus = bus
        self._presence = presence

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self._look()
            except Unconfirmed as error:
                log.info("whether a variant has work that nobody does cannot be told now: %s", error)
            except Exception:
                log.exception("the mover stumbled")

    async def _look(self) -> None:
        """Raises Unconfirmed."""
        if not self._presence.settled:
            return
        for queue in await _variant_queues(self._bus):
            stage, variant = subjects.parse_queue(queue)
            if not self._presence.live(queue) and self._presence.live(stage):
                moved = await _move(self._bus, queue, stage)
                if moved:
                    metrics.MOVED.labels(stage, variant).inc(moved)
                    log.warning("%s has no workers: %d items moved to %s", queue, moved, stage)


async def _variant_queues(bus: Bus) -> list[str]:
    """The queues of variants that have, or ever had, a worker.

    Raises:
        Unconfirmed
    """
    answer = await bus.api(f"CONSUMER.NAMES.{subjects.WORK_STREAM}")
    names = [name.replace("_", ".", 1) for name in answer.get("consumers") or []]
    return [name for name in names if subjects.is_queue(name) and subjects.parse_queue(name)[1]]


async def _move(bus: Bus, queue: str, to: str) -> int:
    """Move what nobody holds: what was not taken yet, and what was given up. What a worker that is going away still
    holds, it finishes. Like every hand-over, it is safe to repeat.

    Raises:
        Unconfirmed
    """
    moved = 0
    for message in await take_now(bus, subjects.WORK_STREAM, subjects.work_consumer(queue), MOVED_AT_ONCE):
        try:
            ref = codec.decode(message.data, WorkRef)
        except codec.WireError as error:
            log.error("unreadable work on %s dropped: %s", message.subject, error)
        else:
            plain = codec.encode(msgspec.structs.replace(ref, variant=""))
            try:
                await bus.push_work(to, plain, subjects.moved_message_id(ref.key, ref.seq))
            except Full:
                break  # what was taken and not acknowledged comes again
            moved += 1
        await bus.request(message.reply, b"+ACK")
    return moved
