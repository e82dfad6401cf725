"""What an operator asks of a running system: the queue, who holds what, what was set aside.

Everything here only looks. It makes no stream and changes none, so it may run with any settings that reach NATS.
"""

from __future__ import annotations

import asyncio
import contextlib
from base64 import b64decode
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from nats.aio.msg import Msg

from baton_proto import codec, subjects
from baton_proto.messages import DeadWork, Holdings, WorkRef

from .bus import Bus

MAX_READ = 10_000
"""Most messages read from one stream at once."""


class Message(NamedTuple):
    """A message as a stream keeps it, with when it was stored (Unix ms)."""

    subject: str
    data: bytes
    stream_seq: int
    stored_ms: int


@dataclass(frozen=True, slots=True)
class StageQueue:
    """What the work queue says of one stage, or of a variant of it (`generate.b`). `waiting` was never delivered;
    `delivered` was, and is not settled."""

    stage: str
    waiting: int
    delivered: int
    last_delivered: int
    ack_wait_s: float


async def stage_queues(bus: Bus) -> list[StageQueue]:
    """The queue of each stage that has, or ever had, a worker.

    Raises:
        Unconfirmed
    """
    found: list[StageQueue] = []
    while True:
        answer = await bus.api(f"CONSUMER.LIST.{subjects.WORK_STREAM}", offset=len(found))
        consumers = answer.get("consumers") or []
        found += map(_stage_queue, consumers)
        if not consumers or len(found) >= int(answer.get("total", 0)):
            return sorted((queue for queue in found if subjects.is_queue(queue.stage)), key=lambda queue: queue.stage)


def _stage_queue(info: dict[str, Any]) -> StageQueue:
    subject: str = info["config"].get("filter_subject", "")
    return StageQueue(
        stage=subject.removeprefix(f"{subjects.PREFIX}.work."),
        waiting=int(info.get("num_pending", 0)),
        delivered=int(info.get("num_ack_pending", 0)),
        last_delivered=int(info.get("delivered", {}).get("stream_seq", 0)),
        ack_wait_s=int(info["config"].get("ack_wait", 0)) / 1e9,
    )


async def queue_lengths(bus: Bus) -> dict[str, int]:
    """How many items of each stage lie in the work queue, also of stages that no worker has ever served.

    Raises:
        Unconfirmed
    """
    answer = await bus.api(f"STREAM.INFO.{subjects.WORK_STREAM}", subjects_filter=">")
    prefix = f"{subjects.PREFIX}.work."
    counts: dict[str, int] = answer.get("state", {}).get("subjects") or {}
    stages = {subject.removeprefix(prefix): count for subject, count in sorted(counts.items())}
    return {stage: count for stage, count in stages.items() if subjects.is_queue(stage)}


async def read_stream(
    bus: Bus, stream: str, subject: str = ">", *, first: int = 1, last: int | None = None, limit: int = MAX_READ
) -> list[Message]:
    """The messages of a subject from stream sequence `first` to `last`, in order, `limit` at most, from the stream's
    leader. One request for each: these streams are small, and are looked at by people.

    Raises:
        Unconfirmed
    """
    found: list[Message] = []
    while len(found) < limit and (last is None or first <= last):
        one = await _next_message(bus, stream, subject, first)
        if one is None or (last is not None and one.stream_seq > last):
            break
        found.append(one)
        first = one.stream_seq + 1
    return found


async def still_there(bus: Bus, stream: str, stream_seq: int) -> bool:
    """Whether a stream still has the message of this sequence.

    Raises:
        Unconfirmed
    """
    return "message" in await bus.api(f"STREAM.MSG.GET.{stream}", seq=stream_seq)


async def log_shards(bus: Bus) -> int:
    """Over how many streams the logs of this NATS are spread.

    Raises:
        Unconfirmed
    """
    prefix = subjects.log_stream(0).removesuffix("0")
    answer = await bus.api("STREAM.NAMES", subject=f"{subjects.PREFIX}.log.>")
    return sum(name.startswith(prefix) for name in answer.get("streams") or [])


async def _next_message(bus: Bus, stream: str, subject: str, first: int) -> Message | None:
    answer = await bus.api(f"STREAM.MSG.GET.{stream}", seq=first, next_by_subj=subject)
    if (message := answer.get("message")) is None:
        return None
    stored = datetime.fromisoformat(message["time"])
    data = b64decode(message.get("data", ""))
    return Message(message["subject"], data, int(message["seq"]), round(stored.timestamp() * 1000))


# --- who holds what ---------------------------------------------------------------------------------------------------


async def gather_holdings(bus: Bus, seconds: float = 1.0) -> list[Holdings]:
    """What each worker says that it holds, of those that answer within `seconds`.

    Raises:
        Unconfirmed: there is no connection.
    """
    found: dict[str, Holdings] = {}

    async def on_answer(message: Msg) -> None:
        with contextlib.suppress(codec.WireError):
            holdings = codec.decode(message.data, Holdings)
            found[f"{holdings.stage} {holdings.worker}"] = holdings

    inbox = bus.client.new_inbox()
    subscription = await bus.subscribe(inbox, on_answer)
    try:
        await bus.publish(subjects.INVENTORY, b"", reply=inbox)
        await asyncio.sleep(seconds)
    finally:
        with contextlib.suppress(Exception):
            await subscription.unsubscribe()
    return [found[name] for name in sorted(found)]


class Queued(NamedTuple):
    """A reference in the work queue."""

    ref: WorkRef
    stream_seq: int
    stored_ms: int


async def queued_refs(bus: Bus, queue: str, last: int | None = None, limit: int = 1_000) -> list[Queued]:
    """The references in a work queue, oldest first, up to stream sequence `last`.

    Raises:
        Unconfirmed
    """
    found = []
    for one in await read_stream(bus, subjects.WORK_STREAM, subjects.work_subject(queue), last=last, limit=limit):
        with contextlib.suppress(codec.WireError):
            found.append(Queued(codec.decode(one.data, WorkRef), one.stream_seq, one.stored_ms))
    return found


class Dead(NamedTuple):
    """An item that was set aside, with all messages that tell of it: two workers may have done it at once."""

    work: DeadWork
    stream_seqs: tuple[int, ...]


async def dead_items(bus: Bus) -> list[Dead]:
    """The items that were set aside, the latest last.

    Raises:
        Unconfirmed
    """
    found: dict[str, Dead] = {}
    for one in await read_stream(bus, subjects.DEAD_STREAM):
        with contextlib.suppress(codec.WireError):
            work = codec.decode(one.data, DeadWork)
            earlier = found.pop(work.ref.key, None)
            found[work.ref.key] = Dead(work, (*(earlier.stream_seqs if earlier else ()), one.stream_seq))
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where the work item of a request is. `state` is `held` (a worker says so), `delivered` (somebody took it, but
    nobody says that he holds it), `waiting` (nobody has taken it yet), or `nowhere` (it is not in the queue)."""

    state: Literal["held", "delivered", "waiting", "nowhere"]
    worker: str | None = None
    since_ms: int | None = None
    deliveries: int | None = None
    ahead: int | None = None
    """Items of the stage that lie before it, as far as they were looked through."""


async def find_item(bus: Bus, key: str, queue: str, seq: int) -> Whereabouts:
    """Where the item is that frame `seq` of the log `key` put into `queue`.

    Raises:
        Unconfirmed
    """
    last_delivered = {one.stage: one.last_delivered for one in await stage_queues(bus)}
    queued = await queued_refs(bus, queue)
    for holdings in await gather_holdings(bus):
        for item in holdings.items:
            if item.key == key and item.seq == seq:
                return Whereabouts("held", holdings.worker, item.since_ms, item.deliveries)
    for ahead, one in enumerate(queued):
        if one.ref.key == key and one.ref.seq == seq:
            state: Literal["delivered", "waiting"] = (
                "delivered" if one.stream_seq <= last_delivered.get(queue, 0) else "waiting"
            )
            return Whereabouts(state, since_ms=one.stored_ms, ahead=ahead)
    return Whereabouts("nowhere")
