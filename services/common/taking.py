"""Taking a work reference: what its log says about where to start, if at all."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import msgspec

from baton_proto import codec, subjects
from baton_proto.messages import Handoff, LogFrame, Returned, WorkItem, WorkRef

from .bus import Bus
from .claims import await_turn
from .clock import from_rfc3339, now_ms
from .endings import record_end
from .log import open_handoff, publish_again, read_log, read_tail

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a holder starts from: the item with the hand-off that carried it, and where the log stands.

    An item with an `after` must wait, so nobody may hold it yet. `moved_ms` is when its last frame was written (Unix
    epoch).
    """

    item: WorkItem
    handoff: Handoff
    written: list[LogFrame]
    next_seq: int
    last: int
    moved_ms: int

    @property
    def waits(self) -> bool:
        """Whether another request of its conversation must end first."""
        return self.item.after is not None

    @property
    def waited(self) -> bool:
        """Whether that was so when it was handed over."""
        return self.handoff.item is not None and self.handoff.item.get("after") is not None


async def take(bus: Bus, ref: WorkRef, variant: str = "") -> Taken | None:
    """Where to start on a work reference; None when it is not (or no longer) its log's latest hand-off.

    An item that was meant for workers of another variant than `variant`, ours, came to us because they are gone, or by
    way of somebody who does not know variants. It is of no variant from here on: what comes out is not theirs.

    A log that ends in a newer hand-off has it published again, and one that has ended is recorded again: whoever wrote
    that may have died before doing so.

    Raises:
        Unconfirmed, Full, codec.WireError
    """
    at = bus.address(ref.key)
    position = await read_tail(bus, at)
    if position is not None and not position.ended and position.final.seq != ref.seq:
        position = await read_log(bus, at)
    if position is None:
        return None
    if position.ended:
        await record_end(bus, at)
        return None
    latest = next((frame for frame in reversed(position.frames) if frame.handoff is not None), None)
    if latest is None or latest.handoff is None:
        return None
    if latest.seq != ref.seq:
        await publish_again(bus, at, position)
        return None
    try:
        item = await open_handoff(bus, latest.handoff)
    except KeyError:
        raise codec.WireError(f"the object of the hand-off in frame {latest.seq} is gone") from None
    written = [frame for frame in position.frames if frame.seq > ref.seq]
    if subjects.variant_at(item, ref.stage) != variant:
        item = msgspec.structs.replace(item, variant="", varied=[])
    if item.after is not None:
        item = await await_turn(bus, item) or item
    moved_ms = from_rfc3339(position.final.timestamp)
    return Taken(item, latest.handoff, written, position.final.seq + 1, position.last, moved_ms)


async def returned(bus: Bus, key: str, seq: int) -> int:
    """How many deliveries of an item ended with its holder giving it back in good order.

    Raises:
        Unconfirmed
    """
    stored = await bus.last(subjects.CANCEL_STREAM, subjects.returned_subject(key))
    if stored is None:
        return 0
    try:
        note = codec.decode(stored.data, Returned)
    except codec.WireError as error:
        log.error("an unreadable note about %s: %s", key, error)
        return 0
    return note.deliveries if note.seq == seq else 0


async def note_return(bus: Bus, key: str, seq: int, deliveries: int) -> None:
    """Say how many deliveries have been given back, this one included. Only its holder calls it.

    Raises:
        Unconfirmed, Full
    """
    note = Returned(key=key, seq=seq, deliveries=deliveries)
    await bus.store(subjects.returned_subject(key), codec.encode(note))


def arrived(item: WorkItem) -> WorkItem:
    """The item with the time it lay in the queue; the first worker's arrival is the first byte's time."""
    now, timings = now_ms(), item.timings
    timings = msgspec.structs.replace(
        timings,
        queue_ms=timings.queue_ms + max(0, now - item.queued_ms),
        ttfb_ms=max(0, now - item.received_ms) if timings.ttfb_ms is None else timings.ttfb_ms,
    )
    return msgspec.structs.replace(item, timings=timings)
