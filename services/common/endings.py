"""The end of a request: ending a log that nobody continues, and keeping what its log will forget."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from baton_proto import codec, subjects
from baton_proto.messages import (
    MAX_ENTRY_BYTES,
    Accepted,
    Done,
    Error,
    LogFrame,
    StoredAnswer,
)
from baton_proto.sequencer import Replaced, Sequencer
from baton_proto.subjects import LogAddress

from .bus import Bus, Full
from .clock import from_rfc3339
from .conversations import forget_request, record_turn
from .log import LogWriter, Position, read_log, read_tail
from .shown import text_and_sources

log = logging.getLogger(__name__)

END_TRIES = 8


async def end_log(
    bus: Bus, at: LogAddress, request_id: str, frame: Done | Error, *, only_after: int | None = None
) -> bool:
    """End a log that nobody continues, and keep what is left of it. Harmless where somebody else ends it first.

    Args:
        only_after: end it only if this is still the `seq` of its last frame.

    Returns whether this call has ended it.

    Raises:
        Unconfirmed: NATS is away.
        Full: the log's stream takes not even this.
    """
    for _ in range(END_TRIES):
        tail = await read_tail(bus, at)
        if tail is None or tail.ended or (only_after is not None and tail.final.seq != only_after):
            return False
        sequencer = Sequencer(request_id, bus.name, next_seq=tail.final.seq + 1, last=tail.last)
        try:
            async with LogWriter(bus, at, sequencer) as writer:
                await writer.write(frame)
                await writer.flush()
        except Replaced:
            continue  # a holder was quicker by one entry
        await record_end(bus, at)
        return True
    return False


async def record_end(bus: Bus, at: LogAddress) -> None:
    """Keep the final answer of a log that has ended, free its user's place, and make it a turn of its conversation; but
    forget it where that was deleted. Safe to repeat.

    Whoever has stored a terminal frame calls this before it settles its work item; a redelivery calls it again.

    Raises:
        Unconfirmed: NATS is away.
    """
    try:
        position = await read_log(bus, at)
    except codec.WireError as error:
        log.error("the answer in the log %s is not kept: %s", at.key, error)
        return
    if position is None or not position.ended:
        return
    try:
        await bus.store(subjects.kept_answer(at.key), _packed(summary(position.request_id, position.frames)))
    except Full as error:
        log.error("an answer is not kept: %s", error)
    # The turn comes after the answer: whoever deletes the conversation then finds both, or is found to have done so.
    _, recorded = await asyncio.gather(_free_place(bus, position), record_turn(bus, position))
    if not recorded:
        try:
            await forget_request(bus, at, position.frames)
        except Full as error:
            log.error("a request of a deleted conversation is still kept: %s", error)


async def _free_place(bus: Bus, position: Position) -> None:
    handoff = position.frames[0].handoff
    place = handoff.item.get("place") if handoff is not None and handoff.item is not None else None
    if isinstance(place, int):
        await bus.delete_stored(subjects.RUNNING_STREAM, place)


async def stored_answer(bus: Bus, key: str) -> StoredAnswer | None:
    """What is kept of a request; None where nothing is.

    Raises:
        Unconfirmed: NATS is away.
        codec.WireError: it is unreadable.
    """
    stored = await bus.last(f"KV_{subjects.ANSWERS_BUCKET}", subjects.kept_answer(key))
    # A key that was deleted with a KV client ends in a message without a body.
    return codec.decode(stored.data, StoredAnswer) if stored and stored.data else None


def summary(request_id: str, frames: Sequence[LogFrame]) -> StoredAnswer:
    """What is worth keeping of a whole log that has ended."""
    last = frames[-1]
    assert isinstance(last, Done | Error)
    kept = StoredAnswer(
        request_id=request_id,
        outcome=last.finish_reason if isinstance(last, Done) else last.code,
        ended_ms=from_rfc3339(last.timestamp),
        conversation_id=next((one.conversation_id for one in frames if isinstance(one, Accepted)), None),
    )
    if isinstance(last, Error):
        return kept
    text, sources = text_and_sources(frames)
    return msgspec.structs.replace(kept, finish_reason=last.finish_reason, answer=text, sources=sources)


def _packed(answer: StoredAnswer) -> bytes:
    """The bytes to keep; of an answer that is too large for a message only how it ended."""
    try:
        return codec.encode(answer)
    except codec.WireError as error:
        log.warning("an answer over %d bytes is not kept: %s", MAX_ENTRY_BYTES, error)
        return codec.encode(msgspec.structs.replace(answer, finish_reason=None, answer=None, sources=[]))
