"""What slow readers cost the others: two hundred clients, of which a hundred read nothing for a while, or all read.

Part of `make bench`. Runs with and without slow readers take turns; the ratio of the medians of the others' p99 frame
latencies is the result. Also prints the gateway's memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from bench.sockets import Frame, Socket, connect
from bench.usage import rss_bytes
from tests.integration.test_gateway_protocol import gateway
from tests.servers.nats import nats_server
from tests.servers.processes import Process, eventually, running
from tests.system import workers_alive

SMALL, LARGE = 64, 8_000
"""Characters in a frame of the half that is measured, and of the half that may be slow."""


@dataclass
class Client:
    """Collects how long each frame was on its way; a gap or a repeat is an error."""

    size: int
    took: list[float] = field(default_factory=list)
    next_seq: int = 0
    joined: int = 0
    ended: bool = False
    wrong: str = ""
    socket: Socket | None = None

    def receive(self, _: Socket, frame: Frame, now: float) -> None:
        if frame.type == "error":
            self.wrong = frame.code
        if frame.seq < 0:
            return
        if frame.first != self.next_seq:
            self.wrong = f"{self.next_seq} was expected, {frame.first} came"
        self.joined += frame.seq - frame.first
        self.next_seq = frame.seq + 1
        self.ended = frame.type == "done"
        if frame.type == "answer_chunk":
            self.took.append(now - float(frame.content.split(" ", 1)[0]))

    async def ask(self, port: int, frames: int, rate: float) -> None:
        self.socket = await connect(port, self.receive, 4_096 if self.size == LARGE else 32_768)
        query = {"query": f"{frames} {rate} {self.size}", "request_id": secrets.token_hex(8)}
        self.socket.send(query)


async def one_run(port: int, pid: int, clients: int, slow: bool, frames: int, rate: float) -> tuple[float, int, int]:
    """The p99 latency of the half that always reads in seconds, the gateway's memory while the others did not, and how
    many frames were joined."""
    measured = [Client(SMALL) for _ in range(clients // 2)]
    others = [Client(LARGE) for _ in range(clients - clients // 2)]
    everybody = [client for pair in zip(measured, others, strict=True) for client in pair]
    for client in everybody:
        await client.ask(port, frames, rate)
    if slow:
        for client in others:
            assert client.socket is not None
            client.socket.pause()
    await eventually(lambda: all(client.ended for client in measured), "the measured half has its answers", 120)
    memory = rss_bytes(pid)
    for client in others:
        if client.socket is not None:
            client.socket.go_on()
    await eventually(lambda: all(client.ended for client in others), "the others have theirs", 120)
    wrong = [client.wrong for client in everybody if client.wrong]
    assert not wrong, wrong[:5]
    for client in everybody:
        assert client.socket is not None
        client.socket.close()
    took = [one for client in measured for one in client.took]
    return statistics.quantiles(took, n=100)[98], memory, sum(client.joined for client in everybody)


async def measure(port: int, process: Process, args: argparse.Namespace) -> float:
    await eventually(lambda: workers_alive(port), "the worker is heard of")
    print(f"{args.clients} clients, {args.frames} frames each, {args.rate:g} a second; p99 of those that always read")
    await one_run(port, process.pid, args.clients, False, 20, args.rate)  # everything is warm then
    print(f"{'':24}{'p99 ms':>9}{'memory MB':>12}{'joined frames':>16}")
    results: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(args.runs):
        for slow in (False, True):
            p99, memory, joined = await one_run(port, process.pid, args.clients, slow, args.frames, args.rate)
            results[slow].append(p99)
            name = "half of them slow" if slow else "none slow (baseline)"
            print(f"{name:24}{p99 * 1e3:9.2f}{memory / 1e6:12.1f}{joined:16}")
    ratio = statistics.median(results[True]) / statistics.median(results[False])
    print(f"{'ratio of the medians':24}{ratio:9.2f}   (at most 1.5 is wanted)")
    return ratio


def run(args: argparse.Namespace) -> float:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        nats = stack.enter_context(nats_server(folder / "nats"))
        port, process = stack.enter_context(gateway(folder, nats, BATON_LOG_SHARDS="16"))
        stack.enter_context(running([sys.executable, "-m", "bench.paced_worker", nats.url], folder / "worker.log"))
        return asyncio.run(measure(port, process, args))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--frames", type=int, default=80)
    parser.add_argument("--rate", type=float, default=10.0, help="frames a second of one answer")
    parser.add_argument("--runs", type=int, default=5)
    run(parser.parse_args())
