"""The image is small in what it may do, and Baton runs from it: all services, as the overlay `dev` starts them.

Needs `make image` before; without an image in .make/image these tests are skipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deploy.manifests import SERVICES, TOOLS, pod, render
from tests.servers.nats import nats_server
from tests.servers.processes import ROOT, Process, accepts, free_port, wait_until

STORAGE = ROOT / ".make" / "image"
IMAGE = os.environ.get("IMAGE", "localhost/baton:dev")
DOCUMENTS = "/opt/baton/lib/python3*/site-packages/examples/hr_assistant/documents"
SECRETS = {"NATS_PASSWORD": "unused"}


def test_the_dockerfile_is_clean() -> None:
    ran = subprocess.run(
        [TOOLS / "venv/bin/hadolint", ROOT / "deploy" / "Dockerfile"], capture_output=True, text=True, timeout=200
    )
    assert (ran.returncode, ran.stdout) == (0, "")


def _buildah(*arguments: str) -> str:
    command = ["buildah", "--root", str(STORAGE / "storage"), "--runroot", str(STORAGE / "run"), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def _has_image() -> bool:
    if not shutil.which("buildah") or not (STORAGE / "storage").is_dir():
        return False
    with contextlib.suppress(AssertionError):
        return bool(_buildah("images", "--quiet", IMAGE))
    return False


needs_image = pytest.mark.skipif(not _has_image(), reason="no image: run `make image` first")


@contextlib.contextmanager
def container() -> Iterator[str]:
    """A container of its own, made from the image."""
    name = _buildah("from", "--pull-never", IMAGE)
    try:
        yield name
    finally:
        _buildah("rm", name)


@contextlib.contextmanager
def running(name: str, argv: list[str], output: Path, env: dict[str, str]) -> Iterator[Process]:
    """A program in a container, in this machine's network."""
    options = [word for key, value in env.items() for word in ("--env", f"{key}={value}")]
    command = ["buildah", "--root", str(STORAGE / "storage"), "--runroot", str(STORAGE / "run")]
    process = Process([*command, "run", "--isolation", "chroot", *options, name, "--", *argv], output)
    try:
        yield process
    finally:
        process.stop()


@needs_image
def test_it_runs_as_nobody_in_particular_and_can_change_nothing() -> None:
    told = json.loads(_buildah("inspect", "--type", "image", IMAGE))["OCIv1"]["config"]
    assert told["User"] == "10001:10001"
    assert told["Entrypoint"] == ["python", "-m"]
    assert told["Cmd"] == ["services.gateway"]
    script = "id -u; find / -xdev -writable -not -type l -not -path '/proc/*' -not -path '/dev/*' 2>/dev/null; true"
    with container() as name:
        uid, *writable = _buildah("run", "--isolation", "chroot", name, "--", "sh", "-c", script).splitlines()
    assert uid == "10001"
    assert {path for path in writable if not path.startswith(("/sys", "/run/"))} <= {"/tmp", "/var/tmp"}


@needs_image
def test_it_holds_no_tools_to_build_with_and_nothing_of_this_machine() -> None:
    script = "ls /opt/baton/bin; ls /src /build /wheels /run/secrets /etc/pip.conf 2>/dev/null; true"
    with container() as name:
        told = _buildah("run", "--isolation", "chroot", name, "--", "sh", "-c", script).splitlines()
    assert "python" in told
    assert not {"pip", "pip3", "gcc", "hatchling", "ca.pem", "pip.conf", "requirements.lock"} & set(told)


@needs_image
def test_it_is_small() -> None:
    size, unit = _buildah("images", "--format", "{{.Size}}", IMAGE).split()
    assert unit == "MB"
    assert float(size) < 700
    with container() as name:
        script = "ls /opt/baton/lib/python3*/site-packages"
        packages = _buildah("run", "--isolation", "chroot", name, "--", "sh", "-c", script).splitlines()
    assert "pymilvus" in packages
    assert not {"torch", "scipy", "pip", "pytest"} & set(packages)


@needs_image
def test_baton_runs_from_the_image_and_answers_a_question(tmp_path: Path) -> None:
    dev = render("dev")
    milvus_port, gateway_port = free_port(), free_port()
    ports = {service: gateway_port if service == "gateway" else free_port() for service in SERVICES}
    with contextlib.ExitStack() as stack:
        nats = stack.enter_context(nats_server(tmp_path / "nats"))
        words = pod(dev.one("Deployment", "milvus"))["containers"][0]["args"]
        here = {"/data": "/tmp/milvus", "0.0.0.0": "127.0.0.1", "19530": str(milvus_port)}
        argv = ["python", "-m", *(here.get(word, word) for word in words)]
        box = stack.enter_context(container())
        milvus = stack.enter_context(running(box, argv, tmp_path / "milvus.log", {}))
        wait_until(lambda: accepts(milvus_port) or not milvus.alive, "Milvus Lite accepts connections", within_s=180)
        assert milvus.alive, milvus.text()
        local = {"BATON_NATS_URL": nats.url, "BATON_MILVUS_URI": f"http://127.0.0.1:{milvus_port}", "BATON_TOOLS": ""}
        started = {}
        for service in SERVICES:
            (module,) = pod(dev.one("Deployment", service))["containers"][0]["args"]
            port = "BATON_GATEWAY_PORT" if service == "gateway" else "BATON_METRICS_PORT"
            env = {**dev.environment(service, SECRETS), **local, port: str(ports[service])}
            box = stack.enter_context(container())
            log = tmp_path / f"{service}.log"
            started[service] = stack.enter_context(running(box, ["python", "-m", module], log, env))
        for service, process in started.items():
            wait_until(
                lambda port=ports[service], process=process: _ready(port) or not process.alive,
                f"{service} is ready",
                within_s=180,
            )
            assert process.alive, process.text()
        box = stack.enter_context(container())
        baton = ["run", "--isolation", "chroot", "--env", f"BATON_NATS_URL={nats.url}"]
        _buildah(*baton, box, "--", "sh", "-c", f"baton ingest {DOCUMENTS}")
        url = f"ws://127.0.0.1:{gateway_port}/ws"
        answer = _buildah(*baton, box, "--", "baton", "ask", "--url", url, "How long is probation?")
    assert "probation" in answer.lower()
    assert "[1]" in answer


def _ready(port: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200
    return False
