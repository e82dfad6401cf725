"""What the log costs: fenced appends relayed from what is stored, against plain NATS publishing, in the same run.

`make bench`. Both sides carry the same frames from a writer to a reader on its own connection, on a real nats-server.
Absolute times depend on the machine; the ratios are the result.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from nats.aio.msg import Msg

from baton_proto import codec, subjects
from baton_proto.messages import AnswerChunk, LogEntry
from baton_proto.sequencer import Sequencer
from services.common import streams
from services.common.bus import Bus
from services.common.config import NatsSettings
from services.common.connection import connect
from services.common.log import LogWriter
from tests.servers.nats import nats_server

Emit = Callable[[str], Awaitable[None]]


async def paced(emit: Emit, frames: int, rate: float) -> None:
    """One answer: `frames` pieces at `rate` a second, each carrying the moment it was made."""
    started = time.perf_counter()
    for number in range(frames):
        await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
        await emit(f"{time.perf_counter():.7f}".ljust(24))


class Arrivals:
    """Counts the frames of one answer as they arrive, and how long each was on its way."""

    def __init__(self, frames: int, took: list[float]) -> None:
        self._missing = frames
        self._took = took
        self._all = asyncio.Event()

    def entry(self, data: bytes) -> None:
        for frame in codec.decode(data, LogEntry).frames:
            assert isinstance(frame, AnswerChunk)
            self._took.append(time.perf_counter() - float(frame.content))
            self._missing -= 1
        if self._missing == 0:
            self._all.set()

    async def complete(self) -> None:
        await asyncio.wait_for(self._all.wait(), 30)


async def logged(writer: Bus, reader: Bus, key: str, frames: int, rate: float, took: list[float]) -> None:
    at = writer.address(key)
    arrivals = Arrivals(frames, took)
    stop = await reader.follow(at, lambda stored: arrivals.entry(stored.data))
    await reader.client.flush()
    async with LogWriter(writer, at, Sequencer("bench", "bench")) as log:
        await paced(lambda content: log.write(AnswerChunk(content=content)), frames, rate)
        await log.flush()
        await arrivals.complete()
    await stop()


async def plain(writer: Bus, reader: Bus, key: str, frames: int, rate: float, took: list[float]) -> None:
    arrivals = Arrivals(frames, took)

    async def on_message(message: Msg) -> None:
        arrivals.entry(message.data)

    subscription = await reader.subscribe(f"bench.{key}", on_message)
    await reader.client.flush()
    sequencer = Sequencer("bench", "bench")

    async def emit(content: str) -> None:
        sequencer.add(AnswerChunk(content=content))
        append = sequencer.next_append()
        assert append is not None
        await writer.publish(f"bench.{key}", codec.encode(append.entry))
        sequencer.stored(append.expected + 1)

    await paced(emit, frames, rate)
    await arrivals.complete()
    await subscription.unsubscribe()


async def measure(args: argparse.Namespace, url: str) -> None:
    settings = NatsSettings(url=url, log_storage=args.storage)
    async with connect(settings, "writer") as writer, connect(settings, "reader") as reader:
        await streams.ensure(writer)
        print(f"{args.requests} answers at once, {args.frames} frames each, {args.rate:g} a second, {args.storage}\n")
        print(f"{'':28}{'p50 ms':>9}{'p99 ms':>9}{'CPU us/frame':>15}")
        results = []
        for name, carry in (("plain publish (baseline)", plain), ("fenced append, republished", logged)):
            took: list[float] = []
            cpu = time.process_time()
            keys = [subjects.request_key(name, str(number)) for number in range(args.requests)]
            await asyncio.gather(*(carry(writer, reader, key, args.frames, args.rate, took) for key in keys))
            cpu = (time.process_time() - cpu) / len(took)
            cuts = statistics.quantiles(took, n=100)
            results.append((cuts[49], cuts[98], cpu))
            print(f"{name:28}{cuts[49] * 1e3:9.2f}{cuts[98] * 1e3:9.2f}{cpu * 1e6:15.1f}")
        ratios = [logged / plain for plain, logged in zip(*results, strict=True)]
        print(f"{'ratio':28}{ratios[0]:9.2f}{ratios[1]:9.2f}{ratios[2]:15.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=50)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--rate", type=float, default=20.0, help="frames a second of one answer")
    parser.add_argument("--storage", choices=("file", "memory"), default="file")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        nats = stack.enter_context(nats_server(folder))
        asyncio.run(measure(args, nats.url))


if __name__ == "__main__":
    main()
