"""Work that reaches a worker which stood still: whose it is by the time it wakes up."""

from __future__ import annotations

import time

import pytest
from prometheus_client import REGISTRY

from baton_proto.messages import Done, Timings, Usage
from services.common import queue
from services.common.job import Job
from tests.rig import Rig, run_rig
from tests.servers.nats import Nats
from tests.servers.processes import eventually

DONE = Done(finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=Timings())


def _late() -> float:
    return REGISTRY.get_sample_value("baton_work_items_total", {"stage": "retrieve", "outcome": "late"}) or 0.0


def test_an_item_that_was_delivered_while_the_worker_stood_still_is_left_to_its_next_holder(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "BEAT_S", 1_000.0)  # the test beats

    async def scenario(one: Rig) -> None:
        taken: list[str] = []

        async def handle(job: Job) -> None:
            taken.append(job.item.request_id)
            await job.finish(DONE)

        item = one.item()
        async with one.worker(handle, ack_wait_s=2.0) as sleeper:
            puller = sleeper.worker._puller
            await eventually(lambda: puller._open, "it has asked for work")
            assert await one.settled()  # and it has begun to beat
            # What a worker sees that was stopped by a signal: work has arrived, and much time has passed.
            puller._beat_at = time.monotonic() - 60
            before = _late()
            await one.start(item)
            await eventually(lambda: _late() > before, "the late item is let go")
            assert taken == []
            puller._beat_at = time.monotonic() + 60
            # Not settled either: the queue delivers it again, and then it is in time.
            await one.ended(item)
            assert taken == [item.request_id]
            assert await one.settled()

    run_rig(nats, scenario)


def test_a_worker_that_does_not_stand_still_finds_no_item_late(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        async def handle(job: Job) -> None:
            await job.finish(DONE)

        async with one.worker(handle, ack_wait_s=2.0) as worker:
            await eventually(lambda: worker.worker._puller._open, "it has asked for work")
            idle = time.monotonic()
            await eventually(lambda: time.monotonic() - idle > queue.FROZEN_S + 0.5, "it has been idle for long")
            before = _late()
            item = one.item()
            await one.start(item)
            await one.ended(item)
            assert _late() == before

    run_rig(nats, scenario)
