"""How a request ends before its answer does (2.3), and what is kept of one that has ended (2.9)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from baton_proto import codec, subjects
from baton_proto.messages import (
    AnswerChunk,
    Conversation,
    Done,
    Error,
    LogFrame,
    RunningTurn,
    Sources,
    StoredAnswer,
    ToolCalled,
)
from conformance.frames import ending, told
from conformance.kit import Kit
from conformance.promise import Advice, Broken, InDoubt, NotSeen, promise
from conformance.request import Request
from services.common.clock import from_rfc3339, now_ms
from services.common.endings import stored_answer, summary
from services.common.inspection import still_there
from services.common.log import read_log

CANCEL_S = 3.0
"""A gateway ends a cancelled log after one second; the rest is for a slow machine."""
CROSSED_S = 0.3
"""An end that was made so soon after an order may not have known of it."""
SHORT_MS = 200
MORE_TO_DO = "--question or --call with more to do may help"


def _cancelled(frame: LogFrame) -> bool:
    return isinstance(frame, Done) and frame.finish_reason == "cancelled"


@promise("2.3")
async def a_cancel_from_before_is_found(kit: Kit) -> None:
    """A request that was cancelled before its item was taken ends with `done` and `cancelled`, and no work is done."""
    one = await kit.request()
    await one.cancel()
    await one.tell()
    written = await one.finished()
    if not _cancelled(written[-1]):
        raise Broken(f"the log ended with {ending(written[-1])}")
    if any(isinstance(frame, AnswerChunk | Sources | ToolCalled) for frame in written):
        raise Broken(f"it went to work first, and wrote {told(written)}")


@promise("2.3")
async def a_cancel_stops_the_work(kit: Kit) -> None:
    """A request that is cancelled while a worker holds it ends with `done` and `cancelled` within a second."""
    for attempt in range(kit.options.attempts):
        one = await kit.request()
        async with kit.unblocked():
            if attempt % 2 and kit.alone:
                async with kit.blocked(one):  # too quick to be met: let it wait before its first frame
                    await kit.met(one)
                    ordered = time.monotonic()
                    await one.cancel()
                    await asyncio.sleep(CROSSED_S)
            else:
                await one.tell()
                if not await one.begun():
                    await one.finished()
                    continue
                ordered = time.monotonic()
                await one.cancel()
            last = (await one.ended())[-1]
        took = time.monotonic() - ordered
        made_s = (from_rfc3339(last.timestamp) - one.cancelled_ms) / 1000
        if not _cancelled(last) and made_s <= CROSSED_S:
            continue
        if not _cancelled(last):
            raise InDoubt(f"the log ended with {ending(last)}, made {made_s:.1f} s after the order")
        if took > CANCEL_S:
            raise InDoubt(f"it took {took:.1f} s; after one the gateway ends the log itself")
        await one.finished()
        return
    raise NotSeen(f"every answer was over before it could be cancelled; {MORE_TO_DO}")


@promise("2.3")
async def an_item_past_its_deadline_ends(kit: Kit) -> None:
    """An item whose deadline has passed ends with `error` and `deadline`."""
    one = await kit.request({"deadline_ms": now_ms() - 1_000})
    await one.tell()
    last = (await one.finished())[-1]
    if not isinstance(last, Error) or last.code != "deadline":
        raise Broken(f"the log ended with {ending(last)}")


@promise("2.3")
async def a_deadline_stops_the_work(kit: Kit) -> None:
    """When the deadline passes while a worker holds the item, it ends the log with `error` and `deadline`."""
    deadline = now_ms() + SHORT_MS
    one = await kit.request({"deadline_ms": deadline})
    await one.tell()
    last = (await one.finished())[-1]
    late = (from_rfc3339(last.timestamp) - deadline) / 1000
    if isinstance(last, Error) and last.code == "deadline":
        return
    if late > CANCEL_S:
        raise InDoubt(f"the log ended with {ending(last)}, made {late:.1f} s after its deadline")
    raise NotSeen(f"the work was done before a deadline of {SHORT_MS} ms; {MORE_TO_DO}")


def conversation_of(conversation_id: str, running: list[RunningTurn]) -> Conversation:
    """A conversation without turns, in which these requests run."""
    now = now_ms()
    title = "Conformance"
    return Conversation(conversation_id=conversation_id, title=title, created_ms=now, updated_ms=now, running=running)


async def _ended(kit: Kit, item: Mapping[str, Any] | None = None) -> Request:
    """A request whose log the worker itself has ended, in whichever way its kind does."""
    one = await kit.request(item)
    if kit.kind != "generator":
        await one.cancel()
    await one.tell()
    await one.finished()
    return one


@promise("2.9")
async def the_answer_outlives_its_log(kit: Kit) -> None:
    """Whoever has stored a terminal frame keeps a `StoredAnswer` of it before it acknowledges."""
    one = await _ended(kit)
    try:
        kept = await stored_answer(kit.bus, one.key)
    except codec.WireError as error:
        raise Broken(f"it kept what a reader must refuse: {error}") from None
    if kept is None:
        raise Advice("nothing is kept: when the log has expired, the user cannot get the answer any more")
    position = await read_log(kit.bus, one.at)
    assert position is not None
    wanted = summary(one.item["request_id"], position.frames)
    for name in StoredAnswer.__struct_fields__:
        if getattr(kept, name) != getattr(wanted, name):
            raise Broken(f"what is kept has {name}={getattr(kept, name)!r:.200}, not {getattr(wanted, name)!r:.200}")


@promise("2.9")
async def the_users_place_is_freed(kit: Kit) -> None:
    """Whoever has stored a terminal frame frees the user's place among the running requests."""
    place = await kit.bus.store(subjects.running_subject(kit.owner), b"")
    try:
        await _ended(kit, {"place": place})
        if await still_there(kit.bus, subjects.RUNNING_STREAM, place):
            raise Advice("the place is still taken: it counts against the user's limit until the deadline")
    finally:
        await kit.bus.delete_stored(subjects.RUNNING_STREAM, place)


@promise("2.9")
async def the_turn_is_recorded(kit: Kit) -> None:
    """Whoever has stored a terminal frame moves the request from the `running` of its conversation to its `turns`."""
    conversation = "conformance"
    subject = subjects.conversation_subject(kit.owner, conversation)
    one = await kit.request({"conversation_id": conversation})
    running = [RunningTurn(key=one.key, request_id=one.item["request_id"], since_ms=now_ms())]
    await kit.bus.store(subject, codec.encode(conversation_of(conversation, running)))
    try:
        if kit.kind != "generator":
            await one.cancel()
        await one.tell()
        await one.finished()
        stored = await kit.bus.last(f"KV_{subjects.CONVERSATIONS_BUCKET}", subject)
        try:
            after = codec.decode(stored.data, Conversation) if stored is not None else None
        except codec.WireError as error:
            raise Broken(f"it stored a conversation that a reader must refuse: {error}") from None
        if after is None:
            raise Broken("the conversation is gone")
        if after.running:
            raise Advice("the request still stands in `running`: its turn is missing until a gateway looks for it")
        if [turn.request_id for turn in after.turns] != [one.item["request_id"]]:
            raise Broken(f"its turns are now {[turn.request_id for turn in after.turns]}")
    finally:
        await kit.bus.purge(f"KV_{subjects.CONVERSATIONS_BUCKET}", subject)
