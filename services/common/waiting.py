"""References that wait for their user's turn before they go to the first stage, and how full the stages are.

A reference waits as a message on its lane's subject. Nobody owns it: any gateway may move it on. Moving is publishing
it to the work queue, under the message id that names the hand-off, and only then removing it here; so two gateways that
move the same one have moved it once, and one that dies in between has lost nothing.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Iterable
from typing import NamedTuple

from baton_proto import codec, subjects
from baton_proto.messages import WorkRef

from .bus import Bus, Unconfirmed


class Waiting(NamedTuple):
    """A reference that waits; `seq` is its stream sequence."""

    seq: int
    data: bytes


class StreamState(NamedTuple):
    """`messages` are in the stream, `removed` have left it since it was made."""

    messages: int
    removed: int


async def put(bus: Bus, lane: str, ref: WorkRef) -> None:
    """Let a reference wait in a lane; the same one put again waits once.

    Raises:
        Full, Unconfirmed
    """
    message_id = subjects.work_message_id(ref.key, ref.seq)
    await bus.store(subjects.waiting_subject(lane), codec.encode(ref), {"Nats-Msg-Id": message_id})


async def lanes(bus: Bus) -> dict[str, int]:
    """How many references wait in each lane that has any.

    Raises:
        Unconfirmed
    """
    answer = await bus.api(f"STREAM.INFO.{subjects.WAITING_STREAM}", subjects_filter=">")
    counts = answer.get("state", {}).get("subjects") or {}
    return {subjects.parse_waiting(subject): int(count) for subject, count in counts.items()}


async def first(bus: Bus, lane: str | None, most: int) -> list[Waiting]:
    """The longest waiting references of a lane (of all lanes together: None), oldest first.

    Raises:
        Unconfirmed
    """
    subject = subjects.waiting_subject(lane) if lane is not None else f"{subjects.PREFIX}.waiting.*"
    found: list[Waiting] = []
    while len(found) < most:
        after = found[-1].seq + 1 if found else 1
        answer = await bus.api(f"STREAM.MSG.GET.{subjects.WAITING_STREAM}", seq=after, next_by_subj=subject)
        if (message := answer.get("message")) is None:
            break
        found.append(Waiting(int(message["seq"]), b64decode(message.get("data", ""))))
    return found


async def remove(bus: Bus, seq: int) -> None:
    """A reference waits no longer. Harmless when somebody else has removed it.

    Raises:
        Unconfirmed
    """
    await bus.delete_stored(subjects.WAITING_STREAM, seq)


async def stream_state(bus: Bus, stream: str) -> StreamState:
    """How much is in a stream, and how much has been.

    Raises:
        Unconfirmed
    """
    if not (state := await bus.stream_state(stream)):
        raise Unconfirmed(f"nothing is known of the stream {stream}")
    return StreamState(int(state["messages"]), int(state["last_seq"]) - int(state["messages"]))


async def undelivered(bus: Bus, queues: Iterable[str]) -> dict[str, int]:
    """How many items of each work queue no worker has taken yet.

    Raises:
        Unconfirmed
    """

    async def of(queue: str) -> tuple[str, int]:
        answer = await bus.api(f"CONSUMER.INFO.{subjects.WORK_STREAM}.{subjects.work_consumer(queue)}")
        return queue, int(answer.get("num_pending", 0))

    return dict(await asyncio.gather(*map(of, queues)))
