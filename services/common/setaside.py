"""Items that no worker survived: try one once more as a new request, or throw it away."""

from __future__ import annotations

import contextlib
import secrets

import msgspec

from baton_proto import codec, subjects
from baton_proto.messages import (
    Accepted,
    AnswerChunk,
    Error,
    Handoff,
    LogFrame,
    Sources,
    Timings,
    ToolCalled,
    ToolResult,
    WorkItem,
    WorkRef,
)
from baton_proto.sequencer import Replaced, Sequencer

from .bus import Bus, Full, Unconfirmed
from .clock import now_ms
from .endings import end_log
from .inspection import Dead, dead_items, still_there
from .log import LogWriter, open_handoff, push_ref, read_log, read_tail, start_log
from .passages import source_of

MIN_PREFIX = 6
DEADLINE_BOUNDS_MS = (1_000, 600_000)


class NotThat(Exception):
    """The item that was named is not there, is not the only one, or cannot be tried again; the text says why."""


async def find_dead(bus: Bus, name: str) -> Dead:
    """The one item whose key begins with `name`, or whose request id it is.

    Raises:
        NotThat: none, or several.
        Unconfirmed
    """
    items = await dead_items(bus)
    exact = [one for one in items if name in (one.work.ref.key, one.work.request_id)]
    if not exact and len(name) < MIN_PREFIX:
        raise NotThat(f"{name!r} is too short: give at least {MIN_PREFIX} digits of the key (`baton work` shows it)")
    found = exact or [one for one in items if one.work.ref.key.startswith(name.lower())]
    if not found:
        raise NotThat(f"nothing that was set aside has the key {name!r}; `baton work` shows what there is")
    if len(found) > 1:
        keys = ", ".join(one.work.ref.key for one in found[:5])
        raise NotThat(f"{name!r} fits {len(found)} items ({keys}); give more digits")
    return found[0]


async def retry(bus: Bus, dead: Dead) -> WorkItem:
    """Begin a new request of the same owner where the old one failed, and forget the old item. The old log has ended,
    and what is stored stays. A failure half-way leaves the old item where it is.

    Returns the item of the new request.

    Raises:
        NotThat: the item itself is not kept any more, or the queue takes no more.
        Unconfirmed
    """
    old = await _item(bus, dead)
    begun = await _begun_calls(bus, dead, old)
    item = _anew(old, bus)
    try:
        ref = await start_log(bus, item, *_frames(item))
        await _append(bus, item, ref, begun)
    except (Full, Replaced) as error:
        raise NotThat(f"a new request cannot be made now: {error}") from None
    try:
        await push_ref(bus, ref)
    except (Full, Unconfirmed) as error:
        refusal = Error(code="overloaded", message="Too much work is waiting; try again later.", retryable=True)
        with contextlib.suppress(Unconfirmed, Full):
            await end_log(bus, bus.address(item.key), item.request_id, refusal)
        raise NotThat(f"the work queue did not take it ({error}); try again later") from None
    await discard(bus, dead)
    return item


async def discard(bus: Bus, dead: Dead) -> None:
    """Forget an item that was set aside, and its object if it has one.

    Raises:
        Unconfirmed
    """
    for stream_seq in dead.stream_seqs:
        if not await bus.delete_stored(subjects.DEAD_STREAM, stream_seq) and await still_there(
            bus, subjects.DEAD_STREAM, stream_seq
        ):
            raise Unconfirmed(f"message {stream_seq} of {subjects.DEAD_STREAM} could not be deleted")
    if dead.work.handoff is not None and dead.work.handoff.object is not None:
        await bus.delete_object(dead.work.handoff.object)


async def _item(bus: Bus, dead: Dead) -> WorkItem:
    handoff = dead.work.handoff or await _handoff_in_log(bus, dead)
    if handoff is None:
        raise NotThat("the item was not kept with the note, and its log has expired: it can only be discarded")
    try:
        return await open_handoff(bus, handoff)
    except KeyError:
        raise NotThat(
            f"its object {handoff.object!r} is no longer in the object store: it can only be discarded"
        ) from None
    except codec.WireError as error:
        raise NotThat(f"the item cannot be read ({error}): it can only be discarded") from None


async def _handoff_in_log(bus: Bus, dead: Dead) -> Handoff | None:
    """The hand-off from the request's own log, for notes that were written without it."""
    try:
        position = await read_log(bus, bus.address(dead.work.ref.key))
    except codec.WireError:
        return None
    frames = position.frames if position else []
    return next((frame.handoff for frame in frames if frame.seq == dead.work.ref.seq), None)


async def _begun_calls(bus: Bus, dead: Dead, item: WorkItem) -> list[LogFrame]:
    """What earlier holders have written about the item's tool calls. The next one must see it: a call that may have run
    is not repeated unless its tool allows that. Where the log has expired, any of them may have run."""
    try:
        position = await read_log(bus, bus.address(dead.work.ref.key))
    except codec.WireError:
        position = None
    if position is None:
        return [ToolCalled(call_id=call.call_id, name=call.name, arguments=call.arguments) for call in item.calls]
    later = [frame for frame in position.frames if frame.seq > dead.work.ref.seq]
    return [frame for frame in later if isinstance(frame, ToolCalled | ToolResult)]


async def _append(bus: Bus, item: WorkItem, ref: WorkRef, frames: list[LogFrame]) -> None:
    """Append frames behind the hand-off, as the holder did who wrote them first."""
    tail = await read_tail(bus, bus.address(item.key))
    if not frames or tail is None:
        return
    sequencer = Sequencer(item.request_id, bus.name, next_seq=ref.seq + 1, last=tail.last)
    async with LogWriter(bus, bus.address(item.key), sequencer) as writer:
        for frame in frames:
            await writer.write(frame)
        await writer.flush()


def _anew(item: WorkItem, bus: Bus) -> WorkItem:
    """The item as a new request: what was found and said stays, every clock starts again. It has no place among its
    owner's running requests, so it counts against nobody's limit."""
    now, (least, most) = now_ms(), DEADLINE_BOUNDS_MS
    request_id = f"retry-{secrets.token_hex(8)}"
    at = bus.address(subjects.request_key(item.owner, request_id))
    return msgspec.structs.replace(
        item,
        key=at.key,
        shard=at.shard,
        request_id=request_id,
        received_ms=now,
        queued_ms=now,
        deadline_ms=now + min(max(item.deadline_ms - item.received_ms, least), most),
        timings=Timings(),
        place=None,
        lane=None,
        variant="",
        varied=[],
    )


def _frames(item: WorkItem) -> list[LogFrame]:
    """What a reader of the new log must see before the stage that goes on: sources to cite, text written before."""
    frames: list[LogFrame] = [Accepted(conversation_id=item.conversation_id or "")]
    if item.stage != subjects.RETRIEVE:
        frames.append(Sources(sources=[source_of(passage) for passage in item.passages]))
    if text := "".join(turn.text for turn in item.turns) + item.text:
        frames.append(AnswerChunk(content=text))
    return frames
