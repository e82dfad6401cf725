"""Who is alive, while NATS itself is not: its silence is nobody's absence."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

from services.common.bus import Bus
from services.common.config import NatsSettings
from services.common.connection import connect
from services.common.job import Job
from services.common.presence import Presence, watch
from tests.rig import rig
from tests.servers.nats import Nats, nats_server
from tests.servers.processes import eventually, freeze

FASTER = 1.5
"""How much faster the table's clock goes: it forgets in 2.7 s what it has not heard."""
TICK_S = 0.02


class Clock:
    """A clock that stands still while this process does: what nobody could hear then, nobody has missed."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    async def tick(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(TICK_S)
            self._now += FASTER * min(time.monotonic() - before, 5 * TICK_S)


@contextlib.asynccontextmanager
async def watching(bus: Bus) -> AsyncIterator[Presence]:
    clock = Clock()
    ticking = asyncio.create_task(clock.tick())
    try:
        async with watch(bus, clock) as presence:
            yield presence
    finally:
        ticking.cancel()


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
                watching(bus) as presence,
                one.worker(idle),
                one.worker(idle) as mortal,
            ):
                await eventually(lambda: alive(presence) == 2 and presence.settled, "both workers are known")
                first.process.stop()
                await eventually(lambda: not presence.settled, "the outage is noticed")
                await mortal.die()
                await _never_less_than(2, presence, seconds=4.0)
                with nats_server(tmp_path, port):
                    await eventually(lambda: alive(presence) == 1 and presence.settled, "the dead one is forgotten")
                    await _never_less_than(1, presence, seconds=1.0)

    asyncio.run(scenario())


def test_a_server_that_hangs_is_noticed_though_its_connections_stand(nats: Nats) -> None:
    async def scenario() -> None:
        async with rig(nats.url) as one, watching(one.bus) as presence, one.worker(idle):
            await eventually(lambda: alive(presence) == 1 and presence.settled, "the worker is known")
            freeze(nats.process.pid)
            try:
                await eventually(lambda: not presence.settled, "it is noticed that nobody can be heard")
                await _never_less_than(1, presence, seconds=3.5)
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
