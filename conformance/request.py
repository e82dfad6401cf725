"""One request of the kit: its log as the worker's neighbours write it, and all that the worker does to it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from baton_proto import codec, subjects
from baton_proto.messages import (
    Accepted,
    CancelOrder,
    Handoff,
    LogEntry,
    LogFrame,
    Passage,
    Sources,
    Status,
    WorkItem,
    WorkRef,
)
from baton_proto.sequencer import utc_now
from services.common.bus import Bus, Refused, Stored, Unconfirmed, quietly
from services.common.clock import now_ms
from services.common.inspection import queued_refs, still_there
from services.common.passages import source_of
from services.common.queue import Delivery

from . import frames
from .promise import Broken, Kind
from .witness import Settling, Told, Witness

APPEND_TRIES, APPEND_AGAIN_S = 40, 0.1
UNKNOWN = {"conformance_unknown": {"from": "a later version", "list": [1, "two", None]}}
"""What nobody knows, beside known fields."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An append that the worker asked for, stored or not. `expected` is what its header says; absent is None."""

    entry: LogEntry
    expected: int | None
    at: float


class Request:
    """A log that waits for the worker at frame `handed_at`.

    Args:
        unknown: every message has a field beside that no version of the contract has.
        as_object: the item lies in the object store.

    Attributes:
        droppable: it is good to acknowledge this item although nothing has come of it.
    """

    def __init__(
        self,
        bus: Bus,
        kind: Kind,
        witness: Witness,
        item: dict[str, Any],
        patience_s: float,
        unknown: bool,
        as_object: bool,
    ) -> None:
        self.bus = bus
        self.kind = kind
        self.witness = witness
        self.item = item
        self.key: str = item["key"]
        self.at = bus.address(self.key)
        self.patience_s = patience_s
        self.handed_at = 0
        self.next_seq = 0
        self.last = 0
        """Stream sequence of the log's last message that we know of."""
        self.work_seqs: list[int] = []
        self.told_at = 0.0
        self.live: list[tuple[LogEntry, int]] = []
        self.attempts: list[Attempt] = []
        self.problems: list[Broken] = []
        self._unknown = UNKNOWN if unknown else {}
        self._as_object = as_object
        self._objects: set[str] = set()
        self.droppable = False
        self._asked: set[asyncio.Task[None]] = set()
        self._stop: list[Callable[[], Any]] = []

    # --- what the neighbours do ---------------------------------------------------------------------------------------

    async def open(self, written: Sequence[LogFrame]) -> None:
        """Write the log as the stages before leave it, and what an earlier holder of this item has written."""
        self._stop.append(await self.bus.follow(self.at, self._on_live))
        appends = await self.bus.subscribe(subjects.log_subject(self.at), self._on_append)
        self._stop.append(appends.unsubscribe)
        self.witness.on_told[self.key] = self._on_told
        *before, last = self._before()
        for frame in before:
            await self.append(frame)
        await self.hand_over(last, self.item)
        if written:
            await self.append(*written)

    async def hand_over(self, frame: LogFrame, item: dict[str, Any]) -> None:
        """Append `frame` with the hand-off of `item` to the worker."""
        self.item = item
        handoff = Handoff(stage=item["stage"], item=item)
        if self._as_object:
            name = subjects.handoff_object(self.key, self.next_seq)
            self._objects.add(name)
            await self.bus.put_object(name, msgspec.msgpack.encode(item))
            handoff = Handoff(stage=item["stage"], object=name)
        await self.append(msgspec.structs.replace(frame, handoff=handoff))
        self.handed_at = self.next_seq - 1

    def _before(self) -> list[LogFrame]:
        """The frames of the stages before; the last one is to hand over."""
        conversation = self.item.get("conversation_id") or "c"
        if self.kind == "retriever":
            return [Accepted(conversation_id=conversation)]
        small = {name: value for name, value in self.item.items() if not name.startswith("conformance_")}
        first = {**small, "stage": subjects.RETRIEVE, "passages": [], "calls": []}
        sources = Sources(sources=[source_of(passage) for passage in self._passages()])
        begun = Accepted(conversation_id=conversation, handoff=Handoff(stage=subjects.RETRIEVE, item=first))
        if self.kind == "generator":
            return [begun, sources]
        second = Handoff(stage=subjects.GENERATE, item={**first, "stage": subjects.GENERATE})
        return [begun, msgspec.structs.replace(sources, handoff=second), Status(stage="tool", content="Calling tools")]

    def _passages(self) -> list[Passage]:
        try:
            return msgspec.convert(self.item.get("passages") or [], list[Passage])
        except msgspec.ValidationError:
            return []  # an item that is meant to be unreadable

    async def append(self, *written: LogFrame) -> None:
        """Append behind what we know of, as a neighbour or another holder.

        Raises:
            Refused: the log has a newer message.
        """
        made = [
            {**msgspec.to_builtins(frame), **self._unknown, "seq": self.next_seq + at, "timestamp": utc_now()}
            for at, frame in enumerate(written)
        ]
        head = {"v": 1, "request_id": self.item["request_id"], "append_id": secrets.token_hex(8)}
        entry = {**head, "writer": self.bus.name, "frames": made, **self._unknown}
        self.last = await self._stored(msgspec.msgpack.encode(entry))
        self.next_seq += len(made)

    async def _stored(self, data: bytes) -> int:
        """Append, again while the log's stream takes nothing: `Kit.blocked` is for another request that lies there."""
        for _ in range(APPEND_TRIES):
            with contextlib.suppress(Unconfirmed):
                return await self.bus.append(self.at, data, self.last)
            await asyncio.sleep(APPEND_AGAIN_S)
        return await self.bus.append(self.at, data, self.last)

    async def replace(self, *written: LogFrame) -> bool:
        """Append behind whatever the worker has stored, as somebody who holds the item now; False where the worker had
        ended its part first."""
        while True:
            entry, self.last = self.live[-1]
            if entry.frames[-1].seq > self.handed_at and frames.ends(entry.frames[-1]):
                return False
            self.next_seq = entry.frames[-1].seq + 1
            try:
                await self.append(*written)
            except Refused:
                seen = len(self.live)
                await self.witness.until(lambda seen=seen: len(self.live) > seen, 2.0)  # type: ignore[misc]
            else:
                return True

    async def tell(self, data: bytes | None = None) -> None:
        """Put the reference into the queue; each call is one more message.

        Args:
            data: other bytes instead.
        """
        ref = WorkRef(stage=self.item["stage"], key=self.key, shard=self.at.shard, seq=self.handed_at)
        packed = data if data is not None else msgspec.msgpack.encode({**msgspec.to_builtins(ref), **self._unknown})
        message_id = subjects.work_message_id(self.key, self.handed_at)
        again = f".{len(self.work_seqs)}" if self.work_seqs or data is not None else ""
        self.told_at = time.monotonic()
        subject = subjects.work_subject(self.item["stage"])
        seq = await self.bus.store(subject, packed, {"Nats-Msg-Id": message_id + again})
        self.work_seqs.append(seq)
        self.witness.on_settling[seq] = self._on_settling
        for settling in self.witness.settlings.get(seq, ()):  # it may have been quicker than the answer to us
            self._on_settling(settling)

    # --- what the worker does -----------------------------------------------------------------------------------------

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
        await self.witness.until(self._over, within_s)
        written = await self.written()
        if not written or not frames.ends(written[-1]):
            self._raise_first()
            came = frames.told(written)
            raise Broken(f"after {within_s:g} s the log had neither ended nor been handed on; there was: {came}", "2.5")
        return written

    async def written(self) -> list[LogFrame]:
        """What the log has behind the hand-off; the whole log is checked.

        Raises:
            Broken
        """
        entries = [frames.read_entry(stored.data) for stored in await self.bus.replay(self.at)]
        frames.check_follows(entries)
        for entry in entries:
            if entry.request_id != self.item["request_id"]:
                raise Broken(f"an entry that names the request {entry.request_id!r} in the log of another", "2.4")
        theirs = [frame for entry in entries if entry.writer != self.bus.name for frame in entry.frames]
        frames.check_written(self.kind, theirs)
        return [frame for entry in entries for frame in entry.frames if frame.seq > self.handed_at]

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

    async def checked(self) -> None:
        """Everything that was noticed on the way, in the order of its happening.

        Raises:
            Broken
        """
        while self._asked:
            await asyncio.gather(*self._asked)
        self._raise_first()
        written = await self.written()
        if written and written[-1].handoff is not None:
            await self._check_told(written[-1])

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
                self._objects.add(name)
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

    async def begun(self) -> bool:
        """Wait until the worker has written something; whether it has not ended its part with that."""
        await self.witness.until(lambda: any(entry.writer != self.bus.name for entry, _ in self.live), self.patience_s)
        return bool(self.live) and self.live[-1][0].writer != self.bus.name and not self._over()

    async def cancel(self) -> None:
        """What a gateway does when the user does not want the answer any more."""
        order = CancelOrder(key=self.key, requested_ms=now_ms())
        await self.bus.store(subjects.cancel_subject(self.key), codec.encode(order))

    async def forget(self) -> None:
        """Remove every trace of this request from NATS.

        Raises:
            Unconfirmed
        """
        for stop in self._stop:
            await quietly(stop())
        for seq in self.work_seqs:
            await self.bus.delete_stored(subjects.WORK_STREAM, seq)
        for told in self.witness.told.get(self.key, ()):
            for queued in await queued_refs(self.bus, told.ref.stage):
                if queued.ref.key == self.key:
                    await self.bus.delete_stored(subjects.WORK_STREAM, queued.stream_seq)
        await self.bus.purge(subjects.log_stream(self.at.shard), subjects.log_subject(self.at))
        for subject in (subjects.cancel_subject(self.key), subjects.returned_subject(self.key)):
            await self.bus.purge(subjects.CANCEL_STREAM, subject)
        await self.bus.purge(f"KV_{subjects.ANSWERS_BUCKET}", subjects.kept_answer(self.key))
        for name in self._objects:
            await self.bus.delete_object(name)

    # --- noticing -----------------------------------------------------------------------------------------------------

    def _over(self) -> bool:
        return bool(self.problems) or any(
            frames.ends(frame) for entry, _ in self.live for frame in entry.frames if frame.seq > self.handed_at
        )

    def _acknowledged(self, seq: int) -> bool:
        return any(one.what.startswith("+ACK") for one in self.witness.settlings.get(seq, ()))

    def _on_live(self, stored: Stored) -> None:
        try:
            self.live.append((frames.read_entry(stored.data), stored.stream_seq))
        except Broken as problem:
            self.problems.append(problem)
        self._ask(self.witness.wake())

    async def _on_append(self, message: Delivery) -> None:
        with contextlib.suppress(Broken):
            entry = frames.read_entry(message.data)
            if entry.writer == self.bus.name:
                return
            header = (message.headers or {}).get("Nats-Expected-Last-Subject-Sequence")
            self.attempts.append(Attempt(entry, int(header) if header else None, time.monotonic()))
            if header is None:
                self.problems.append(Broken("an append without the header Nats-Expected-Last-Subject-Sequence", "2.4"))

    def _on_settling(self, settling: Settling) -> None:
        if settling.what.startswith("+ACK"):
            self._ask(self._check_acknowledged())

    async def _check_acknowledged(self) -> None:
        """At this moment the log must have ended, or been handed on and its next stage told."""
        tail = await self.bus.tail(self.at)
        if tail is None:
            return
        last = codec.decode(tail.data, LogEntry).frames[-1]
        if self.droppable:
            return
        if last.seq <= self.handed_at or not frames.ends(last):
            self.problems.append(
                Broken(
                    f"it acknowledged its item when the log ended with frame {last.seq}, {frames.ending(last)}", "2.5"
                )
            )
        elif last.handoff is not None and not any(told.ref.seq == last.seq for told in self._told()):
            self.problems.append(
                Broken(f"it acknowledged its item before it had told {last.handoff.stage} of the hand-off", "2.6")
            )

    def _on_told(self, told: Told) -> None:
        if told.ref.seq > self.handed_at:
            self._ask(self._check_stored(told))

    async def _check_stored(self, told: Told) -> None:
        tail = await self.bus.tail(self.at)
        if tail is not None and codec.decode(tail.data, LogEntry).frames[-1].seq < told.ref.seq:
            self.problems.append(Broken("it told the next stage of a hand-off that was not stored yet", "2.6"))

    async def _check_told(self, last: LogFrame) -> None:
        assert last.handoff is not None
        stage, seq = last.handoff.stage, last.seq
        await self.witness.until(lambda: any(told.ref.seq == seq for told in self._told()), self.patience_s)
        wanted = WorkRef(stage=stage, key=self.key, shard=self.at.shard, seq=seq)
        message_id = subjects.work_message_id(self.key, seq)
        for told in self._told():
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

    def _ask(self, asking: Any) -> None:
        task = asyncio.create_task(self._quiet(asking))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _quiet(self, asking: Any) -> None:
        with contextlib.suppress(Unconfirmed, codec.WireError):
            await asking
