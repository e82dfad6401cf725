"""nats-server takes the configurations as they are deployed; only addresses are those of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import nats.errors
import pytest
from nats.js.errors import NoStreamResponseError

from services.common import streams
from services.common.config import NatsSettings
from services.common.connection import connect
from tests.deploy.manifests import Manifests, render
from tests.servers.nats import Place, places
from tests.servers.processes import BIN, Process, accepts, eventually, wait_until

PASSWORDS = {"NATS_PASSWORD": "p4fcb0e1", "NATS_CLUSTER_PASSWORD": "c0de5e10"}
USER = {"user": "baton", "password": PASSWORDS["NATS_PASSWORD"]}
ONCE: dict[str, Any] = {"allow_reconnect": False, "max_reconnect_attempts": 1, "connect_timeout": 60}
FILLED = 10_000_000
"""Bytes that a test stores."""
ALONE = pytest.mark.parametrize("overlay", ["dev", "prod"], indirect=True)
"""Components change nothing in NATS."""


@pytest.fixture
def servers(overlay: Manifests, tmp_path: Path) -> Iterator[tuple[list[Place], list[Process]]]:
    """All servers of an overlay."""
    where = places(tmp_path, overlay.one("StatefulSet", "nats")["spec"]["replicas"])
    with _running(overlay, where) as processes:
        yield where, processes


@contextlib.contextmanager
def _running(overlay: Manifests, where: list[Place], cluster_password: str = "") -> Iterator[list[Process]]:
    processes = [_start(overlay, place, where, cluster_password if place is where[-1] else "") for place in where]
    try:
        yield processes
    finally:
        for process in processes:
            process.stop()


def _start(overlay: Manifests, place: Place, where: list[Place], cluster_password: str) -> Process:
    text = overlay.one("ConfigMap", "nats-config")["data"]["nats.conf"]
    for old, new in (
        ("port: 4222", f'host: "127.0.0.1"\nport: {place.port}'),
        ("http: 8222", f'http: "127.0.0.1:{place.monitor}"'),
        ("port: 6222", f'host: "127.0.0.1"\n  port: {place.route}'),
        ("/run/nats/nats.pid", f'"{place.folder}/nats.pid"'),
        ("store_dir: /data", f'store_dir: "{place.folder}/data"'),
    ):
        assert old in text or (overlay.name == "dev" and old == "port: 6222"), old
        text = text.replace(old, new, 1)
    file = place.folder / "nats.conf"
    file.write_text(text)
    passwords = {**PASSWORDS, "NATS_CLUSTER_PASSWORD": cluster_password} if cluster_password else PASSWORDS
    env = {"POD_NAME": place.name, **overlay.environment("nats", passwords)}
    for other in where:
        env["NATS_ROUTES"] = env["NATS_ROUTES"].replace(f"{other.name}.nats-headless:6222", f"127.0.0.1:{other.route}")
    assert overlay.name == "dev" or "headless" not in env["NATS_ROUTES"]
    return Process([str(BIN / "nats-server"), "--config", str(file)], place.log, env)


@ALONE
def test_baton_makes_its_streams_on_the_servers_and_a_stranger_is_kept_out(
    overlay: Manifests, servers: tuple[list[Place], list[Process]]
) -> None:
    where, processes = servers
    wait_until(lambda: all(place.healthy() for place in where), "all servers are healthy", within_s=120)
    url = f"nats://baton:{PASSWORDS['NATS_PASSWORD']}@127.0.0.1:{where[0].port}"

    async def scenario() -> int:
        settings = NatsSettings(url=url, replicas=len(where))
        async with asyncio.timeout(120), connect(settings, "test") as bus, streams.kept(bus):
            info = await bus.client.jetstream().stream_info("BATON_WORK")
        with pytest.raises(nats.errors.Error, match="Authorization Violation"):
            await nats.connect(f"nats://127.0.0.1:{where[0].port}", **ONCE)
        return 1 + len(info.cluster.replicas or []) if info.cluster else 1

    assert asyncio.run(scenario()) == len(where)
    assert all(process.alive for process in processes)


def test_a_server_with_an_empty_volume_has_started_when_it_has_what_the_others_have(tmp_path: Path) -> None:
    """Before that a rollout would take the next one away."""
    prod, where = render("prod"), places(tmp_path, 3)
    (container,) = (one for name, one in prod.containers() if (name, one["name"]) == ("nats", "nats"))
    path = container["startupProbe"]["httpGet"]["path"]
    with _running(prod, where) as processes:
        wait_until(lambda: all(place.healthy() for place in where), "all servers are healthy", within_s=60)
        asyncio.run(_fill(where[0]))
        wait_until(lambda: _stored(where[2]) == _stored(where[0]) >= FILLED, "all have what was stored", within_s=60)
        processes[2].stop()
        shutil.rmtree(where[2].folder / "data")
        processes[2] = _start(prod, where[2], where, "")
        wait_until(lambda: _well(where[2], path), "the third has started again", within_s=60)
        assert _stored(where[2]) == _stored(where[0])


async def _fill(place: Place) -> None:
    client = await nats.connect(place.url, **ONCE, **USER)
    stream = client.jetstream(timeout=60)
    await stream.add_stream(name="BATON_LOG_0", subjects=["log"], num_replicas=3)

    async def published() -> bool:
        try:
            await stream.publish("log", bytes(FILLED // 20))
        except NoStreamResponseError:  # this server has yet to hear where the stream is
            return False
        return True

    for _ in range(20):
        await eventually(published, "the stream takes what is published")
    await client.close()


def _well(place: Place, path: str) -> bool:
    """Whether the monitoring port answers, as a probe asks it."""
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{place.monitor}{path}", timeout=5).is_success
    return False


def _stored(place: Place) -> int:
    """Bytes in all streams of a server, which must be there."""
    return int(httpx.get(f"http://127.0.0.1:{place.monitor}/jsz", timeout=60).json()["bytes"])


def test_a_server_without_the_cluster_password_does_not_get_in(tmp_path: Path) -> None:
    where = places(tmp_path, 3)
    with _running(render("prod"), where, cluster_password="wrong") as processes:
        wait_until(lambda: "Authorization Violation" in processes[2].text(), "the third is refused", within_s=60)
        wait_until(lambda: "authentication error" in processes[0].text(), "the first says so", within_s=60)
        assert not where[2].healthy()


@ALONE
def test_the_sigterm_after_pre_stop_does_not_cut_a_lame_duck_short(
    overlay: Manifests, servers: tuple[list[Place], list[Process]]
) -> None:
    where, processes = servers
    place, process = where[0], processes[0]
    grace_s = 1 if overlay.name == "dev" else 5

    def pre_stop() -> None:
        command = [str(BIN / "nats-server"), "--signal", f"ldm={place.folder}/nats.pid"]
        assert subprocess.run(command, timeout=60).returncode == 0

    async def scenario() -> float:
        client = await nats.connect(f"nats://127.0.0.1:{place.port}", **ONCE, **USER)
        began = time.monotonic()
        await asyncio.to_thread(pre_stop)
        await eventually(lambda: "Entering lame duck mode" in process.text(), "it goes as a lame duck", within_s=60)
        os.kill(process.pid, signal.SIGTERM)
        await eventually(lambda: not client.is_connected, "the client is asked to go", within_s=60)
        lasted = time.monotonic() - began
        await eventually(lambda: not process.alive, "the server ends by itself", within_s=60)
        return lasted

    wait_until(lambda: accepts(place.port), "the server accepts connections", within_s=60)
    assert asyncio.run(scenario()) >= grace_s * 0.9
    assert process.popen.returncode == 0
