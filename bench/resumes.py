"""A gateway is killed and all its clients come back to another one at once, each so many frames behind.

Part of `make bench`. Prints resumes per second with everything in them (connect, hello, resume, every frame received
and checked), and what reading the logs alone takes, against an ordered consumer for each reconnect, in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from nats.js.api import ConsumerConfig, DeliverPolicy

from baton_proto import subjects
from baton_proto.messages import AnswerChunk, Done, Timings, Usage
from bench.sockets import Frame, Socket, connect
from bench.usage import cpu_s
from services.common.bus import Bus
from services.common.job import Job
from tests.integration.test_gateway_protocol import gateway
from tests.rig import Rig, rig
from tests.servers.nats import nats_server
from tests.servers.processes import Process, eventually
from tests.system import workers_alive

BEFORE = 10
"""Frames that every client has before its gateway is killed, `accepted` among them."""
QUERY = {"type": "query", "query": "q", "on_disconnect": "continue"}


@dataclass
class Client:
    """Counts frames; a gap or a repeat fails the benchmark."""

    request_id: str
    next_seq: int = 0
    ended: bool = False
    wrong: list[str] = field(default_factory=list)
    socket: Socket | None = None

    def receive(self, _: Socket, frame: Frame, __: float) -> None:
        if frame.type == "error":
            self.wrong.append(frame.code)
        if frame.seq >= 0:
            if frame.first != self.next_seq:
                self.wrong.append(f"{self.next_seq} was expected, {frame.first} came")
            self.next_seq = frame.seq + 1
            self.ended = frame.type == "done"

    async def ask(self, port: int) -> None:
        self.socket = await connect(port, self.receive)
        self.socket.send({**QUERY, "request_id": self.request_id})

    async def come_back(self, port: int) -> None:
        self.socket = await connect(port, self.receive)
        self.socket.send({"type": "resume", "request_id": self.request_id, "after_seq": self.next_seq - 1})


class Answers:
    """A worker's side: some frames, the ones that will be missed, the rest; each is an append of its own."""

    def __init__(self, behind: int) -> None:
        self._behind = behind
        self.miss = asyncio.Event()
        self.finish = asyncio.Event()
        self.missed = 0

    async def handle(self, job: Job) -> None:
        await self._write(job, BEFORE - 1)
        await self.miss.wait()
        await self._write(job, self._behind)
        self.missed += 1
        await self.finish.wait()
        await job.finish(Done(finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=Timings()))

    async def _write(self, job: Job, frames: int) -> None:
        for number in range(frames):
            await job.write(AnswerChunk(content=f"word {number} "))
            await job.flush()


async def lose_a_gateway(
    one: Rig, first: tuple[int, Process], second: tuple[int, Process], clients: int, behind: int
) -> tuple[float, float, list[str]]:
    """How many seconds it took until all had everything again, the CPU seconds of the gateway that took them over, and
    the keys of the requests."""
    answers = Answers(behind)
    (port, process), (other, other_process) = first, second
    crowd = [Client(f"r{number}") for number in range(clients)]
    async with one.worker(answers.handle, concurrency=clients, ack_wait_s=30.0, name="bench-worker"):
        await eventually(lambda: workers_alive(port) and workers_alive(other), "the worker is heard of")
        for some in range(0, clients, 50):
            await asyncio.gather(*(client.ask(port) for client in crowd[some : some + 50]))
        await eventually(lambda: all(client.next_seq == BEFORE for client in crowd), "all answers run", 60)
        process.kill()
        await asyncio.gather(*(client.socket.closed for client in crowd if client.socket))
        answers.miss.set()
        await eventually(lambda: answers.missed == clients, "all are behind", 120)
        started, used = time.perf_counter(), cpu_s(other_process.pid)
        await asyncio.gather(*(client.come_back(other) for client in crowd))
        await eventually(lambda: all(client.next_seq >= BEFORE + behind for client in crowd), "all have it again", 60)
        took, used = time.perf_counter() - started, cpu_s(other_process.pid) - used
        answers.finish.set()
        await eventually(lambda: all(client.ended for client in crowd), "all answers have ended", 60)
    wrong = [f"{client.request_id}: {client.wrong}" for client in crowd if client.wrong]
    assert not wrong, wrong[:5]
    for client in crowd:
        assert client.socket is not None
        client.socket.close()
    return took, used, [subjects.request_key("anonymous", client.request_id) for client in crowd]


async def by_replay(bus: Bus, key: str) -> int:
    return len(await bus.replay(bus.address(key)))


async def by_ordered_consumer(bus: Bus, key: str) -> int:
    """What nats-py offers for reading a subject from some place on."""
    at = bus.address(key)
    subscription = await bus.client.jetstream(timeout=30).subscribe(
        subjects.log_subject(at),
        stream=subjects.log_stream(at.shard),
        ordered_consumer=True,
        config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL, inactive_threshold=5.0),
    )
    count, more = 0, True
    while more:
        message = await subscription.next_msg(timeout=60)
        count += 1
        more = message.metadata.num_pending > 0
    await subscription.unsubscribe()
    return count


async def read_all(read: Callable[[Bus, str], Awaitable[int]], bus: Bus, keys: list[str], expected: int) -> float:
    started = time.perf_counter()
    counts = await asyncio.gather(*(read(bus, key) for key in keys))
    assert set(counts) == {expected}, set(counts)
    return time.perf_counter() - started


def run(clients: int, behind: int, *, baseline: bool = True) -> float:
    """One measurement, printed; returns its seconds."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        nats = stack.enter_context(nats_server(folder / "nats"))
        for name in ("one", "two"):
            (folder / name).mkdir()
        settings = {"BATON_LOG_SHARDS": "16"}
        first = stack.enter_context(gateway(folder / "one", nats, **settings))
        second = stack.enter_context(gateway(folder / "two", nats, **settings))

        async def main() -> float:
            async with rig(nats.url, shards=16) as one:
                took, used, keys = await lose_a_gateway(one, first, second, clients, behind)
                print(f"{clients} clients, each {behind} frames behind, all resumed in {took:.2f} s")
                print(f"{clients / took:8.0f} resumes/s, {clients * behind / took:.0f} frames/s, connecting included")
                print(f"{clients / used:8.0f} resumes for each CPU second of the gateway that takes them over")
                if baseline:
                    messages = BEFORE + behind + 1
                    replayed = await read_all(by_replay, one.bus, keys, messages)
                    consumed = await read_all(by_ordered_consumer, one.bus, keys, messages)
                    print("reading the same logs alone, without a gateway:")
                    print(f"{clients / replayed:8.0f} logs/s by batched direct get")
                    print(f"{clients / consumed:8.0f} logs/s by an ordered consumer for each (baseline)")
                    print(f"{consumed / replayed:8.2f} ratio")
                    print(f"{consumed / took:8.2f} ratio of whole resumes to it, a gateway's work included")
                return took

        return asyncio.run(main())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--behind", type=int, default=100)
    args = parser.parse_args()
    run(args.clients, args.behind)
