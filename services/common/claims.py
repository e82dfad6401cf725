"""Who may enter a conversation, and when its turn is: the claim that a gateway makes, and the wait of a worker.

A claim stands in the conversation's `running` before the request's log is made. What becomes of it, its log says:
whoever looks at a conversation records what has ended and drops what never began, so no claim has to be taken back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from baton_proto import codec, subjects
from baton_proto.messages import (
    Accepted,
    Conversation,
    ConversationTurn,
    LogEntry,
    LogFrame,
    RunningTurn,
    WorkItem,
)
from baton_proto.subjects import LogAddress

from .bus import Bus, Refused, Unconfirmed
from .clock import now_ms
from .conversations import TRIES, Found, busy, change, ended_at, first_item, load, pause, put, read_turn
from .endings import end_log
from .errors import DEADLINE, ServiceError
from .log import Position, read_log, read_tail
from .turns import MAX_WAITING, before, begun, entered, history, knows, left, recorded

log = logging.getLogger(__name__)

CREATING_MS = 10_000
"""A claim without a log is one whose gateway may still be making it."""
OVERDUE_MS = 10_000
"""So long after its deadline a log is ended by whoever finds it: nobody else is left who would."""

IfBusy = Literal["reject", "enqueue", "interrupt"]
_Standing = tuple[ConversationTurn, int] | Literal["busy", "gone"]


@dataclass(frozen=True, slots=True)
class Claim:
    """A request that was let into its conversation.

    `item` has its history, or whom it waits for. `made`: by this call. `interrupts` are the requests to cancel.
    """

    item: WorkItem
    made: bool
    interrupts: Sequence[RunningTurn] = ()


async def claim(bus: Bus, item: WorkItem, if_busy: IfBusy, *, fresh: bool) -> Claim:
    """Let a request into its conversation, before its log is made. One that is in it already is let in again.

    Args:
        fresh: its conversation's id is a new one, so there is nothing to look at.

    Raises:
        ServiceError: `conversation_busy`.
        Unconfirmed, Full, codec.WireError
    """
    assert item.conversation_id is not None
    for attempt in range(TRIES):
        now = now_ms()
        found = Found(None, 0) if fresh else await load(bus, item.owner, item.conversation_id)
        conversation = found.conversation or begun(item.conversation_id, item.query, item.received_ms)
        conversation = await _mended(bus, conversation)
        waits_for = before(conversation, item.key)
        made = not any(one.key == item.key for one in conversation.running)
        if made:
            if knows(conversation, item.request_id) and await read_tail(bus, LogAddress(item.shard, item.key)):
                return Claim(item, made=False)  # it ran, and will be shown
            _check_busy(waits_for, if_busy)
        one = RunningTurn(key=item.key, request_id=item.request_id, since_ms=now)
        conversation = entered(conversation, one)
        if conversation != found.conversation:
            try:
                await put(bus, item.owner, conversation, found.revision)
            except Refused:
                await pause(attempt)
                continue
        if not waits_for:
            return Claim(msgspec.structs.replace(item, history=history(conversation)), made)
        waiting = msgspec.structs.replace(item, after=waits_for[-1].key)
        return Claim(waiting, made, waits_for if if_busy == "interrupt" else ())
    raise busy()


def _check_busy(waits_for: Sequence[RunningTurn], if_busy: IfBusy) -> None:
    if waits_for and if_busy == "reject":
        raise ServiceError(
            "conversation_busy",
            "This conversation has a question that is not answered yet. Wait for its end, or send if_busy: enqueue to "
            "ask behind it, interrupt to ask instead of it.",
            retryable=True,
        )
    if len(waits_for) > MAX_WAITING:
        raise ServiceError(
            "conversation_busy",
            f"{MAX_WAITING} questions of this conversation wait already; try again when one has its answer.",
            retryable=True,
        )


async def release(bus: Bus, item: WorkItem) -> None:
    """Take back the claim of a request that became none. Only where its log was surely never made.

    Raises:
        Unconfirmed, Full, codec.WireError
    """
    assert item.conversation_id is not None
    await change(bus, item.owner, item.conversation_id, lambda conversation: left(conversation, {item.key}))


async def settled(bus: Bus, owner: str, conversation_id: str) -> Conversation | None:
    """A conversation in which whatever has ended is recorded; None where there is none.

    Raises:
        Unconfirmed, Full, codec.WireError
    """
    for attempt in range(TRIES):
        found = await load(bus, owner, conversation_id)
        if found.conversation is None or not found.conversation.running:
            return found.conversation
        conversation = await _mended(bus, found.conversation)
        if conversation == found.conversation:
            return conversation
        try:
            return (await put(bus, owner, conversation, found.revision)).conversation
        except Refused:
            await pause(attempt)
    raise busy()


async def await_turn(bus: Bus, item: WorkItem) -> WorkItem | None:
    """The item of a request that waited, when it may begin: with the history as it is now. None: not yet.

    It may begin when every request that was let in before it has ended: the one that it names may have been cancelled
    while it waited itself. Cancelled, or past its deadline, it goes on at once, to its end.

    Raises:
        Unconfirmed, Full, codec.WireError
    """
    assert item.after is not None
    if now_ms() >= item.deadline_ms:
        return msgspec.structs.replace(item, after=None)
    if await bus.last(subjects.CANCEL_STREAM, subjects.cancel_subject(item.key)) is not None:
        return msgspec.structs.replace(item, after=None)
    with contextlib.suppress(codec.WireError):  # what nobody can read, nobody goes on with
        predecessor = await read_tail(bus, bus.address(item.after))
        if predecessor is not None and not predecessor.ended:
            return None
    if item.conversation_id is None:
        return msgspec.structs.replace(item, after=None)
    try:
        conversation = await settled(bus, item.owner, item.conversation_id)
    except (codec.WireError, ValueError) as error:
        log.error("a conversation is unreadable; it goes on without its history: %s", error)
        conversation = None
    if conversation is None:
        return msgspec.structs.replace(item, after=None)
    if any(one.key == item.key for one in conversation.running) and before(conversation, item.key):
        return None
    return msgspec.structs.replace(item, after=None, history=history(conversation))


async def _mended(bus: Bus, conversation: Conversation) -> Conversation:
    """With what has ended recorded, and without what never began."""
    standings = await asyncio.gather(*(_standing(bus, conversation, one) for one in conversation.running))
    for one, standing in zip(conversation.running, standings, strict=True):
        if isinstance(standing, tuple):
            conversation = recorded(conversation, *standing)
        elif standing == "gone":
            conversation = left(conversation, {one.key})
    return conversation


async def _standing(bus: Bus, conversation: Conversation, one: RunningTurn) -> _Standing:
    """What has become of a request that stands in `running`: its turn and when it ended, where it has."""
    at = bus.address(one.key)
    try:
        tail = await read_tail(bus, at)
        if tail is None:
            return "busy" if now_ms() - one.since_ms < CREATING_MS else "gone"
        if not tail.ended:
            frames = await _first_frames(bus, at, tail)
            if not _belongs(frames[0], conversation):
                return "gone"
            item = await first_item(bus, frames)
            if item is None or now_ms() < item.deadline_ms + OVERDUE_MS:
                return "busy"
            await end_log(bus, at, one.request_id, DEADLINE)
        position = await read_log(bus, at)
        if position is None or not position.ended or not _belongs(position.frames[0], conversation):
            return "gone"
        item = await first_item(bus, position.frames)
        return (await read_turn(bus, item, position), ended_at(position)) if item is not None else "gone"
    except (codec.WireError, ValueError) as error:
        log.error("the log %s of a conversation's request is unreadable: %s", one.key, error)
        return "gone"


def _belongs(first: LogFrame, conversation: Conversation) -> bool:
    """Whether a log is of this conversation: a request id that was known already may have run in another one."""
    return isinstance(first, Accepted) and first.conversation_id == conversation.conversation_id


async def _first_frames(bus: Bus, at: LogAddress, tail: Position) -> list[LogFrame]:
    if tail.frames[0].seq == 0:
        return tail.frames
    stored, _ = await bus.replay_batch(at, 0, messages=1)
    if not stored:
        raise Unconfirmed("a replica does not have this log yet")
    return codec.decode(stored[0].data, LogEntry).frames
