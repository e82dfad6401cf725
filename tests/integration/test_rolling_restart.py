"""Every process of a running Baton is replaced in turn, as a Deployment rolls, and nobody notices: by one of the same
version, or of the one before or behind it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from baton_proto import subjects
from bench.load.scenario import Scenario
from bench.load.users import Crowd
from bench.sockets import Address
from services.common.config import NatsSettings
from services.common.connection import connect
from tests.golden import previous
from tests.servers.processes import ROOT, Process, eventually
from tests.system import System, start, start_gateway, system, workers_alive

QUESTIONS = (
    "How many days of annual leave can I carry over?",
    "How many days of annual leave do I have left?",
    "公司年假政策有哪些？",
    "我还剩多少天年假？",
)
SCENARIO = Scenario(
    connections=40,
    running=5,
    answer_s=1.5,
    warm_up_s=0.0,
    duration_s=120.0,
    follow_ups=0.2,
    think_s=0.2,
    slow_readers=0.1,
    slow_s=0.5,
    reconnects=0.1,
    questions=QUESTIONS,
)
pytestmark = pytest.mark.timeout(300)  # processes start one after the other, each in its own time
STAGES = {"retriever": "retrieve", "generator": "generate", "tools": "tools.default"}


class Roll:
    """Users who ask all the time, and processes that are replaced under them."""

    def __init__(self, one: System) -> None:
        self.crowd = Crowd(SCENARIO, Address(one.gateways[0]))
        self._one = one
        self._started = contextlib.ExitStack()

    async def through(self, versions: Sequence[Path]) -> int:
        """Replace every service in turn by each version in turn; how many questions had no end then."""
        with self._started:
            await self.crowd.gather()
            asking = asyncio.create_task(self.crowd.ask())
            for number, version in enumerate(versions, start=1):
                for service in STAGES:
                    await self._worker(service, number, version)
                await self._gateway(number, version)
            await self._answered(self.crowd.tally.asked, 5)
            asking.cancel()
            return await self.crowd.finish(60)

    async def _worker(self, service: str, number: int, version: Path) -> None:
        before, port = self.crowd.tally.asked, self.crowd.address.port
        old = self._one.processes[service][-1]
        self._started.enter_context(start(self._one, service, number, version))
        await eventually(lambda: workers_alive(port).get(STAGES[service]) == 2, "both are there", 60)
        await self._answered(before, 3)
        await _drained(old)

    async def _gateway(self, number: int, version: Path) -> None:
        before, old = self.crowd.tally.asked, self._one.processes["gateway"][-1]
        port = await asyncio.to_thread(self._started.enter_context, start_gateway(self._one, number, version))
        await self._answered(before, 3)
        self.crowd.address = Address(port)
        await _drained(old)

    async def _answered(self, before: int, more: int) -> None:
        await eventually(lambda: self.crowd.tally.asked >= before + more, f"{more} more are answered", 60)


async def _drained(process: Process) -> None:
    assert await asyncio.to_thread(process.stop, 40) == 0, process.text()[-2_000:]


def _rolls_unnoticed(folder: Path, versions: Sequence[Path], drain_s: float) -> int:
    """How many answers a worker has begun and given back, for the next one to end."""
    settings = {"BATON_EXTRACTIVE_DELAY_MS": "15", "BATON_DRAIN_S": str(drain_s)}
    with system(folder, settings=settings, root=versions[0]) as one:
        roll = Roll(one)
        assert asyncio.run(roll.through(versions[1:])) == 0
        given_back = asyncio.run(_given_back(one))
    tally = roll.crowd.tally
    assert tally.wrong == []
    assert set(tally.outcomes) == {"stop"}, tally.outcomes
    assert set(tally.closed) <= {1012}, "the old gateway says that it goes"
    assert tally.closed[1012] > 0
    return given_back


async def _given_back(one: System) -> int:
    async with connect(NatsSettings(url=one.nats.url), "test") as bus:
        state = await bus.api(f"STREAM.INFO.{subjects.CANCEL_STREAM}", subjects_filter=f"{subjects.PREFIX}.returned.*")
    return len(state["state"].get("subjects") or ())


def test_no_frame_is_lost_while_every_service_is_replaced_in_turn(tmp_path: Path) -> None:
    _rolls_unnoticed(tmp_path, [ROOT, ROOT], drain_s=20)


def test_no_frame_is_lost_while_the_version_before_is_replaced_by_this_one_and_back(tmp_path: Path) -> None:
    # Answers outlive the drain: what one version has begun, the other ends.
    assert _rolls_unnoticed(tmp_path, [previous(), ROOT, previous()], drain_s=0.5) > 0
