"""The store of conversations: one record each, changed by compare-and-set, so that any gateway or worker may do it.

What a record may become is in `turns.py`; who may enter a conversation, and when, is in `claims.py`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from baton_proto import codec, subjects
from baton_proto.messages import Conversation, ConversationTurn, LogFrame, WorkItem
from baton_proto.subjects import LogAddress

from .bus import Bus, Full, Refused, Unconfirmed
from .clock import from_rfc3339
from .log import Position, open_handoff
from .turns import recorded, turn_of

log = logging.getLogger(__name__)

STREAM = f"KV_{subjects.CONVERSATIONS_BUCKET}"
TRIES = 16
EMPTY_TTL_S = 60
"""How long a conversation is kept that no request has entered after all."""
DELETED_MARGIN_S = 3_600


class Found(NamedTuple):
    """A conversation as it is stored, with the revision to name in a change. None: there is none."""

    conversation: Conversation | None
    revision: int

    @property
    def deleted(self) -> bool:
        """Whether its owner has deleted it; that is known for as long as any of its requests may still end."""
        return self.conversation is None and self.revision > 0


async def load(bus: Bus, owner: str, conversation_id: str) -> Found:
    """A conversation, from the stream's leader.

    Raises:
        Unconfirmed: NATS is away.
        codec.WireError: it is unreadable.
    """
    stored = await bus.last(STREAM, subjects.conversation_subject(owner, conversation_id))
    if stored is None:
        return Found(None, 0)
    if not stored.data:  # the mark that a deletion leaves
        return Found(None, stored.stream_seq)
    return Found(codec.decode(stored.data, Conversation), stored.stream_seq)


async def put(bus: Bus, owner: str, conversation: Conversation, revision: int) -> Found:
    """Store a conversation if its revision is still this one (0: there is none). One without a turn and without a
    request goes away by itself.

    Raises:
        Refused: somebody else has changed it.
        Unconfirmed, Full
    """
    headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
    if not conversation.turns and not conversation.running:
        headers["Nats-TTL"] = str(EMPTY_TTL_S)
    subject = subjects.conversation_subject(owner, conversation.conversation_id)
    return Found(conversation, await bus.store(subject, codec.encode(conversation), headers))


async def change(bus: Bus, owner: str, conversation_id: str, rule: Callable[[Conversation], Conversation]) -> Found:
    """Change a conversation by a rule, again and again while others are quicker; what comes of it, also where there
    is none or the rule changes nothing.

    Raises:
        Unconfirmed: NATS is away, or others were quicker too often.
        Full, codec.WireError
    """
    for attempt in range(TRIES):
        found = await load(bus, owner, conversation_id)
        if found.conversation is None or (changed := rule(found.conversation)) == found.conversation:
            return found
        try:
            return await put(bus, owner, changed, found.revision)
        except Refused:
            await pause(attempt)
    raise busy()


async def pause(attempt: int) -> None:
    """Before another attempt at a change that was refused."""
    await asyncio.sleep(0.005 * (attempt + 1) * random.uniform(0.2, 1.0))


def busy() -> Unconfirmed:
    return Unconfirmed("others change this conversation all the time")


async def record_turn(bus: Bus, position: Position) -> bool:
    """Make a request whose whole log this is, and has ended, the newest turn of its conversation. Safe to repeat.

    Returns False where the conversation was deleted: then nothing of the request may be kept.

    Raises:
        Unconfirmed: NATS is away.
    """
    try:
        item = await first_item(bus, position.frames)
        if item is None or item.conversation_id is None:
            return True
        turn, ended_ms = await read_turn(bus, item, position), ended_at(position)
        found = await change(
            bus, item.owner, item.conversation_id, lambda conversation: recorded(conversation, turn, ended_ms)
        )
    except (codec.WireError, ValueError, Full) as error:
        log.error("a turn of a conversation is not kept: %s", error)
        return True
    return not found.deleted


def ended_at(position: Position) -> int:
    """When a log's last frame was written; Unix epoch, milliseconds."""
    return from_rfc3339(position.final.timestamp)


async def first_item(bus: Bus, frames: Iterable[LogFrame]) -> WorkItem | None:
    """The item with which a log began; None where it has none (any more).

    Raises:
        Unconfirmed, codec.WireError
    """
    first = next(iter(frames))
    if first.handoff is None:
        return None
    try:
        return await open_handoff(bus, first.handoff)
    except KeyError:
        return None


async def read_turn(bus: Bus, item: WorkItem, position: Position) -> ConversationTurn:
    """The turn that a whole log which has ended amounts to.

    Args:
        item: that of its first frame.

    Raises:
        Unconfirmed
    """
    follow_up = bool(item.history) or item.after is not None
    return turn_of(item, position.frames, await _standalone(bus, position.frames) if follow_up else "")


async def _standalone(bus: Bus, frames: list[LogFrame]) -> str:
    """The question as it was searched for, from the latest item that is still there."""
    for frame in reversed(frames):
        if (handoff := frame.handoff) is None:
            continue
        try:
            found = (await open_handoff(bus, handoff)).standalone
        except (KeyError, codec.WireError):
            continue
        return found
    return ""


async def mark_deleted(bus: Bus, owner: str, conversation_id: str, revision: int) -> None:
    """Delete a conversation whose revision is this. A mark stays that lets nobody record into it; it outlives the logs
    of its requests.

    Raises:
        Refused: somebody else has changed it.
        Unconfirmed, Full
    """
    subject = subjects.conversation_subject(owner, conversation_id)
    await _purge_value(bus, subject, {"Nats-Expected-Last-Subject-Sequence": str(revision)})


async def forget_request(bus: Bus, at: LogAddress, frames: Iterable[LogFrame] = ()) -> None:
    """Leave nothing of a request that has ended: neither the kept answer, nor its log, nor items too large for it.

    Args:
        frames: those of the log, as far as known.

    Raises:
        Unconfirmed, Full
    """
    for frame in frames:
        if frame.handoff is not None and frame.handoff.object is not None:
            await bus.delete_object(frame.handoff.object)
    await bus.purge(subjects.log_stream(at.shard), subjects.log_subject(at))
    await _purge_value(bus, subjects.kept_answer(at.key), {})


async def _purge_value(bus: Bus, subject: str, headers: dict[str, str]) -> None:
    """What a key-value client calls purge: the value is gone at once, and a mark is there for some time."""
    lasts_s = bus.settings.log_max_age_s + DELETED_MARGIN_S
    await bus.store(subject, b"", {"KV-Operation": "PURGE", "Nats-Rollup": "sub", "Nats-TTL": str(lasts_s), **headers})


class Listed(msgspec.Struct, frozen=True):
    """A conversation as a list shows it. `turns` and `running` are not looked into."""

    conversation_id: str
    title: str
    created_ms: int
    updated_ms: int
    turns: list[msgspec.Raw] = []
    running: list[msgspec.Raw] = []


_listed = msgspec.msgpack.Decoder(Listed)


async def newest(bus: Bus, owner: str, most: int) -> list[Listed]:
    """An owner's conversations, the one that was changed last first. A replica of NATS may answer that lags behind by a
    moment.

    Raises:
        Unconfirmed: NATS is away.
    """
    found: dict[str, Listed] = {}

    def take(data: bytes) -> bool:
        if not data:
            return False
        try:
            one = _listed.decode(data)
        except msgspec.MsgspecError as error:
            log.error("an unreadable conversation is not listed: %s", error)
            return False
        if not one.turns and not one.running:
            return False
        found[one.conversation_id] = one
        return True

    await bus.newest(STREAM, subjects.conversations_of(owner), most, take)
    return sorted(found.values(), key=lambda one: one.updated_ms, reverse=True)[:most]
