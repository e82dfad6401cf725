"""Services as processes: help, signals, health, key sets."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from services.common.config import GatewaySettings, ProcessSettings
from services.common.lag import Pulse
from services.common.process import _until_stopped, metrics_server
from services.gateway.auth import Authenticator, Unauthorized
from tests.rig import rig
from tests.servers.nats import Nats
from tests.servers.processes import eventually, free_port, running, wait_until

SERVICES = ("gateway", "retriever", "generator", "tools")


@pytest.mark.parametrize("service", SERVICES)
def test_help_lists_the_settings_and_starts_nothing(tmp_path: Path, service: str) -> None:
    with running([sys.executable, "-m", f"services.{service}", "--help"], tmp_path / "out") as process:
        assert process.popen.wait(60) == 0
        assert "BATON_NATS_URL" in process.text()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_that_still_waits_for_nats_stops_on_sigterm(tmp_path: Path, service: str) -> None:
    env = {"BATON_NATS_URL": f"nats://127.0.0.1:{free_port()}", "BATON_GATEWAY_PORT": str(free_port())}
    with running([sys.executable, "-m", f"services.{service}"], tmp_path / "out", env) as process:
        wait_until(lambda: "no NATS at" in process.text(), "it says that it waits")
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(60) == 0
        assert "Traceback" not in process.text()


@pytest.mark.parametrize("service", ["gateway", "tools"])
def test_a_service_that_waits_for_nats_is_alive_and_not_ready(tmp_path: Path, service: str) -> None:
    port = free_port()
    env = {
        "BATON_NATS_URL": f"nats://baton:secret-word@127.0.0.1:{free_port()}",
        "BATON_GATEWAY_PORT" if service == "gateway" else "BATON_METRICS_PORT": str(port),
    }
    with running([sys.executable, "-m", f"services.{service}"], tmp_path / "out", env) as process:
        wait_until(lambda: _status(port, "/healthz") == 200, "it says that it lives")
        wait_until(lambda: _status(port, "/readyz") == 503, "it says that it is not ready")
        wait_until(lambda: "no NATS at" in process.text(), "it says that it waits")
        assert "secret-word" not in process.text()
        if service == "gateway":
            assert _closed_with(port) == 1012
        assert process.stop() == 0
        assert "Traceback" not in process.text()


def _closed_with(port: int) -> int:
    with connect(f"ws://127.0.0.1:{port}/ws") as socket:
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(30)
        return closed.value.rcvd.code if closed.value.rcvd else 0


def test_a_worker_that_drains_is_not_ready_any_more() -> None:
    async def scenario() -> None:
        stop, ready, over = asyncio.Event(), threading.Event(), asyncio.Event()
        ready.set()
        stop.set()
        until = asyncio.create_task(_until_stopped(stop, ready, over.wait()))
        await eventually(lambda: not ready.is_set(), "it is not ready")
        assert not until.done()
        over.set()
        await until

    asyncio.run(scenario())


def test_a_worker_whose_event_loop_is_stuck_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = threading.Event()
    ready.set()
    settings = ProcessSettings(metrics_port=free_port())
    pulse = Pulse()

    async def turn() -> None:
        beating = asyncio.create_task(pulse.beat())
        await asyncio.sleep(0)
        beating.cancel()

    with metrics_server(settings, ready, pulse):
        monkeypatch.setattr("services.common.lag.STUCK_S", 0.0)
        wait_until(lambda: _status(settings.metrics_port, "/healthz") == 503, "/healthz says 503")
        wait_until(lambda: _status(settings.metrics_port, "/readyz") == 503, "/readyz says 503")
        monkeypatch.setattr("services.common.lag.STUCK_S", 60.0)
        asyncio.run(turn())
        wait_until(lambda: _status(settings.metrics_port, "/healthz") == 200, "/healthz says 200")
        wait_until(lambda: _status(settings.metrics_port, "/readyz") == 200, "/readyz says 200")


def test_a_worker_tells_its_health_and_its_metrics(nats: Nats, tmp_path: Path) -> None:
    port = free_port()
    env = {"BATON_NATS_URL": nats.url, "BATON_METRICS_PORT": str(port), "BATON_LOG": "json"}
    with running([sys.executable, "-m", "services.tools"], tmp_path / "out", env) as process:
        wait_until(lambda: _status(port, "/readyz") == 200, "the worker is ready")
        assert _status(port, "/healthz") == 200
        assert _status(port, "/elsewhere") == 404
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert 'baton_build_info{service="tools"' in metrics
        assert process.stop() == 0


@pytest.mark.parametrize("service", ["gateway", "tools"])
def test_another_storage_than_the_streams_have_stops_the_start_with_a_reason(
    nats: Nats, tmp_path: Path, service: str
) -> None:
    async def make_streams() -> None:
        async with rig(nats.url):
            pass

    asyncio.run(make_streams())
    env = {"BATON_NATS_URL": nats.url, "BATON_LOG_STORAGE": "memory", "BATON_GATEWAY_PORT": str(free_port())}
    with running([sys.executable, "-m", f"services.{service}"], tmp_path / "out", env) as process:
        assert process.popen.wait(60) == 2
        assert "BATON_LOG_STORAGE=memory" in process.text()
        assert "Traceback" not in process.text()


def _status(port: int, path: str) -> int:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=2).status_code
    except httpx.HTTPError:
        return 0


@contextlib.contextmanager
def _serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_key_set_signs_tokens_and_a_stranger_does_not() -> None:
    key, stranger = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
    public = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "one", "use": "sig", "alg": "RS256"}

    class KeySet(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            import json

            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"keys": [public]}).encode())

        def log_message(self, *_: object) -> None:
            return

    claims = {"sub": "alice", "exp": time.time() + 60, "aud": "baton"}

    async def scenario(url: str) -> None:
        checks = Authenticator(GatewaySettings(jwt_jwks=url, jwt_audience="baton"))
        who = await checks.identify(jwt.encode(claims, key, "RS256", headers={"kid": "one"}))
        assert who.owner == "alice"
        for bad in (
            jwt.encode(claims, stranger, "RS256", headers={"kid": "one"}),
            jwt.encode({**claims, "aud": "other"}, key, "RS256", headers={"kid": "one"}),
            jwt.encode(claims, key, "RS256", headers={"kid": "two"}),
            jwt.encode(claims, str(public["n"]), "HS256", headers={"kid": "one"}),
        ):
            with pytest.raises(Unauthorized):
                await checks.identify(bad)

    with _serving(KeySet) as url:
        asyncio.run(scenario(url))
