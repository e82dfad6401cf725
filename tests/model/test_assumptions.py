"""What the model takes for granted about NATS, on a real server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest
from nats.aio.msg import Msg

from baton_proto import subjects
from services.common import streams
from services.common.bus import Bus, Refused, end_tasks
from services.common.config import NatsSettings
from services.common.connection import connect
from tests.servers.nats import Nats

pytestmark = pytest.mark.anyio

STAGE = "generate"
KEY = "0" * 32
ACK_WAIT_S, LONG_S = 0.5, 40.0


@pytest.fixture
async def bus(nats: Nats) -> AsyncIterator[Bus]:
    async with connect(NatsSettings(url=nats.url, log_storage="memory", shards=1), "model") as bus:
        await streams.ensure(bus)
        await streams.ensure_consumer(bus, STAGE, ACK_WAIT_S, 1)
        yield bus


async def deliver(bus: Bus, seconds: float = 5.0) -> Msg | None:
    """The next delivery of the stage's queue; None if there is none within so long."""
    request = {"batch": 1, "expires": int(seconds * 1e9)}
    pull = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.WORK_STREAM}.{subjects.work_consumer(STAGE)}"
    answer = await bus.client.request(pull, json.dumps(request).encode(), timeout=seconds + 2, old_style=True)
    return None if answer.headers and "Status" in answer.headers else answer


async def in_queue(bus: Bus) -> int:
    return int((await bus.stream_state(subjects.WORK_STREAM))["messages"])


async def test_a_refused_append_is_seen_on_the_subject_written_to_and_never_on_the_live_one(bus: Bus) -> None:
    at = subjects.address(KEY, 1)
    plain, live, both = [], [], asyncio.Event()

    def heard(data: bytes, where: list[bytes]) -> None:
        where.append(data)
        if b"second" in plain and b"second" in live:
            both.set()

    async def on_plain(message: Msg) -> None:
        heard(message.data, plain)

    await bus.subscribe(subjects.log_subject(at), on_plain)
    await bus.follow(at, lambda stored: heard(stored.data, live))
    last = await bus.append(at, b"first", 0)
    with pytest.raises(Refused):
        await bus.append(at, b"of one that was replaced", 0)
    await bus.append(at, b"second", last)
    async with asyncio.timeout(60):
        await both.wait()
    assert plain == [b"first", b"of one that was replaced", b"second"]
    assert live == [b"first", b"second"]


async def test_a_message_id_is_known_also_after_its_item_is_acknowledged(bus: Bus) -> None:
    await bus.push_work(STAGE, b"item", "k.1")
    await bus.push_work(STAGE, b"item", "k.1")
    assert await in_queue(bus) == 1
    first = await deliver(bus)
    assert first is not None
    await bus.request(first.reply, b"+ACK")
    await bus.push_work(STAGE, b"item", "k.1")
    assert await in_queue(bus) == 0


async def test_a_late_acknowledgement_removes_the_item_from_whoever_has_it_now(bus: Bus) -> None:
    await bus.push_work(STAGE, b"item", "k.1")
    first, second = await deliver(bus), await deliver(bus)
    assert first is not None
    assert second is not None
    assert second.metadata.num_delivered == 2
    await bus.request(first.reply, b"+ACK")
    assert await in_queue(bus) == 0


async def test_a_late_give_back_takes_the_item_from_whoever_has_it_now(bus: Bus) -> None:
    await bus.push_work(STAGE, b"item", "k.1")
    first, second = await deliver(bus), await deliver(bus)
    assert first is not None
    assert second is not None
    await streams.ensure_consumer(bus, STAGE, LONG_S, 1)  # nobody gets it any more because somebody was slow
    await bus.request(second.reply, b"+WPI")
    await bus.request(first.reply, b"-NAK")
    third = await deliver(bus, LONG_S / 2)
    assert third is not None
    assert third.metadata.num_delivered == 3


async def test_a_late_renewal_holds_off_the_redelivery(bus: Bus) -> None:
    await bus.push_work(STAGE, b"item", "k.1")
    first, second = await deliver(bus), await deliver(bus)
    renewed, gap_s = 0.0, 0.0

    async def renew_what_is_not_ours(reply: str) -> None:
        nonlocal renewed, gap_s
        while True:
            await bus.request(reply, b"+WPI")
            gap_s, renewed = max(gap_s, time.monotonic() - renewed), time.monotonic()
            await asyncio.sleep(ACK_WAIT_S / 8)

    for _ in range(10):
        assert first is not None
        assert second is not None
        renewed, gap_s = time.monotonic(), 0.0
        renewing = asyncio.create_task(renew_what_is_not_ours(first.reply))
        third = await deliver(bus, 2 * ACK_WAIT_S)
        await end_tasks(renewing)
        if max(gap_s, time.monotonic() - renewed) < ACK_WAIT_S / 2:
            break
        # The machine stood still, so that nothing was renewed: that shows nothing.
        first, second = second, third or await deliver(bus)
    assert third is None
    assert await deliver(bus) is not None
