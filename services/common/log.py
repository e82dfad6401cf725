"""The log of a request, on the bus: append by the baton rule, read, and end what nobody continues."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from baton_proto import codec, subjects
from baton_proto.messages import MAX_ENTRY_BYTES, TERMINAL, Handoff, LogEntry, LogFrame, WorkItem, WorkRef
from baton_proto.sequencer import Append, Replaced, Sequencer
from baton_proto.subjects import LogAddress

from . import metrics, waiting
from .bus import Bus, Refused, Unconfirmed

log = logging.getLogger(__name__)

HIGH_WATER = 1024
LOW_WATER = 256


class LogWriter:
    """Carries a sequencer's appends to the log, one at a time, from a task of its own.

    `failed` is done as soon as this writer can no longer go on: with `Replaced` or `Full`, as a rule. Start it with
    `async with`.

    Args:
        held: asked before each append whether the writer still holds the baton. The log would take a frame of one that
            has only just woken while its successor has not written yet, and the successor would be the one to stop.
    """

    def __init__(self, bus: Bus, at: LogAddress, sequencer: Sequencer, held: Callable[[], bool] = lambda: True) -> None:
        self._bus = bus
        self._at = at
        self._sequencer = sequencer
        self._held = held
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._over = False

    async def __aenter__(self) -> LogWriter:
        self._task = asyncio.create_task(self._run(), name=f"append {self._at.key}")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        # Both: before Python 3.12 a cancellation may be swallowed inside of nats-py, and then the flag ends the task.
        self._over = True
        self._wake.set()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if not self.failed.done():
            self.failed.cancel()
        elif not self.failed.cancelled():
            self.failed.exception()  # seen, so that asyncio does not warn

    @property
    def closed(self) -> bool:
        """Whether the last frame of this writer has been queued."""
        return self._sequencer.closed

    @property
    def next_seq(self) -> int:
        """`seq` of the frame that is written next."""
        return self._sequencer.next_seq

    async def write(self, frame: LogFrame) -> None:
        """Queue a frame; wait only while too many are not yet stored.

        Raises:
            Replaced, Full: this writer cannot go on.
            Closed: nothing may follow the last frame.
        """
        self._check()
        self._sequencer.add(frame)
        self._wake.set()
        if self._sequencer.pending >= HIGH_WATER:
            self._room.clear()
            await self._until(self._room)

    async def flush(self) -> None:
        """Wait until all is stored. Raises as `write` does."""
        self._check()
        while not self._sequencer.idle:
            self._room.clear()
            await self._until(self._room)

    def _check(self) -> None:
        if self.failed.done():
            self.failed.result()

    async def _until(self, event: asyncio.Event) -> None:
        waiting = asyncio.ensure_future(event.wait())
        either: set[asyncio.Future[Any]] = {waiting, self.failed}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        self._check()

    async def _run(self) -> None:
        try:
            while not self._over:
                await self._wake.wait()
                self._wake.clear()
                while not self._over and (append := self._sequencer.next_append()) is not None:
                    await self._store(append)
                    if self._sequencer.pending <= LOW_WATER:
                        self._room.set()
                self._room.set()
        except Exception as error:  # whatever it is, the handler must not wait for it in vain
            if not self.failed.done():
                self.failed.set_exception(error)

    async def _store(self, append: Append) -> None:
        """Make one append, whatever it takes; while NATS is away, go on trying."""
        data = codec.encode(append.entry)
        pause = 0.05
        while not self._over:
            if not self._held():
                raise Replaced(f"{self._sequencer.request_id}: the lease was lost before this could be stored")
            try:
                self._sequencer.stored(await self._bus.append(self._at, data, append.expected))
            except (Refused, Unconfirmed) as error:
                metrics.APPENDS.labels(type(error).__name__.lower()).inc()
                log.info("append %s; reading the tail", error)
            else:
                metrics.APPENDS.labels("stored").inc()
                return
            if await self._tail_is_mine():
                return
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, 1.0)

    async def _tail_is_mine(self) -> bool:
        """Whether the unanswered append is stored after all; False means that it may be tried again."""
        try:
            stored = await self._bus.tail(self._at)
        except Unconfirmed:
            return False
        entry = codec.decode(stored.data, LogEntry) if stored else None
        return self._sequencer.tail(entry, stored.stream_seq if stored else 0) is None


@dataclass(frozen=True, slots=True)
class Position:
    """Where a log stands: its frames (or only the last entry's) and the stream sequence of its last message."""

    request_id: str
    frames: list[LogFrame]
    last: int

    @property
    def final(self) -> LogFrame:
        return self.frames[-1]

    @property
    def ended(self) -> bool:
        return isinstance(self.final, TERMINAL)


async def read_tail(bus: Bus, at: LogAddress) -> Position | None:
    """The last entry of a log, from the leader; None where there is no log (any more).

    Raises:
        Unconfirmed: nobody answered.
        codec.WireError: the entry is unreadable.
    """
    stored = await bus.tail(at)
    return None if stored is None else _position([StoredEntry(codec.decode(stored.data, LogEntry), stored.stream_seq)])


async def read_log(bus: Bus, at: LogAddress, tries: int = 10) -> Position | None:
    """A whole log as its leader has it; a lagging replica is asked again.

    Raises:
        Unconfirmed: nobody answered, or no replica caught up.
        codec.WireError: an entry is unreadable.
    """
    entries = await read_entries(bus, at, tries=tries)
    return _position(entries) if entries else None


def _position(entries: list[StoredEntry]) -> Position:
    frames = [frame for one in entries for frame in one.entry.frames]
    return Position(entries[0].entry.request_id, frames, entries[-1].stream_seq)


class StoredEntry(NamedTuple):
    """An entry of a log with the stream sequence under which it is stored."""

    entry: LogEntry
    stream_seq: int


async def read_entries(bus: Bus, at: LogAddress, after: int = 0, tries: int = 10) -> list[StoredEntry]:
    """The entries of a log with a stream sequence above `after`, to its end as the leader has it; empty where there is
    no log (any more).

    Raises:
        Unconfirmed: nobody answered, or no replica caught up.
        codec.WireError: an entry is unreadable.
    """
    tail = await bus.tail(at)
    if tail is None or tail.stream_seq <= after:
        return []
    for attempt in range(tries):
        stored = await bus.replay(at, after)
        if stored and stored[-1].stream_seq >= tail.stream_seq:
            return [StoredEntry(codec.decode(one.data, LogEntry), one.stream_seq) for one in stored]
        await asyncio.sleep(0.02 * (attempt + 1))
    raise Unconfirmed("no replica has the whole log yet")


async def make_handoff(bus: Bus, item: WorkItem, seq: int) -> Handoff:
    """The hand-off of `item` in frame `seq`; an item too large for a message goes to the object store.

    Raises:
        Unconfirmed: the object store did not take it.
    """
    variant = subjects.variant_at(item, item.stage)
    packed = codec.pack_item(item)
    if len(packed) <= MAX_ENTRY_BYTES // 2:
        return Handoff(stage=item.stage, variant=variant, item=codec.item_to_map(item))
    name = subjects.handoff_object(item.key, seq)
    await bus.put_object(name, packed)
    return Handoff(stage=item.stage, variant=variant, object=name)


def ref_to(item: WorkItem, seq: int) -> WorkRef:
    """The reference to `item`, which frame `seq` of its log hands over."""
    variant = subjects.variant_at(item, item.stage)
    return WorkRef(stage=item.stage, variant=variant, key=item.key, shard=item.shard, seq=seq)


async def open_handoff(bus: Bus, handoff: Handoff) -> WorkItem:
    """The item of a hand-off.

    Raises:
        codec.WireError: it is unreadable.
        Unconfirmed: the object store did not answer.
    """
    if handoff.item is not None:
        return codec.item_from_map(handoff.item)
    if handoff.object is None:
        raise codec.WireError("a hand-off has neither an item nor the name of an object")
    return codec.unpack_item(await bus.get_object(handoff.object))


async def start_log(bus: Bus, item: WorkItem, *frames: LogFrame) -> WorkRef:
    """Create the log of a request with `frames`, the last of which hands `item` over. Nothing is queued yet.

    Raises:
        Replaced: the log is there already.
        Full: its stream takes no more.
        Unconfirmed: the object store did not take a large item.
    """
    *before, last = frames
    handoff = await make_handoff(bus, item, len(before))
    async with LogWriter(bus, LogAddress(item.shard, item.key), Sequencer(item.request_id, bus.name)) as writer:
        for frame in (*before, msgspec.structs.replace(last, handoff=handoff)):
            await writer.write(frame)
        await writer.flush()
    return ref_to(item, len(before))


async def push_ref(bus: Bus, ref: WorkRef, tries: int = 5) -> None:
    """Put a reference into the work queue; safe to repeat, because its message id names the hand-off.

    Raises:
        Full: the queue takes no more.
        Unconfirmed: NATS did not answer, also not after several tries.
    """
    await queue_ref(bus, ref, None, tries)


async def queue_ref(bus: Bus, ref: WorkRef, lane: str | None, tries: int = 5) -> None:
    """Put a reference into the work queue, or where it waits for the turn of `lane`. Contract of `push_ref`."""
    data, message_id = codec.encode(ref), subjects.work_message_id(ref.key, ref.seq)
    for attempt in range(tries):
        try:
            if lane is not None:
                return await waiting.put(bus, lane, ref)
            return await bus.push_work(subjects.queue_name(ref.stage, ref.variant), data, message_id)
        except Unconfirmed:
            if attempt == tries - 1:
                raise
            await asyncio.sleep(0.05 * 2**attempt * random.uniform(0.5, 1.0))
    raise AssertionError("unreachable")


async def publish_again(bus: Bus, at: LogAddress, position: Position) -> None:
    """If the log ends in a hand-off, put its reference into the queue once more: its writer may have died before.

    One that waits, or waited, for its user's turn is put where it waits: asking for it again jumps no queue.

    Harmless where it is there already, by the message id or because the log refuses the second of two holders.

    Raises:
        Full, Unconfirmed
        codec.WireError: the item is unreadable.
    """
    if position.final.handoff is not None:
        handoff, seq = position.final.handoff, position.final.seq
        ref = WorkRef(stage=handoff.stage, variant=handoff.variant, key=at.key, shard=at.shard, seq=seq)
        lane = codec.item_from_map(handoff.item).lane if handoff.item is not None and seq == 0 else None
        await queue_ref(bus, ref, lane)
