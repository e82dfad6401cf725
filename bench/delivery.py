"""What it costs to bring a stored token to its reader: the gateway beside nats-server's own WebSocket listener.

Part of `make bench`. The same answers are written again and again, by LogWriter as generators do, and read in turn by
nobody, over nats-server's WebSocket listener (the baseline: each client is subscribed to the subject that its log is
republished on), and through a gateway. The cost of a delivery is the servers' CPU for a token:

- of the listener: what nats-server uses more than where nobody reads;
- of the gateway: all that its process uses, and what nats-server uses more to feed it.

Storing costs nats-server its CPU by the append, and a busy writer joins tokens: so it is compared by append. Writer and
readers are processes of their own, all readers run the same code, and each token must come once and in order.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.usage import cpu_s
from services.common.config import NatsSettings
from tests.integration.test_gateway_protocol import gateway
from tests.servers.nats import Nats, nats_server
from tests.servers.processes import ROOT, Process

NOBODY, LISTENER, GATEWAY = "read by nobody", "nats-server's listener (baseline)", "the gateway"
RUN_S = 300.0
"""Longer than any run takes; what is not through by then is ended."""


@dataclass(frozen=True)
class Load:
    """Answers at once, tokens in each of them, and tokens a second of each; 0: as fast as each is stored."""

    streams: int
    tokens: int
    rate: float

    def options(self) -> list[str]:
        return [f"--streams={self.streams}", f"--tokens={self.tokens}"]


@dataclass(frozen=True)
class Measured:
    """One load, written and read once. CPU in seconds, times of tokens in seconds from being made to being read."""

    tokens: int
    appends: int
    took_s: float
    nats_s: float
    gateway_s: float
    p50_s: float = 0.0
    p99_s: float = 0.0


class Servers:
    """What the benchmark measures."""

    def __init__(self, nats: Nats, port: int, process: Process) -> None:
        self.nats = nats
        self.port = port
        self.process = process
        self._number = 0

    def run(self, load: Load, who: str) -> Measured:
        self._number += 1
        name = f"run{self._number}"
        with contextlib.ExitStack() as stack:
            argv = ["bench.token_writer", self.nats.url, name, *load.options(), f"--rate={load.rate}"]
            writer = stack.enter_context(_helper(argv))
            readers = None
            if who != NOBODY:
                readers = stack.enter_context(_helper([*self._readers(who), name, *load.options()]))
            before = cpu_s(self.nats.process.pid), cpu_s(self.process.pid)
            written = writer.go()
            read = readers.answer() if readers is not None else {}
            nats_s, gateway_s = cpu_s(self.nats.process.pid) - before[0], cpu_s(self.process.pid) - before[1]
            writer.end()
        tokens = load.streams * load.tokens
        assert not read or read["tokens"] == tokens, read
        took_s = read.get("ended", written["ended"]) - written["started"]
        times = read.get("p50", 0.0), read.get("p99", 0.0)
        return Measured(tokens, written["appends"], took_s, nats_s, gateway_s, *times)

    def _readers(self, who: str) -> list[str]:
        server = ["nats", str(self.nats.websocket_port)] if who == LISTENER else ["gateway", str(self.port)]
        return ["bench.token_readers", *server]


class _Helper:
    """A process that says `ready` and, having been told to go, one line of JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._line("ready")

    def go(self) -> dict[str, Any]:
        self._say("go")
        return self.answer()

    def end(self) -> None:
        """Let it end by itself."""
        self._say("end")
        self._process.wait()

    def answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._line("{"))
        return answer

    def _say(self, what: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()

    def _line(self, start: str) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith(start), line or f"{self._process.args!r} has ended"
        return line


@contextlib.contextmanager
def _helper(argv: list[str]) -> Iterator[_Helper]:
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'proto'}"}
    process = subprocess.Popen(
        [sys.executable, "-m", *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env
    )
    late = threading.Timer(RUN_S, process.kill)
    late.start()
    try:
        yield _Helper(process)
    finally:
        late.cancel()
        process.kill()
        process.communicate()


def delivery_us(one: Measured, unread: Measured) -> float:
    """The servers' CPU for bringing one token to its reader, in microseconds.

    Args:
        unread: the same load, read by nobody.
    """
    storing_s = unread.nats_s / unread.appends * one.appends
    return (one.nats_s - storing_s + one.gateway_s - unread.gateway_s) / one.tokens * 1e6


def compare(servers: Servers, load: Load, rounds: int) -> float:
    """Print one load's comparison; returns how many times the listener's CPU a delivery takes the gateway."""
    results: dict[str, list[Measured]] = {NOBODY: [], LISTENER: [], GATEWAY: []}
    for _ in range(rounds):
        for who, measured in results.items():
            measured.append(servers.run(load, who))
    pace = f"{load.rate:g} tokens a second each" if load.rate else "each token as soon as the one before it is stored"
    print(f"{load.streams} answers at once of {load.tokens} tokens, {pace}; medians of {rounds} rounds\n")
    print(f"{'':35}{'tokens/s':>9}{'tokens/append':>14}{'p50 ms':>8}{'p99 ms':>8}{'CPU us/token':>14}")
    rows = {who: _row(measured, results[NOBODY]) for who, measured in results.items()}
    for who, row in rows.items():
        print(f"{who:35}{row[0]:9.0f}{row[1]:14.2f}", end="")
        print("" if who == NOBODY else f"{row[2]:8.1f}{row[3]:8.1f}{row[4]:14.1f}")
    ratios = [ours / theirs for ours, theirs in zip(rows[GATEWAY], rows[LISTENER], strict=True)]
    print(f"{'ratio':35}{ratios[0]:9.2f}{ratios[1]:14.2f}{ratios[2]:8.2f}{ratios[3]:8.2f}{ratios[4]:14.1f}")
    return ratios[4]


def _row(measured: list[Measured], unread: list[Measured]) -> list[float]:
    columns = [
        [one.tokens / one.took_s for one in measured],
        [one.tokens / one.appends for one in measured],
        [one.p50_s * 1e3 for one in measured],
        [one.p99_s * 1e3 for one in measured],
        [delivery_us(one, other) for one, other in zip(measured, unread, strict=True)],
    ]
    return [statistics.median(column) for column in columns]


@contextlib.contextmanager
def servers(storage: str) -> Iterator[Servers]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        nats = stack.enter_context(nats_server(folder / "nats", websocket=True))
        settings = {"BATON_LOG_SHARDS": str(NatsSettings().shards), "BATON_LOG_STORAGE": storage}
        port, process = stack.enter_context(gateway(folder, nats, **settings))
        yield Servers(nats, port, process)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=400, help="paced answers at once")
    parser.add_argument("--rate", type=float, default=50.0, help="tokens a second of each of them")
    parser.add_argument("--seconds", type=float, default=6.0, help="that each of them is paced to take")
    parser.add_argument("--flat-out", type=int, default=100, help="answers at once that are not paced")
    parser.add_argument("--tokens", type=int, default=200, help="of each of those")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--storage", choices=("file", "memory"), default="file")
    args = parser.parse_args()
    loads = [
        Load(args.streams, round(args.rate * args.seconds), args.rate),
        Load(args.flat_out, args.tokens, 0.0),
    ]
    with servers(args.storage) as measured:
        for who in (NOBODY, LISTENER, GATEWAY):
            measured.run(Load(20, 20, 0.0), who)  # everything is warm then
        for load in loads:
            compare(measured, load, args.rounds)
            print()


if __name__ == "__main__":
    main()
