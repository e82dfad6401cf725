"""The whole of Baton as processes: nats-server, Milvus Lite, the demo's HR system, workers, gateways."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import websockets

from evaluation.frames import Frame, answer_text
from tests.servers.milvus import Milvus, milvus_lite
from tests.servers.nats import Nats, nats_server
from tests.servers.processes import PATIENCE_S, ROOT, Process, free_port, running, wait_until

DOCUMENTS = ROOT / "examples" / "hr_assistant" / "documents"
answer = answer_text


@dataclass
class System:
    """A running Baton. `gateways` are ports; `processes` those of each service, in the order of their starting."""

    nats: Nats
    milvus: Milvus
    folder: Path
    env: dict[str, str]
    gateways: list[int] = field(default_factory=list)
    processes: dict[str, list[Process]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateways[0]}"

    def socket_url(self, gateway: int = 0) -> str:
        return f"ws://127.0.0.1:{self.gateways[gateway]}/ws"

    def metrics(self, gateway: int = 0) -> str:
        return httpx.get(f"http://127.0.0.1:{self.gateways[gateway]}/metrics", timeout=PATIENCE_S).text

    def ask(self, query: str, *, gateway: int = 0, **fields: Any) -> list[Frame]:
        """The frames of one question, to its end."""
        return asyncio.run(self.ask_async(query, gateway=gateway, **fields))

    async def whole_answer(self, query: str, **fields: Any) -> str:
        """The text of an answer that nothing disturbs."""
        frames = await self.ask_async(query, **fields)
        assert frames[-1]["type"] == "done", frames
        return answer(frames)

    async def ask_async(self, query: str, *, gateway: int = 0, **fields: Any) -> list[Frame]:
        async with websockets.connect(self.socket_url(gateway), open_timeout=PATIENCE_S) as socket:
            await socket.send(json.dumps({"query": query, **fields}))
            frames: list[Frame] = []
            try:
                async with asyncio.timeout(60):
                    async for data in socket:
                        frame = json.loads(data)
                        if frame["type"] != "hello":
                            frames.append(frame)
                        if frame["type"] in ("done", "error"):
                            break
            except TimeoutError:
                raise AssertionError(f"{query!r} has no end within 60 s: {frames}") from None
            return frames


def only(frames: list[Frame], kind: str) -> list[Frame]:
    return [frame for frame in frames if frame["type"] == kind]


def assert_contiguous(frames: list[Frame]) -> None:
    """`seq` counts from 0 without gap or repeat, a joined frame counting for all that it joins."""
    expected = 0
    for frame in frames:
        assert frame.get("from_seq", frame["seq"]) == expected, frames
        expected = frame["seq"] + 1


@contextlib.contextmanager
def system(
    folder: Path,
    *,
    replicas: Mapping[str, int] | None = None,
    settings: Mapping[str, str] | None = None,
    documents: Path | None = DOCUMENTS,
    root: Path = ROOT,
) -> Iterator[System]:
    """A Baton with its documents ingested.

    Args:
        replicas: how many of each service; 1 where not named, 0 = none.
        settings: further settings of all services.
        root: where the services' sources are.
    """
    counts = {"retriever": 1, "generator": 1, "tools": 1, "gateway": 1, **(replicas or {})}
    with contextlib.ExitStack() as stack:
        if documents is not None:
            _lay_out(documents, folder)
        nats = stack.enter_context(nats_server(folder / "nats"))
        milvus = stack.enter_context(milvus_lite(folder / "milvus"))
        erp = free_port()
        stack.enter_context(
            running([sys.executable, "-m", "examples.hr_assistant.erp", "--port", str(erp)], folder / "erp.log")
        )
        env = {
            "BATON_NATS_URL": nats.url,
            "BATON_MILVUS_URI": milvus.uri,
            "BATON_LEAVE_URL": f"http://127.0.0.1:{erp}",
            "BATON_EXTRACTIVE_DELAY_MS": "1",
            "BATON_RETRIEVAL_TIMEOUT_S": "30",  # a document store that has just started is slow where much else runs
            "BATON_CACHE": "off",  # a test that asks the same question twice wants it answered twice
            **(settings or {}),
        }
        one = System(nats, milvus, folder, env)
        for service in ("retriever", "generator", "tools"):
            for number in range(counts[service]):
                stack.enter_context(start(one, service, number, root))
        for number in range(counts["gateway"]):
            one.gateways.append(stack.enter_context(start_gateway(one, number, root)))
        wait_until(lambda: _complete(one, counts), "all workers are alive", within_s=60)
        yield one


@contextlib.contextmanager
def start(one: System, service: str, number: int, root: Path = ROOT, **settings: str) -> Iterator[Process]:
    """One more process of a service, of the version whose sources are in `root`."""
    patient = service in ("retriever", "generator") and root == ROOT
    argv = [sys.executable, "-m", *(["tests.patient"] if patient else []), f"services.{service}"]
    with running(argv, one.folder / f"{service}-{number}.log", {**one.env, **settings}, root) as process:
        one.processes.setdefault(service, []).append(process)
        try:
            yield process
        finally:
            one.processes[service] = [other for other in one.processes[service] if other is not process]


@contextlib.contextmanager
def start_gateway(one: System, number: int, root: Path = ROOT, **settings: str) -> Iterator[int]:
    port = free_port()
    with start(one, "gateway", number, root, BATON_GATEWAY_PORT=str(port), **settings) as process:
        wait_until(lambda: _state(port).get("ready") or not process.alive, "the gateway is ready", within_s=60)
        assert process.alive, process.text()
        yield port


@functools.cache
def _ingested(documents: Path) -> Path:
    """A folder with the servers' data after these documents were ingested; made once in a test process."""
    folder = Path(tempfile.mkdtemp(prefix="baton-documents-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with nats_server(folder / "nats") as nats, milvus_lite(folder / "milvus") as milvus:
        env = {"BATON_NATS_URL": nats.url, "BATON_MILVUS_URI": milvus.uri}
        with ingest_worker(folder, env):
            bring_in(documents, folder, env)
    return folder


@contextlib.contextmanager
def ingest_worker(folder: Path, env: Mapping[str, str], number: int = 0) -> Iterator[Process]:
    """An ingest worker as a process; it has tidied up when it has ended."""
    argv = [sys.executable, "-m", "services.retriever.ingestion"]
    with running(argv, folder / f"ingest-worker-{number}.log", dict(env)) as process:
        yield process


def bring_in(documents: Path, folder: Path, env: Mapping[str, str], within_s: float = 100.0) -> None:
    """`baton ingest`, with the ingest workers that are there."""
    argv = [sys.executable, "-m", "services.cli", "ingest", str(documents)]
    with running(argv, folder / "ingest.log", dict(env)) as process:
        assert process.ended(within_s) == 0, process.text()


def _lay_out(documents: Path, folder: Path) -> None:
    """Give the servers that will start in `folder` the data of an ingestion."""
    ingested = _ingested(documents)
    for part in ("nats/js", "milvus/data"):
        shutil.copytree(ingested / part, folder / part)


def workers_alive(port: int) -> dict[str, int]:
    """How many workers of each stage a gateway hears of."""
    found: dict[str, int] = _state(port).get("workers", {})
    return found


def _complete(one: System, counts: Mapping[str, int]) -> bool:
    wanted = {"retrieve": counts["retriever"], "generate": counts["generator"], "tools.default": counts["tools"]}
    wanted = {stage: count for stage, count in wanted.items() if count}
    for process in itertools.chain(*one.processes.values()):
        assert process.alive, process.text()
    return all(workers_alive(port) == wanted for port in one.gateways)


def _state(port: int) -> dict[str, Any]:
    try:
        # Without TLS no certificates are verified, and reading them would take 30 ms each time.
        state: dict[str, Any] = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2, verify=False).json()
    except (httpx.HTTPError, ValueError):
        return {}
    return state
