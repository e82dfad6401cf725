"""How soon a worker has what was put into the work queue, against a plain pull consumer of nats-py in the same run.

Part of `make bench`. Both queues are JetStream work queues on one nats-server, and whoever puts an item in waits until
it is stored. The baseline fetches and acknowledges, and that is all. A worker of Baton first asks the request's log
whether the item is its latest hand-off, listens for cancel orders and looks for one that came before; it has settled
the item when the log has its last frame, its end is recorded, and the acknowledgement is confirmed.

1. The time from putting in an item to the handler's beginning, one after the other, the sides taking turns.
2. How many items are settled in a second, so many put in at once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nats.errors import TimeoutError as NothingCame
from nats.js.api import RetentionPolicy, StreamConfig

from baton_proto import subjects
from baton_proto.messages import Done, Timings, Usage, WorkRef
from evaluation.ranks import percentile
from services.common.bus import Bus, end_tasks
from services.common.connection import connect
from services.common.job import Job
from services.common.log import push_ref
from tests.rig import Rig, rig
from tests.servers.nats import nats_server
from tests.servers.processes import eventually

AT_ONCE = 64
WITHIN_S = 60.0


@dataclass
class Seen:
    """What a worker has seen: when each item began; `left` are those that are still to come."""

    began: dict[str, float] = field(default_factory=dict)
    left: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, name: str) -> None:
        self.began[name] = time.perf_counter()
        self.left -= 1
        self._changed.set()

    async def all(self) -> None:
        """Wait until nothing is left."""
        async with asyncio.timeout(WITHIN_S):
            while self.left > 0:
                self._changed.clear()
                await self._changed.wait()


@dataclass(frozen=True)
class Side:
    """One of the two queues. `prepare` makes what `put` puts in, and `put` says under which name it will be seen."""

    name: str
    stream: str
    seen: Seen
    prepare: Callable[[], Awaitable[Any]]
    put: Callable[[Any], Awaitable[str]]


@contextlib.asynccontextmanager
async def baton(one: Rig) -> AsyncIterator[Side]:
    seen = Seen()

    async def handle(job: Job) -> None:
        seen.begin(job.item.key)
        await job.finish(Done(finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=Timings()))

    async def prepare() -> WorkRef:
        """A request whose log has begun."""
        return await one.start(one.item(), push=False)

    async def put(ref: WorkRef) -> str:
        await push_ref(one.bus, ref)
        return ref.key

    async with one.worker(handle, concurrency=AT_ONCE, ack_wait_s=30.0):
        yield Side("a Baton worker", subjects.WORK_STREAM, seen, prepare, put)


@contextlib.asynccontextmanager
async def plain(one: Rig) -> AsyncIterator[Side]:
    """What nats-py offers for a work queue, on connections of its own."""
    seen = Seen()
    async with connect(one.settings, "plain-in") as sender, connect(one.settings, "plain-out") as worker:
        js = sender.client.jetstream(timeout=30)
        config = StreamConfig(name="BENCH", subjects=["bench.work"], retention=RetentionPolicy.WORK_QUEUE)
        await js.add_stream(config)
        consumer = await worker.client.jetstream(timeout=30).pull_subscribe("bench.work", durable="bench")

        async def serve() -> None:
            while True:
                with contextlib.suppress(NothingCame):
                    # Never more than will come: for the missing ones it would wait.
                    for message in await consumer.fetch(min(AT_ONCE, max(1, seen.left)), timeout=1.0):
                        seen.begin(message.data.decode())
                        await message.ack()

        async def prepare() -> str:
            return secrets.token_hex(16)

        async def put(name: str) -> str:
            await js.publish("bench.work", name.encode())
            return name

        serving = asyncio.create_task(serve())
        try:
            yield Side("nats-py, fetch and ack (baseline)", "BENCH", seen, prepare, put)
        finally:
            await end_tasks(serving)


async def one_item(side: Side) -> float:
    """Seconds until it began."""
    item = await side.prepare()
    side.seen.left = 1
    started = time.perf_counter()
    name = await side.put(item)
    await side.seen.all()
    return side.seen.began[name] - started


async def many_items(side: Side, bus: Bus, items: int) -> float:
    """How many were settled in a second."""
    prepared = [await side.prepare() for _ in range(items)]
    side.seen.left = items
    started = time.perf_counter()
    for some in range(0, items, AT_ONCE):
        await asyncio.gather(*(side.put(item) for item in prepared[some : some + AT_ONCE]))
    await side.seen.all()

    async def empty() -> bool:
        return (await bus.stream_state(side.stream)).get("messages") == 0

    await eventually(empty, "everything is settled", WITHIN_S)
    return items / (time.perf_counter() - started)


async def measure(url: str, one_by_one: int, items: int, rounds: int) -> tuple[float, float]:
    """Print the comparison; returns the ratios of the median times and of the rates."""
    async with rig(url, shards=16) as one, plain(one) as baseline, baton(one) as ours:
        sides = (baseline, ours)
        for side in sides:
            for _ in range(10):  # everything is warm then
                await one_item(side)
        took: dict[str, list[float]] = {side.name: [] for side in sides}
        rates: dict[str, list[float]] = {side.name: [] for side in sides}
        for _ in range(one_by_one):
            for side in sides:
                took[side.name].append(await one_item(side))
        for _ in range(rounds):
            for side in sides:
                rates[side.name].append(await many_items(side, one.bus, items))
    print(
        f"{one_by_one} items one after the other, until the handler has them; {items} at once, until they are settled\n"
    )
    print(f"{'':35}{'p50 ms':>9}{'p99 ms':>9}{'items/s':>9}")
    rows = [
        (percentile(took[side.name], 50), percentile(took[side.name], 99), statistics.median(rates[side.name]))
        for side in sides
    ]
    for side, (p50, p99, rate) in zip(sides, rows, strict=True):
        print(f"{side.name:35}{p50 * 1e3:9.2f}{p99 * 1e3:9.2f}{rate:9.0f}")
    ratios = [mine / theirs for theirs, mine in zip(*rows, strict=True)]
    print(f"{'ratio':35}{ratios[0]:9.2f}{ratios[1]:9.2f}{ratios[2]:9.2f}")
    return ratios[0], ratios[2]


def run(one_by_one: int, items: int, rounds: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder, nats_server(Path(folder)) as nats:
        return asyncio.run(measure(nats.url, one_by_one, items, rounds))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one-by-one", type=int, default=300)
    parser.add_argument("--items", type=int, default=640, help="at once")
    parser.add_argument("--rounds", type=int, default=3, help="of items at once")
    args = parser.parse_args()
    run(args.one_by_one, args.items, args.rounds)
