"""What a gateway reads from NATS for its metrics."""

from __future__ import annotations

import msgspec

from services.common import metrics
from services.common.job import Job
from services.common.presence import watch
from services.gateway.gauges import SHARES, Gauges
from tests.measured import measured
from tests.rig import Rig, run_rig
from tests.servers.nats import Nats
from tests.servers.processes import eventually


async def idle(_: Job) -> None:
    raise AssertionError("it is never given anything")


def test_backlog_fill_and_workers_are_told_by_stage_and_a_lost_stage_as_none(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        async with watch(one.bus) as presence:
            gauges = Gauges(one.bus, presence)
            async with one.worker(idle, "generate"), one.worker(idle, "tools.default"):
                await eventually(lambda: len(presence.counts()) == 2, "both are heard of")
                gauges.see_workers()
                assert measured("baton_workers", stage="generate") == 1
                assert measured("baton_workers", stage="retrieve") == 0
                assert measured("baton_worker_slots", stage="tools.default") == 16
            await eventually(lambda: not presence.counts(), "both have left")
            gauges.see_workers()
            assert measured("baton_workers", stage="tools.default") == 0
            assert measured("baton_worker_slots", stage="generate") == 0
            for _ in range(3):
                await one.start(one.item(stage="generate"))

            async def told() -> bool:
                await gauges.look()
                return measured("baton_work_queued", stage="generate") == 3

            await eventually(told, "all three wait")  # a consumer counts a message a moment after it is stored
            assert measured("baton_work_queued", stage="retrieve") == 0
            assert measured("baton_stream_fill_ratio", stream="work") == 0.3
            for _ in range(SHARES - 1):
                await gauges.look()
            assert 0 < measured("baton_stream_fill_ratio", stream="log") < 0.01

    run_rig(nats, scenario, work_max_items=10)


def test_only_so_many_stages_are_told_apart(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        async with watch(one.bus) as presence, one.worker(idle, "tools.x") as worker:
            announced = worker.worker.announcement()
            for number in range(200):
                presence.hear(msgspec.structs.replace(announced, stage=f"tools.many-{number}"))
            Gauges(one.bus, presence).see_workers()
        stages = {sample.labels["stage"] for family in metrics.WORKERS.collect() for sample in family.samples}
        assert len([stage for stage in stages if stage.startswith("tools.many-")]) <= 50

    run_rig(nats, scenario)
