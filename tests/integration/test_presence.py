"""Who is alive, while NATS itself is not: its silence is nobody's absence."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

from services.common.config import NatsSettings
from services.common.connection import connect
from services.common.job import Job
from services.common.presence import Presence, watch
from tests.rig import rig
from tests.servers.nats import Nats, nats_server
from tests.servers.processes import eventually, freeze

TWICE = 2.0
"""How much faster the table's clock goes: it forgets in 2 s what it has not heard."""


def fast_clock() -> float:
    return time.monotonic() * TWICE


async def idle(_: Job) -> None:
    raise AssertionError("there is no work")


def alive(presence: Presence) -> int:
    return len(presence.live("retrieve"))


def test_workers_stay_known_while_nats_is_away_and_a_dead_one_is_forgotten_afterwards(tmp_path: Path) -> None:
    async def scenario() -> None:
        with nats_server(tmp_path) as first:
            port = first.port
            async with (
                connect(NatsSettings(url=first.url), "watcher") as bus,
                rig(first.url) as one,
                watch(bus, fast_clock) as presence,
                one.worker(idle),
                one.worker(idle) as mortal,
            ):
                await eventually(lambda: alive(presence) == 2 and presence.settled, "both workers are known")
                first.process.stop()
                await eventually(lambda: not presence.settled, "the outage is noticed")
                await mortal.die()
                await _never_less_than(2, presence, seconds=3.0)
                with nats_server(tmp_path, port):
                    await eventually(lambda: alive(presence) == 1 and presence.settled, "the dead one is forgotten")
                    await _never_less_than(1, presence, seconds=1.0)

    asyncio.run(scenario())


def test_a_server_that_hangs_is_noticed_though_its_connections_stand(nats: Nats) -> None:
    async def scenario() -> None:
        async with rig(nats.url) as one, watch(one.bus, fast_clock) as presence, one.worker(idle):
            await eventually(lambda: alive(presence) == 1 and presence.settled, "the worker is known")
            freeze(nats.process.pid)
            try:
                await eventually(lambda: not presence.settled, "it is noticed that nobody can be heard")
                await _never_less_than(1, presence, seconds=2.5)
            finally:
                os.kill(nats.process.pid, signal.SIGCONT)
            await eventually(lambda: presence.settled, "it listens again")
            await _never_less_than(1, presence, seconds=0.5)

    asyncio.run(scenario())


async def _never_less_than(least: int, presence: Presence, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        assert alive(presence) >= least
        await asyncio.sleep(0.05)
