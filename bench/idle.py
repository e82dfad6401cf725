"""Memory of an idle WebSocket connection: a gateway beside nats-server's own WebSocket listener, in the same run.

Part of `make bench`. A client of the gateway has been greeted and asks nothing; one of nats-server (the baseline) has
one subscription, as it would need for reading an answer. What counts is how much the resident memory of the process
grows.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.delivery import GATEWAY, LISTENER
from bench.sockets import Frame, RawSocket, Socket, allow_open_files, connect, subscribe
from bench.usage import rss_bytes
from tests.integration.test_gateway_protocol import gateway
from tests.servers.nats import nats_server

AT_ONCE = 50
SETTLE_S = 2.0
SPARE_FILES = 200
Open = Callable[[int], Awaitable[RawSocket]]


async def of_gateway(port: int) -> RawSocket:
    greeted = asyncio.Event()

    def receive(_: Socket, frame: Frame, __: float) -> None:
        assert frame.type == "hello", frame
        greeted.set()

    socket = await connect(port, receive)
    await greeted.wait()
    return socket


async def of_nats(port: int) -> RawSocket:
    """Any subject will do, as long as it is one of a log."""
    return await subscribe(port, f"baton.v1.live.0.{'0' * 32}", lambda _, __: None)


async def growth(pid: int, port: int, open_one: Open, connections: int) -> float:
    """Bytes of resident memory for each of so many connections, which are open at once."""
    first = await _opened(open_one, port, AT_ONCE)  # what the first ones need is needed once
    before = rss_bytes(pid)
    others = await _opened(open_one, port, connections)
    per_connection = (rss_bytes(pid) - before) / connections
    assert not any(socket.closed.done() for socket in first + others), "a connection was closed"
    for socket in first + others:
        socket.close()
    return per_connection


async def _opened(open_one: Open, port: int, connections: int) -> list[RawSocket]:
    sockets: list[RawSocket] = []
    while (missing := connections - len(sockets)) > 0:
        sockets += await asyncio.gather(*(open_one(port) for _ in range(min(AT_ONCE, missing))))
    await asyncio.sleep(SETTLE_S)
    return sockets


def run(connections: int) -> float:
    """Print the comparison; returns how many times the baseline's memory a connection takes the gateway."""
    allow_open_files(connections + SPARE_FILES)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        nats = stack.enter_context(nats_server(folder / "nats", websocket=True))
        port, process = stack.enter_context(gateway(folder, nats))
        print(f"{connections} idle connections, resident memory of the server for each\n")
        theirs = asyncio.run(growth(nats.process.pid, nats.websocket_port, of_nats, connections))
        print(f"{LISTENER:35}{theirs / 1e3:9.1f} kB")
        ours = asyncio.run(growth(process.pid, port, of_gateway, connections))
        print(f"{GATEWAY:35}{ours / 1e3:9.1f} kB")
        print(f"{'ratio':35}{ours / theirs:9.2f}")
        return ours / theirs


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=3_000)
    run(parser.parse_args().connections)
