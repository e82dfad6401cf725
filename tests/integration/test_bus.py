"""The connection to NATS itself, where the client library needs help."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from contextvars import ContextVar
from pathlib import Path

import pytest
import uvloop

from baton_proto import subjects
from services.common import streams
from services.common.bus import Bus, within
from services.common.config import NatsSettings
from services.common.connection import connect
from services.common.nats_client import NatsClient
from tests.servers.nats import Cluster, Nats, nats_cluster
from tests.servers.processes import eventually, freeze


def test_a_connection_is_read_on_after_a_ping_that_nobody_waited_for(nats: Nats) -> None:
    async def scenario() -> None:
        async with connect(NatsSettings(url=nats.url), "impatient") as bus:
            freeze(nats.process.pid)
            try:
                with pytest.raises(TimeoutError):
                    await within(0.1, bus.client.flush())
            finally:
                os.kill(nats.process.pid, signal.SIGCONT)
            await bus.request("$JS.API.INFO", b"", seconds=30.0)
            await bus.client.flush(timeout=30)

    asyncio.run(scenario())


def test_closing_is_quiet_when_the_server_has_gone_with_something_still_to_be_sent(nats: Nats) -> None:
    async def scenario() -> None:
        async with connect(NatsSettings(url=nats.url), "late") as bus:
            nats.process.kill()
            await eventually(lambda: not bus.connected, "the loss is noticed")
            await bus.publish("subject", b"still to be sent")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


def test_waiting_for_a_server_ends_though_a_cancellation_was_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As nats-py does before Python 3.12 where the attempt fails at that moment."""

    async def scenario() -> None:
        tried = asyncio.Event()

        async def deaf_once(*_: object, **__: object) -> None:
            tried.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
            await asyncio.sleep(3600)

        async def wait_for_nats() -> None:
            async with connect(NatsSettings(), "waiting"):
                raise AssertionError

        monkeypatch.setattr(NatsClient, "connect", deaf_once)
        waiting = asyncio.create_task(wait_for_nats())
        await tried.wait()
        waiting.cancel()
        await asyncio.wait([waiting], timeout=30)
        assert waiting.cancelled()

    asyncio.run(scenario())


def test_a_server_that_only_the_cluster_has_named_is_logged_in_to_as_well(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        first = cluster.url.split(",")[0].replace("//", "//baton:a%2Fb@")
        async with connect(NatsSettings(url=first), "told") as bus:
            cluster.processes[0].kill()
            await eventually(lambda: bus.connected and bus.reconnects, "it is connected to another server")

    with nats_cluster(tmp_path, options=["--user", "baton", "--pass", "a/b"]) as cluster:
        asyncio.run(scenario(cluster))


SIZES = {"small": 12_000_000, "large": 48_000_000}


def test_a_large_object_is_read_in_the_time_that_its_bytes_need(nats: Nats) -> None:
    async def reading(bus: Bus, name: str, data: bytes) -> float:
        began = time.process_time()
        assert await bus.get_described_object(name) == (data, "described")
        return time.process_time() - began

    async def scenario() -> None:
        objects = {name: os.urandom(1_000) * (size // 1_000) for name, size in SIZES.items()}
        async with connect(NatsSettings(url=nats.url), "reader") as bus, streams.kept(bus):
            for name, data in objects.items():
                await bus.put_object(name, data, "described")
            # Twice as much as four times the bytes; copying all before each chunk takes 16 times, in every round.
            took: list[tuple[float, float]] = []
            while not took or (took[-1][1] >= 9 * took[-1][0] and len(took) < 4):
                took.append(
                    (await reading(bus, "small", objects["small"]), await reading(bus, "large", objects["large"]))
                )
            assert took[-1][1] < 9 * took[-1][0], took

    asyncio.run(scenario())


def test_a_log_is_followed_in_the_context_in_which_that_began(nats: Nats) -> None:
    about: ContextVar[str] = ContextVar("about")

    async def scenario() -> None:
        seen: dict[bytes, str] = {}
        async with connect(NatsSettings(url=nats.url), "follower") as bus, streams.kept(bus):
            logs = [bus.address(subjects.request_key("tester", name)) for name in ("one", "two")]
            for at in logs:
                about.set(at.key)
                await bus.follow(at, lambda stored: seen.update({stored.data: about.get()}))
            for at in logs:
                await bus.append(at, at.key.encode(), 0)
            await eventually(lambda: len(seen) == 2, "both are heard of")
        assert seen == {at.key.encode(): at.key for at in logs}

    asyncio.run(scenario())
