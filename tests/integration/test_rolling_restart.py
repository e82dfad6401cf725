"""Every process of a running Baton is replaced in turn, as a Deployment rolls, and nobody notices."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from bench.load.scenario import Scenario
from bench.load.users import Crowd
from bench.sockets import Address
from tests.servers.processes import Process, eventually
from tests.system import start, start_gateway, system, workers_alive

QUESTIONS = (
    "How many days of annual leave can I carry over?",
    "How many days of annual leave do I have left?",
    "公司年假政策有哪些？",
    "我还剩多少天年假？",
)
SCENARIO = Scenario(
    connections=40,
    running=10,
    answer_s=2.0,
    warm_up_s=0.0,
    duration_s=120.0,
    follow_ups=0.2,
    think_s=0.2,
    slow_readers=0.1,
    slow_s=0.5,
    reconnects=0.1,
    questions=QUESTIONS,
)
STAGES = {"retriever": "retrieve", "generator": "generate", "tools": "tools.default"}


def test_no_frame_is_lost_while_every_service_is_replaced_in_turn(tmp_path: Path) -> None:
    settings = {"BATON_EXTRACTIVE_DELAY_MS": "25", "BATON_DRAIN_S": "20"}
    with system(tmp_path, settings=settings) as one, contextlib.ExitStack() as replacements:
        crowd = Crowd(SCENARIO, Address(one.gateways[0]))

        async def answered(more: int) -> None:
            before = crowd.tally.asked
            await eventually(lambda: crowd.tally.asked >= before + more, f"{more} more are answered", 60)

        async def drained(process: Process) -> None:
            assert await asyncio.to_thread(process.stop, 40) == 0, process.text()[-2_000:]

        async def roll() -> int:
            await crowd.gather()
            asking = asyncio.create_task(crowd.ask())
            for service, stage in STAGES.items():
                await answered(3)
                old = one.processes[service][0]
                replacements.enter_context(start(one, service, 1))
                await eventually(lambda stage=stage: workers_alive(one.gateways[0])[stage] == 2, "both are there", 30)
                await drained(old)
            await answered(3)
            old = one.processes["gateway"][0]
            port = await asyncio.to_thread(replacements.enter_context, start_gateway(one, 1))
            crowd.address = Address(port)
            await drained(old)
            await answered(10)
            asking.cancel()
            return await crowd.finish(60)

        assert asyncio.run(roll()) == 0
        assert crowd.tally.wrong == []
        assert set(crowd.tally.outcomes) == {"stop"}, crowd.tally.outcomes
        assert set(crowd.tally.closed) <= {1012}, "the old gateway says that it goes"
        assert crowd.tally.closed[1012] > 0
