"""Taking a reference from the queue (2.1, 2.2): which are worked on, and which are dropped."""

from __future__ import annotations

from typing import Any

import msgspec

from baton_proto.messages import Done, Error, Handoff, LogFrame, Sources, Status, Timings, Usage, WorkRef
from conformance.frames import ending, told
from conformance.kit import Kit
from conformance.promise import Broken, promise
from conformance.request import Request

FREED = 2**40
"""A place that nobody has any more."""
CANCELLED = Done(finish_reason="cancelled", cited=[], citations=[], usage=Usage(), timings=Timings())


async def _left_alone(one: Request) -> None:
    """The reference is settled, and nothing was written.

    Raises:
        Broken
    """
    await one.acknowledged()
    await one.checked()
    for attempt in one.attempts:
        raise Broken(f"it wrote {told(attempt.entry.frames)}")


@promise("2.1")
async def unreadable_references_are_dropped(kit: Kit) -> None:
    """A reference that cannot be read, or has another major version, is acknowledged and dropped."""
    for data in (b"\xc1", b"", msgspec.msgpack.encode({"v": 1, "stage": kit.stage}), None):
        one = await kit.request(droppable=True)
        later = WorkRef(stage=kit.stage, key=one.key, shard=one.at.shard, seq=one.handed_at, v=99)
        await one.tell(msgspec.msgpack.encode(later) if data is None else data)
        await _left_alone(one)


@promise("2.2")
async def references_to_logs_that_have_ended_are_dropped(kit: Kit) -> None:
    """A reference to a log that has ended, or is not there, is acknowledged and dropped; whether its user's place is
    still taken or was freed by whoever ended it."""
    failed = Error(code="deadline", message="The answer took too long.", retryable=True)
    for last in (CANCELLED, failed):
        one = await kit.request({"place": FREED}, written=[last])
        await one.tell()
        await _left_alone(one)
    gone = await kit.request(droppable=True)
    await kit.bus.purge(f"BATON_LOG_{gone.at.shard}", f"baton.v1.log.{gone.at.shard}.{gone.key}")
    await gone.tell()
    await _left_alone(gone)


def _next_hand_off(kit: Kit, item: dict[str, object]) -> LogFrame:
    """How a worker of this kind hands over."""
    if kit.kind == "generator":
        stage = "tools.conformance"
        return Status(stage="tool", content="…", handoff=Handoff(stage=stage, item={**item, "stage": stage}))
    handoff = Handoff(stage="generate", item={**item, "stage": "generate", "calls": []})
    if kit.kind == "retriever":
        return Sources(sources=[], handoff=handoff)
    return Status(stage="tool", content="…", handoff=handoff)


@promise("2.2")
async def hand_offs_that_nobody_told_are_told_again(kit: Kit) -> None:
    """Where a later hand-off is the log's last frame, its reference is published, and the old one acknowledged."""
    one = await kit.request()
    await one.append(_next_hand_off(kit, one.item))
    await one.tell()
    await _left_alone(one)


@promise("2.2")
async def hand_offs_that_were_taken_are_left_alone(kit: Kit) -> None:
    """Where frames follow a later hand-off, somebody else works on it: the old reference is acknowledged and
    dropped."""
    one = await kit.request()
    await one.append(_next_hand_off(kit, one.item))
    await one.append(Status(stage="tool" if kit.kind == "generator" else "generating", content="…"))
    one.droppable = True
    await one.tell()
    await one.acknowledged()
    for attempt in one.attempts:
        raise Broken(f"it wrote {told(attempt.entry.frames)}")
    if any(told.ref.seq > one.handed_at for told in kit.witness.told.get(one.key, ())):
        raise Broken("it told the next stage of a hand-off that somebody has taken")


@promise("4")
async def items_that_cannot_be_read_are_refused(kit: Kit) -> None:
    """An item of another major version, or with a field of the wrong type, is refused without a crash: nothing comes
    of it but perhaps an `error`, and its reference is acknowledged."""
    wrong: list[dict[str, Any]] = [
        {"v": 99},
        {"query": 42},
        {"passages": "none"},
        {"passages": [42]},
        {"deadline_ms": "soon"},
    ]
    for change in wrong:
        one = await kit.request(change, droppable=True)
        await one.tell()
        await one.acknowledged()
        written = await one.written()
        if written and not isinstance(written[-1], Error):
            raise Broken(f"of an item with {change} it made {told(written)}, and ended with {ending(written[-1])}")
    await kit.answered()
