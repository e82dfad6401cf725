"""A process that writes many answers at once, as generators do; each token carries its number and when it was made.

It says `ready` when all logs have begun, begins to write at a line on its standard input, and says what it has done as
one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time

from baton_proto import subjects
from baton_proto.messages import Accepted, AnswerChunk, Done, Timings, Usage
from baton_proto.sequencer import Sequencer
from services.common.config import NatsSettings
from services.common.connection import connect
from services.common.log import LogWriter

OWNER = "anonymous"
"""Who asks a gateway without authentication."""


def request_id(run: str, number: int) -> str:
    return f"{run}-{number}"


def token(number: int) -> str:
    return f"@{number:06d} {time.perf_counter():017.6f} "


class _Counting(Sequencer):
    appends = 0

    def stored(self, stream_seq: int) -> None:
        self.appends += 1
        super().stored(stream_seq)


async def write(log: LogWriter, tokens: int, rate: float, begin: float) -> None:
    """One answer: so many tokens a second from `begin` on, whatever is stored by then; at rate 0 each token as soon as
    the one before it is stored."""
    for number in range(tokens):
        if rate:
            await asyncio.sleep(max(0.0, begin + number / rate - time.perf_counter()))
        await log.write(AnswerChunk(content=token(number)))
        if not rate:
            await log.flush()
    await log.flush()


async def main(args: argparse.Namespace) -> None:
    async with connect(NatsSettings(url=args.nats), "writer") as bus, contextlib.AsyncExitStack() as stack:
        sequencers = [_Counting(request_id(args.run, number), "writer") for number in range(args.streams)]
        logs = []
        for one in sequencers:
            at = bus.address(subjects.request_key(OWNER, one.request_id))
            log = await stack.enter_async_context(LogWriter(bus, at, one))
            await log.write(Accepted(conversation_id="c"))
            await log.flush()
            logs.append(log)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        started = time.perf_counter()
        # Spread, as questions are: not all write at the same moment.
        pause = 1 / args.rate / args.streams if args.rate else 0.0
        await asyncio.gather(
            *(write(log, args.tokens, args.rate, started + number * pause) for number, log in enumerate(logs))
        )
        ended = time.perf_counter()
        appends = sum(one.appends for one in sequencers) - args.streams
        print(json.dumps({"started": started, "ended": ended, "appends": appends}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for log in logs:  # nobody follows them any more then
            await log.write(Done(finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=Timings()))
            await log.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("nats")
    parser.add_argument("run")
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    asyncio.run(main(parser.parse_args()))
