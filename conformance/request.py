"""One request of the kit: what the gateway, the other stages and other holders do to its log."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from baton_proto import subjects
from baton_proto.messages import (
    Accepted,
    Handoff,
    LogFrame,
    Passage,
    Sources,
    Status,
    WorkRef,
)
from baton_proto.sequencer import utc_now
from services.common.bus import Bus, Refused, Unconfirmed, quietly
from services.common.cancelling import order_cancel
from services.common.clock import now_ms
from services.common.inspection import queued_refs
from services.common.passages import source_of

from . import frames
from .observed import Observed
from .promise import Kind
from .witness import Witness

APPEND_TRIES, APPEND_AGAIN_S = 40, 0.1
UNKNOWN = {"conformance_unknown": {"from": "a later version", "list": [1, "two", None]}}
"""What nobody knows, beside known fields."""


class Request(Observed):
    """A request whose log comes to this worker's stage.

    Args:
        unknown: every message has a field beside that no version of the contract has.
        as_object: the item lies in the object store.
    """

    def __init__(
        self,
        bus: Bus,
        kind: Kind,
        witness: Witness,
        item: dict[str, Any],
        patience_s: float,
        *,
        unknown: bool = False,
        as_object: bool = False,
    ) -> None:
        super().__init__(bus, kind, witness, item, patience_s)
        self.next_seq = 0
        self.last = 0
        """Stream sequence of the log's last message that we know of."""
        self.told_at = 0.0
        self.cancelled_ms = 0
        self._unknown = UNKNOWN if unknown else {}
        self._as_object = as_object
        self._stop: list[Callable[[], Any]] = []

    async def open(self, written: Sequence[LogFrame]) -> None:
        """Write the log as the stages before leave it, and what an earlier holder of this item has written."""
        self._stop.append(await self.bus.follow(self.at, self.on_live))
        appends = await self.bus.subscribe(subjects.log_subject(self.at), self.on_append)
        self._stop.append(appends.unsubscribe)
        self.witness.on_told[self.key] = self.on_told
        *before, last = self._before()
        for frame in before:
            await self.append(frame)
        await self.hand_over(last, self.item)
        if written:
            await self.append(*written)

    async def hand_over(self, frame: LogFrame, item: dict[str, Any]) -> None:
        """Append `frame` with the hand-off of `item` to the worker."""
        self.item = item
        handoff = Handoff(stage=item["stage"], variant=self.witness.variant, item=item)
        if self._as_object:
            name = subjects.handoff_object(self.key, self.next_seq)
            self.objects.add(name)
            await self.bus.put_object(name, msgspec.msgpack.encode(item))
            handoff = msgspec.structs.replace(handoff, item=None, object=name)
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
        for left in reversed(range(APPEND_TRIES)):
            try:
                return await self.bus.append(self.at, data, self.last)
            except Unconfirmed:
                if not left:
                    raise
            except Refused:
                for stored in await self.bus.replay(self.at, self.last):
                    if stored.data == data:  # by an earlier try, whose answer got lost
                        return stored.stream_seq
                raise
            await asyncio.sleep(APPEND_AGAIN_S)
        raise AssertionError("unreachable")

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
        stage, variant = self.item["stage"], self.witness.variant
        ref = WorkRef(stage=stage, variant=variant, key=self.key, shard=self.at.shard, seq=self.handed_at)
        packed = data if data is not None else msgspec.msgpack.encode({**msgspec.to_builtins(ref), **self._unknown})
        message_id = subjects.work_message_id(self.key, self.handed_at)
        again = f".{len(self.work_seqs)}" if self.work_seqs or data is not None else ""
        self.told_at = time.monotonic()
        subject = subjects.work_subject(self.witness.queue)
        seq = await self.bus.store(subject, packed, {"Nats-Msg-Id": message_id + again})
        self.work_seqs.append(seq)
        self.witness.on_settling[seq] = self.on_settling
        for settling in self.witness.settlings.get(seq, ()):  # it may have been quicker than the answer to us
            self.on_settling(settling)

    async def cancel(self) -> None:
        """What a gateway does when the user does not want the answer any more."""
        await order_cancel(self.bus, self.key)
        self.cancelled_ms = now_ms()

    async def forget(self) -> None:
        """Remove every trace of this request from NATS.

        Raises:
            Unconfirmed
        """
        for stop in self._stop:
            await quietly(stop())
        for seq in self.work_seqs:
            await self.bus.delete_stored(subjects.WORK_STREAM, seq)
        queues = {told.queue for told in self.witness.told.get(self.key, ())}
        for queue in filter(subjects.is_queue, queues):  # a worker may have named any
            for queued in await queued_refs(self.bus, queue):
                if queued.ref.key == self.key:
                    await self.bus.delete_stored(subjects.WORK_STREAM, queued.stream_seq)
        await self.bus.purge(subjects.log_stream(self.at.shard), subjects.log_subject(self.at))
        for subject in (subjects.cancel_subject(self.key), subjects.returned_subject(self.key)):
            await self.bus.purge(subjects.CANCEL_STREAM, subject)
        await self.bus.purge(f"KV_{subjects.ANSWERS_BUCKET}", subjects.kept_answer(self.key))
        for name in self.objects:
            await self.bus.delete_object(name)
