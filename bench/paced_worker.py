"""A worker process that answers with paced chunks; each begins with the moment it was made.

A query is `FRAMES RATE SIZE`: how many chunks, how many a second, of how many characters.
"""

from __future__ import annotations

import asyncio
import sys
import time

from baton_proto import subjects
from baton_proto.messages import AnswerChunk, Done, Timings, Usage
from services.common.config import NatsSettings, WorkerSettings
from services.common.connection import connect
from services.common.job import Job
from services.common.process import stop_on_signals
from services.common.worker import Worker


async def answer(job: Job) -> None:
    frames, rate, size = job.item.query.split()
    started = time.perf_counter()
    for number in range(int(frames)):
        await asyncio.sleep(max(0.0, started + number / float(rate) - time.perf_counter()))
        await job.write(AnswerChunk(content=f"{time.perf_counter():.7f} ".ljust(int(size))))
    await job.finish(Done(finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=Timings()))


async def main(url: str) -> None:
    async with connect(NatsSettings(url=url), "paced-worker") as bus:
        worker = Worker(bus, subjects.RETRIEVE, answer, WorkerSettings(concurrency=1_000, ack_wait_s=30.0))
        await worker.run(stop_on_signals(), 1.0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
