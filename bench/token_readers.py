"""A process with a WebSocket connection for each answer that token_writer.py writes: to a gateway, or to nats-server.

Both sides' messages are read by the same code, which looks for tokens and for nothing else: each must come once and in
order. It says `ready` when all have begun to read, and at the end what has come as one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from dataclasses import dataclass, field

from baton_proto import subjects
from bench.sockets import Address, RawSocket, opened, subscribe
from bench.token_writer import OWNER, request_id
from evaluation.ranks import percentile
from services.common.config import NatsSettings

_TOKEN = re.compile(rb"@(\d{6}) (\d{10}\.\d{6}) ")


@dataclass
class Answer:
    """One answer as it is read, whatever it is wrapped in."""

    tokens: int
    took: list[float] = field(default_factory=list)
    ended_at: float = 0.0
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def receive(self, body: bytes, now: float) -> None:
        for number, made in _TOKEN.findall(body):
            if int(number) != len(self.took):
                raise SystemExit(f"token {len(self.took)} was expected, {int(number)} came")
            self.took.append(now - float(made))
        if len(self.took) == self.tokens and not self.ended_at:
            self.ended_at = now
            self.ended.set()
        elif not self.took and b'"accepted"' in body:
            self.begun.set()


async def by_gateway(port: int, name: str, answer: Answer) -> RawSocket:
    """Read an answer from its start, which is there already."""
    address = Address(port)
    socket = await opened(address, lambda: RawSocket(answer.receive, address))
    socket.send({"type": "resume", "request_id": name, "after_seq": -1})
    await answer.begun.wait()
    return socket


async def by_nats(port: int, name: str, answer: Answer) -> RawSocket:
    at = subjects.address(subjects.request_key(OWNER, name), NatsSettings().shards)
    return await subscribe(port, subjects.live_subject(at), answer.receive)


async def main(args: argparse.Namespace) -> None:
    read = by_gateway if args.server == "gateway" else by_nats
    answers = [Answer(args.tokens) for _ in range(args.streams)]
    sockets = [await read(args.port, request_id(args.run, number), one) for number, one in enumerate(answers)]
    for socket in sockets:
        socket.closed.add_done_callback(_lost)
    print("ready", flush=True)
    await asyncio.gather(*(one.ended.wait() for one in answers))
    took = [seconds for one in answers for seconds in one.took]
    result = {
        "tokens": len(took),
        "ended": max(one.ended_at for one in answers),
        "p50": percentile(took, 50),
        "p99": percentile(took, 99),
    }
    print(json.dumps(result), flush=True)
    await asyncio.to_thread(sys.stdin.readline)


def _lost(code: asyncio.Future[int]) -> None:
    raise SystemExit(f"a connection was closed with {code.result()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("server", choices=("gateway", "nats"))
    parser.add_argument("port", type=int)
    parser.add_argument("run")
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    asyncio.run(main(parser.parse_args()))
