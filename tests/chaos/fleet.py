"""The processes that are hurt, and how they come back; Milvus Lite and the HR system, which are not, run beside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.servers.milvus import milvus_lite
from tests.servers.nats import Place, places
from tests.servers.processes import Process, eventually, free_port, running
from tests.system import DOCUMENTS, bring_in, ingest_worker

from .schedule import EACH, SERVICES

SMALL_RETRIEVER = "tests.chaos.small_retriever:open_retriever"
START_S = 60.0
STOP_S = 40.0
COUNTED = ("baton_redelivered", "baton_work_items", "baton_repaired_gaps", "baton_log_appends")


@dataclass
class Member:
    """One process. Its name, ports and settings stay when it is started again."""

    name: str
    argv: list[str]
    log: Path
    ready_url: str
    env: dict[str, str] = field(default_factory=dict)
    metrics_url: str = ""
    process: Process | None = None
    hurt: bool = False
    """Whether a fault is at work on it, up to when it serves again."""

    @property
    def service(self) -> str:
        return self.name.partition("-")[0]

    def start(self) -> None:
        self.process = Process(self.argv, self.log, self.env)

    def signal(self, number: int) -> None:
        assert self.process is not None
        if number == signal.SIGKILL:
            self.process.kill()
        else:
            os.kill(self.process.pid, number)


@dataclass
class Fleet:
    members: dict[str, Member]
    nats: list[Place]
    gateway_ports: list[int]
    folder: Path
    counts: Counter[str] = field(default_factory=Counter)
    """What the metrics of processes said just before they were hurt, and at the end."""
    http: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(verify=False, timeout=2))

    @property
    def nats_url(self) -> str:
        return ",".join(place.url for place in self.nats)

    async def ready(self, member: Member) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return (await self.http.get(member.ready_url)).status_code == 200
        return False

    async def until_ready(self, member: Member) -> None:
        """Wait until it serves. One that cannot start, because its port is still taken say, is started again."""
        ends = time.monotonic() + START_S
        while not await self.ready(member):
            assert member.process is not None
            if not member.process.alive:
                member.process.stop()
                await asyncio.sleep(0.5)
                member.start()
            if time.monotonic() > ends:
                raise AssertionError(f"{member.name} did not serve within {START_S:g} s; see {member.log}")
            await asyncio.sleep(0.1)

    async def all_ready(self) -> None:
        await asyncio.gather(*(self.until_ready(member) for member in self.members.values()))

    async def count(self, member: Member) -> None:
        """Add up what the process has counted; it is about to end."""
        if not member.metrics_url:
            return
        with contextlib.suppress(httpx.HTTPError, ValueError):
            text = (await self.http.get(member.metrics_url)).text
            for family in text_string_to_metric_families(text):
                if family.name in COUNTED:
                    for sample in family.samples:
                        if sample.name.endswith("_total"):
                            name = " ".join([family.name.removeprefix("baton_"), *sample.labels.values()])
                            self.counts[name] += int(sample.value)

    async def stop(self) -> list[str]:
        """SIGTERM to gateways and workers; those that did not end with 0 are named."""
        running = [member for member in self.members.values() if member.service != "nats"]
        for member in running:
            member.signal(signal.SIGTERM)
        with contextlib.suppress(AssertionError):  # said with its exit code, which is None
            await eventually(lambda: not any(_alive(member) for member in running), "all have ended", STOP_S)
        codes = {member.name: member.process.popen.poll() for member in running if member.process is not None}
        return [f"{name} ended with {code} after SIGTERM" for name, code in codes.items() if code != 0]


@contextlib.contextmanager
def fleet(folder: Path, *, cluster: bool, delay_ms: int, milvus: bool = True) -> Iterator[Fleet]:
    """All processes, started, with the demo's documents; whatever happens, none is left when the context is over.

    Args:
        delay_ms: between the pieces of an answer.
        milvus: search as users do; otherwise in a small retriever, which saves half of the start.
    """
    nats = places(folder, 3 if cluster else 1)
    one = Fleet({}, nats, [], folder)
    with contextlib.ExitStack() as stack:
        for place in nats:
            argv = place.argv(nats if cluster else ())
            ready = f"http://127.0.0.1:{place.monitor}/healthz"
            one.members[place.name] = Member(place.name, argv, place.log, ready)
        stack.callback(_end, one)
        for member in one.members.values():
            member.start()
        env = {
            "BATON_LEAVE_URL": stack.enter_context(_hr_system(folder)),
            "BATON_NATS_URL": one.nats_url,
            "BATON_REPLICAS": "3" if cluster else "1",
            "BATON_EXTRACTIVE_DELAY_MS": str(delay_ms),
            "BATON_CACHE": "off",  # answers that come at once are no challenge
            "BATON_RETRIEVER": "milvus" if milvus else SMALL_RETRIEVER,
        }
        if milvus:
            env["BATON_MILVUS_URI"] = stack.enter_context(milvus_lite(folder / "milvus")).uri
        for service in SERVICES:
            for number in range(EACH[service]):
                member = _member(folder, service, number, env, one.gateway_ports)
                one.members[member.name] = member
                member.start()
        if milvus:
            _ingest(folder, env)
        yield one


def _ingest(folder: Path, env: dict[str, str]) -> None:
    with ingest_worker(folder, env):
        bring_in(DOCUMENTS, folder, env, START_S)


@contextlib.contextmanager
def _hr_system(folder: Path) -> Iterator[str]:
    port = free_port()
    with running([sys.executable, "-m", "examples.hr_assistant.erp", "--port", str(port)], folder / "erp.log"):
        yield f"http://127.0.0.1:{port}"


def _member(folder: Path, service: str, number: int, env: dict[str, str], gateway_ports: list[int]) -> Member:
    name, port = f"{service}-{number}", free_port()
    argv = [sys.executable, "-m", f"services.{service}"]
    setting = "BATON_GATEWAY_PORT" if service == "gateway" else "BATON_METRICS_PORT"
    if service == "gateway":
        gateway_ports.append(port)
    base = f"http://127.0.0.1:{port}"
    return Member(name, argv, folder / f"{name}.log", f"{base}/readyz", {**env, setting: str(port)}, f"{base}/metrics")


def _end(one: Fleet) -> None:
    """What still runs is killed, frozen ones too. Gateways and workers have had their chance in `stop`."""
    for member in one.members.values():
        if member.process is not None:
            if member.process.alive:
                member.process.kill()
            member.process.stop()


def _alive(member: Member) -> bool:
    return member.process is not None and member.process.alive
