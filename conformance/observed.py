"""One request of the kit as it is seen from outside: all that a worker does to its log and to its work item."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import msgspec

from baton_proto import codec, subjects
from baton_proto.messages import LogEntry, LogFrame, WorkItem, WorkRef
from services.common.bus import Bus, Stored, Unconfirmed
from services.common.inspection import still_there
from services.common.queue import Delivery

from . import frames
from .promise import Broken, Kind
from .witness import Settling, Told, Witness


@dataclass(frozen=True, slots=True)
class Attempt:
    """An append that the worker asked for, stored or not. `expected` is what its header says; absent is None."""

    entry: LogEntry
    expected: int | None
    at: float


class Observed:
    """A log that waits for the worker at frame `handed_at`, or will.

    Attributes:
        live: the log's entries as they are stored, with their stream sequences; those of the kit too.
        attempts: the worker's appends.
        work_seqs: stream sequences of the references in the queue.
        problems: what was noticed, in the order of its happening.
        droppable: it is good to acknowledge the item although nothing has come of it.
    """

    def __init__(self, bus: Bus, kind: Kind, witness: Witness, item: dict[str, Any], patience_s: float) -> None:
        self.bus = bus
        self.kind = kind
        self.witness = witness
        self.item = item
        self.key: str = item["key"]
        self.at = bus.address(self.key)
        self.patience_s = patience_s
        self.handed_at = 0
        self.live: list[tuple[LogEntry, int]] = []
        self.attempts: list[Attempt] = []
        self.work_seqs: list[int] = []
        self.problems: list[Broken] = []
        self.objects: set[str] = set()
        self.droppable = False
        self._acknowledgements: set[int] = set()
        self._asked: set[asyncio.Task[None]] = set()

    async def finished(self) -> list[LogFrame]:
        """What the worker wrote, when it has ended or handed over and settled its item; every promise about that is
        checked.

        Raises:
            Broken
        """
        written = await self.ended()
        await self.acknowledged()
        await self.checked()
        return written

    async def ended(self, within_s: float | None = None) -> list[LogFrame]:
        """What was written behind the hand-off, once the log has ended or was handed on.

        Raises:
            Broken: it does not end in time, or cannot be read.
        """
        within_s = within_s or self.patience_s
        await self.witness.until(self.over, within_s)
        written = await self.written()
        if not written or not frames.ends(written[-1]):
            self._raise_first()
            came = frames.told(written)
            said = f"after {within_s:g} s the log had neither ended nor been handed on; there was: {came}"
            raise Broken(f"{said} (a worker that only takes longer gets more time by --timeout)", "2.5")
        return written

    async def written(self) -> list[LogFrame]:
        """What the log has behind the hand-off, to the end or the next hand-off.

        Raises:
            Broken: the log is not as a log must be, or this worker had no business writing this.
        """
        entries = [frames.read_entry(stored.data) for stored in await self.bus.replay(self.at)]
        frames.check_follows(entries)
        found: list[LogFrame] = []
        for at, entry in enumerate(entries):
            if entry.request_id != self.item["request_id"]:
                raise Broken(f"an entry that names the request {entry.request_id!r} in the log of another", "2.4")
            ours = [frame for frame in entry.frames if frame.seq > self.handed_at]
            found += ours
            if entry.writer != self.bus.name:
                frames.check_written(self.kind, ours)
            if ours and frames.ends(ours[-1]):
                if at + 1 < len(entries) and entries[at + 1].writer == entry.writer != self.bus.name:
                    raise Broken(f"it wrote {frames.told(entries[at + 1].frames)} behind its own hand-off", "1")
                break
        return found

    async def acknowledged(self, within_s: float | None = None) -> None:
        """Wait until every reference of ours is settled for good.

        Raises:
            Broken
        """
        within_s = within_s or self.patience_s
        for seq in self.work_seqs:
            if not await self.witness.until(lambda seq=seq: self._acknowledged(seq), within_s) and await still_there(  # type: ignore[misc]
                self.bus, subjects.WORK_STREAM, seq
            ):
                raise Broken(f"the item was not acknowledged within {within_s:g} s", "2.7")
        await self.witness.caught_up()

    async def checked(self) -> None:
        """Everything that was noticed on the way, in the order of its happening.

        Raises:
            Broken
        """
        await self.looked_at()
        self._raise_first()
        written = await self.written()
        if written and written[-1].handoff is not None:
            await self._check_told(written[-1])

    async def looked_at(self) -> None:
        """Wait until everything that has been heard is looked into."""
        await self.witness.caught_up()
        while self._asked:
            await asyncio.gather(*self._asked)

    async def next_item(self, frame: LogFrame) -> tuple[WorkItem, dict[str, Any]]:
        """The item of a hand-off, as a worker of ours reads it and as it came.

        Raises:
            Broken: a reader must refuse it.
        """
        assert frame.handoff is not None
        raw = frame.handoff.item
        try:
            if raw is None:
                name = frame.handoff.object or ""
                self.objects.add(name)
                data = await self.bus.get_object(name)
                return codec.unpack_item(data), msgspec.msgpack.decode(data)
            return codec.item_from_map(raw), raw
        except KeyError:
            raise Broken(f"the object {frame.handoff.object!r} of the hand-off is not there", "2.6") from None
        except codec.WireError as error:
            raise Broken(f"an item that a reader must refuse: {error}", "4") from None

    def settlings(self, since: float = 0.0) -> list[Settling]:
        """What was sent to the reply subjects of our items since then."""
        found = [one for seq in self.work_seqs for one in self.witness.settlings.get(seq, ())]
        return [one for one in found if one.at >= since]

    def settled(self) -> list[str]:
        """How deliveries of our items were ended, one after the other: each `+ACK` or `-NAK …`."""
        return [each.what for each in self.settlings() if not each.what.startswith("+WPI")]

    async def begun(self) -> bool:
        """Wait until the worker has written something; whether it has not ended its part with that."""
        await self.witness.until(lambda: any(entry.writer != self.bus.name for entry, _ in self.live), self.patience_s)
        return bool(self.live) and self.live[-1][0].writer != self.bus.name and not self.over()

    def over(self) -> bool:
        """Whether the worker has ended its part, as far as it was heard, or something is wrong with it."""
        return bool(self.problems) or self._end() is not None

    # --- noticing -----------------------------------------------------------------------------------------------------

    def _end(self, until: float = math.inf) -> LogFrame | None:
        """The frame that ended this worker's part, as far as it was heard; `until` this stream sequence."""
        heard = (entry for entry, stream_seq in self.live if stream_seq <= until)
        later = (frame for entry in heard for frame in entry.frames if frame.seq > self.handed_at)
        return next(filter(frames.ends, later), None)

    def _acknowledged(self, seq: int) -> bool:
        return any(one.what.startswith("+ACK") for one in self.witness.settlings.get(seq, ()))

    def on_live(self, stored: Stored) -> None:
        try:
            self.live.append((frames.read_entry(stored.data), stored.stream_seq))
        except Broken as problem:
            self.problems.append(problem)
        self._ask(self.witness.wake())

    async def on_append(self, message: Delivery) -> None:
        with contextlib.suppress(Broken):
            entry = frames.read_entry(message.data)
            if entry.writer == self.bus.name:
                return
            header = (message.headers or {}).get("Nats-Expected-Last-Subject-Sequence")
            self.attempts.append(Attempt(entry, int(header) if header else None, time.monotonic()))
            self._ask(self.witness.wake())
            if header is None:
                self.problems.append(Broken("an append without the header Nats-Expected-Last-Subject-Sequence", "2.4"))

    def on_settling(self, settling: Settling) -> None:
        # Only the first: who had no answer to it says it again, and what becomes of the log is no matter by then.
        if settling.what.startswith("+ACK") and settling.stream_seq not in self._acknowledgements:
            self._acknowledgements.add(settling.stream_seq)
            self._ask(self._check_acknowledged())

    async def _check_acknowledged(self) -> None:
        """At this moment the log must have ended, or been handed on and its next stage told."""
        if self.droppable or (tail := await self.bus.tail(self.at)) is None:
            return
        await self.witness.caught_up()
        last = self._end(tail.stream_seq) or codec.decode(tail.data, LogEntry).frames[-1]
        if last.seq <= self.handed_at or not frames.ends(last):
            said = f"it acknowledged its item when the log ended with frame {last.seq}, {frames.ending(last)}"
            self.problems.append(Broken(said, "2.5"))
        elif last.handoff is not None and not any(told.ref.seq == last.seq for told in self._told()):
            said = f"it acknowledged its item before it had told {last.handoff.stage} of the hand-off"
            self.problems.append(Broken(said, "2.6"))

    def on_told(self, told: Told) -> None:
        if told.ref.seq > self.handed_at:
            self._ask(self._check_stored(told))

    async def _check_stored(self, told: Told) -> None:
        tail = await self.bus.tail(self.at)
        if tail is not None and codec.decode(tail.data, LogEntry).frames[-1].seq < told.ref.seq:
            self.problems.append(Broken("it told the next stage of a hand-off that was not stored yet", "2.6"))

    async def _check_told(self, last: LogFrame) -> None:
        assert last.handoff is not None
        stage, variant, seq = last.handoff.stage, last.handoff.variant, last.seq
        queue = subjects.queue_name(stage, variant)
        await self.witness.until(lambda: any(told.ref.seq == seq for told in self._told()), self.patience_s)
        wanted = WorkRef(stage=stage, variant=variant, key=self.key, shard=self.at.shard, seq=seq)
        message_id = subjects.work_message_id(self.key, seq)
        for told in self._told():
            if told.ref.seq == seq and told.queue != queue:
                raise Broken(
                    f"frame {seq} hands over to {queue}, and its reference was published to the queue {told.queue}",
                    "2.6",
                )
            if told.ref.seq == seq and (told.ref != wanted or told.message_id != message_id):
                raise Broken(
                    f"the reference to frame {seq} was published as {told.ref} with the Nats-Msg-Id "
                    f"{told.message_id!r}, not {message_id!r}",
                    "2.6",
                )
        if not any(told.ref == wanted for told in self._told()):
            raise Broken(f"nobody told {stage} of the hand-off in frame {seq}", "2.6")

    def _told(self) -> list[Told]:
        return self.witness.told.get(self.key, [])

    def _raise_first(self) -> None:
        if self.problems:
            raise self.problems[0]

    def _ask(self, asking: Awaitable[None]) -> None:
        task = asyncio.create_task(self._quiet(asking))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _quiet(self, asking: Awaitable[None]) -> None:
        with contextlib.suppress(Unconfirmed, codec.WireError):
            await asking
