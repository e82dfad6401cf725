"""NATS itself fails while answers run: one server, with its streams on disk or in memory, and one of three."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import msgspec

from baton_proto import subjects
from baton_proto.messages import AnswerChunk, Done, Error, LogFrame, Timings, Usage, WorkItem
from services.common.bus import Bus, Unconfirmed
from services.common.job import Job
from tests.rig import Rig, rig
from tests.servers.nats import nats_cluster, nats_server
from tests.servers.processes import eventually, free_port

CHUNKS = 60
PAUSE_S = 0.05


async def retrieve(job: Job) -> None:
    await job.hand_over(AnswerChunk(content=""), msgspec.structs.replace(job.item, stage="generate"))


class Counting:
    """Answers of three seconds that go on where an earlier holder stopped; none ends before NATS has `failed`."""

    def __init__(self) -> None:
        self.failed = asyncio.Event()

    async def answer(self, job: Job) -> None:
        for number in range(len(job.written), CHUNKS):
            if number == CHUNKS // 2:
                await self.failed.wait()
            await asyncio.sleep(PAUSE_S)
            await job.write(AnswerChunk(content=f"{number} "))
        await job.finish(Done(finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=Timings()))


def text(frames: list[LogFrame]) -> str:
    return "".join(frame.content for frame in frames if isinstance(frame, AnswerChunk))


WHOLE = "".join(f"{number} " for number in range(CHUNKS))


async def _halfway(one: Rig, items: list[WorkItem]) -> None:
    async def far_enough() -> bool:
        return all([len(await one.frames(item)) > 10 for item in items])

    await eventually(far_enough, "every answer has begun", 60)


class Watch:
    """Looks at a log all the time; `longest_s` is the longest time in which nothing was stored."""

    def __init__(self, one: Rig, item: WorkItem) -> None:
        self._one = one
        self._item = item
        self.longest_s = 0.0

    async def to_the_end(self) -> list[LogFrame]:
        frames: list[LogFrame] = []
        moved = time.monotonic()
        async with asyncio.timeout(60):
            while not frames or not isinstance(frames[-1], Done | Error):
                with contextlib.suppress(Unconfirmed):
                    found = await self._one.frames(self._item)
                    if len(found) > len(frames):
                        self.longest_s = max(self.longest_s, time.monotonic() - moved)
                        frames, moved = found, time.monotonic()
                await asyncio.sleep(0.05)
        return frames


def test_answers_go_on_after_the_only_server_was_killed_and_started_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        counting = Counting()
        port = free_port()
        with nats_server(tmp_path, port) as first:
            async with (
                rig(first.url) as one,
                one.worker(retrieve, ack_wait_s=2.0),
                one.worker(counting.answer, "generate", ack_wait_s=2.0),
            ):
                items = [one.item() for _ in range(5)]
                for item in items:
                    await one.start(item)
                await _halfway(one, items)
                first.process.kill()
                counting.failed.set()
                with nats_server(tmp_path, port):
                    for item in items:
                        assert text(await one.ended(item, within_s=60)) == WHOLE
                    await one.settled(60)

    asyncio.run(scenario())


def test_a_server_that_forgot_everything_is_given_its_streams_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        counting = Counting()
        port = free_port()
        with nats_server(tmp_path / "one", port) as first:
            async with (
                rig(first.url, log_storage="memory") as one,
                one.worker(retrieve, ack_wait_s=2.0),
                one.worker(counting.answer, "generate", ack_wait_s=2.0),
            ):
                item = one.item()
                await one.start(item)
                await _halfway(one, [item])
                first.process.kill()
                counting.failed.set()
                with nats_server(tmp_path / "two", port):
                    item = one.item()
                    async with asyncio.timeout(60):
                        await one.start(item)
                    assert text(await one.ended(item, within_s=60)) == WHOLE

    asyncio.run(scenario())


def test_answers_go_on_when_the_leader_of_log_and_queue_is_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        counting = Counting()
        with nats_cluster(tmp_path) as cluster:
            async with (
                rig(cluster.url, replicas=3) as one,
                one.worker(retrieve, ack_wait_s=5.0),
                one.worker(counting.answer, "generate", ack_wait_s=5.0),
                one.worker(counting.answer, "generate", ack_wait_s=5.0),
            ):
                items = [one.item() for _ in range(8)]
                for item in items:
                    await one.start(item)
                await _halfway(one, items)
                lost = await _leader(one.bus, subjects.WORK_STREAM)
                number = [place.name for place in cluster.places].index(lost)
                cluster.processes[number].kill()
                counting.failed.set()
                watches = [Watch(one, item) for item in items]
                for frames in await asyncio.gather(*(watch.to_the_end() for watch in watches)):
                    assert text(frames) == WHOLE
                pauses = sorted(round(watch.longest_s, 1) for watch in watches)
                print("longest pauses in seconds:", *pauses)
                assert pauses[-1] < 30
                cluster.start(number)
                item = one.item()
                async with asyncio.timeout(60):
                    await one.start(item)
                assert text(await one.ended(item, within_s=60)) == WHOLE

    asyncio.run(scenario())


async def _leader(bus: Bus, stream: str) -> str:
    info: dict[str, Any] = json.loads(await bus.request(f"$JS.API.STREAM.INFO.{stream}", b""))
    leader: str = info["cluster"]["leader"]
    return leader
