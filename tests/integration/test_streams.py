"""Two versions that run beside each other make the same streams and queues: neither changes what the other has set."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from services.common.config import NatsSettings
from services.common.connection import connect
from tests.golden import previous
from tests.servers.nats import Nats
from tests.servers.processes import ROOT, running

MAKE = """
import asyncio, sys
from services.common import streams
from services.common.config import NatsSettings, WorkerSettings
from services.common.connection import connect

async def main():
    async with connect(NatsSettings(url=sys.argv[1]), "maker") as bus:
        await streams.ensure(bus, 64)
        worker = WorkerSettings()
        for stage in ("retrieve", "generate", "tools.default"):
            await streams.ensure_consumer(bus, stage, worker.ack_wait_s, worker.concurrency)
        await streams.ensure_ingest_consumer(bus, 30)

asyncio.run(main())
"""


def made_by(root: Path, nats: Nats, folder: Path) -> dict[str, Any]:
    """The settings of all streams and their consumers after a process of a version has made sure of them."""
    with running([sys.executable, "-c", MAKE, nats.url], folder / "made.log", root=root) as process:
        assert process.popen.wait(60) == 0, process.text()
    return asyncio.run(_settings(nats))


async def _settings(nats: Nats) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with connect(NatsSettings(url=nats.url), "reader") as bus:
        js = bus.client.jetstream()
        for stream in await js.streams_info_iterator():
            name = stream.config.name or ""
            found[name] = stream.config.as_dict()
            for consumer in await js.consumers_info(name):
                found[f"{name} {consumer.name}"] = consumer.config.as_dict()
    return found


def test_the_version_before_leaves_the_streams_as_this_one_wants_them(nats: Nats, tmp_path: Path) -> None:
    of_previous = made_by(previous(), nats, tmp_path)
    upgraded = made_by(ROOT, nats, tmp_path)
    assert upgraded.keys() >= of_previous.keys()
    assert made_by(previous(), nats, tmp_path) == upgraded
    assert made_by(ROOT, nats, tmp_path) == upgraded
