"""Every kind of process gets SIGTERM while two hundred answers run: none loses a frame."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
import websockets

from services.common.config import GatewaySettings
from services.common.presence import watch
from services.common.process import CLOSING_S
from services.gateway.app import Gateway
from tests.rig import Rig, run_rig
from tests.servers.nats import Nats
from tests.servers.processes import Process, eventually
from tests.system import Frame, System, answer, assert_contiguous, only, system

QUESTIONS = ("公司年假政策有哪些?", "How long is probation?", "我还剩多少天年假?", "How do I claim travel expenses?")
SHORT = {"max_tokens": 40}
RUNNING = 200
SOCKETS = 20
DRAIN_S = 1.0


class Client:
    """One socket with several questions; when it is closed it comes back, to another gateway, for what is missing."""

    def __init__(self, one: System, number: int, count: int) -> None:
        self._one = one
        self._number = number
        self.queries = {f"d{number}-{at}": QUESTIONS[at % len(QUESTIONS)] for at in range(count)}
        self.frames: dict[str, list[Frame]] = {name: [] for name in self.queries}
        self.closes: list[int] = []

    def all_have(self, kind: str) -> bool:
        return all(only(frames, kind) for frames in self.frames.values())

    async def run(self) -> None:
        async with asyncio.timeout(100):
            while open_ones := [name for name, frames in self.frames.items() if not _ended(frames)]:
                gateway = (self._number + len(self.closes)) % len(self._one.gateways)
                try:
                    async with websockets.connect(self._one.socket_url(gateway)) as socket:
                        await self._follow(socket, open_ones)
                except websockets.ConnectionClosed as closed:
                    self.closes.append(closed.rcvd.code if closed.rcvd else 1006)
                except OSError:
                    self.closes.append(0)
                    await asyncio.sleep(random.uniform(0.05, 0.2))

    async def _follow(self, socket: Any, names: list[str]) -> None:
        for name in names:
            await socket.send(json.dumps(self._first(name)))
        while not all(_ended(self.frames[name]) for name in names):
            frame = json.loads(await socket.recv())
            if "seq" in frame:
                self.frames[frame["request_id"]].append(frame)

    def _first(self, name: str) -> dict[str, Any]:
        frames = self.frames[name]
        if frames:
            return {"type": "resume", "request_id": name, "after_seq": frames[-1]["seq"]}
        return {"type": "query", "request_id": name, "query": self.queries[name], **SHORT}


def _ended(frames: list[Frame]) -> bool:
    return bool(frames) and frames[-1]["type"] in ("done", "error")


def test_two_hundred_running_answers_survive_the_drain_of_one_process_of_each_kind(tmp_path: Path) -> None:
    settings = {"BATON_EXTRACTIVE_DELAY_MS": "150", "BATON_DRAIN_S": str(DRAIN_S), "BATON_CONCURRENCY": "200"}
    replicas = {"retriever": 2, "generator": 2, "tools": 2, "gateway": 2}

    async def scenario(one: System) -> tuple[list[Client], dict[str, str]]:
        undisturbed = await asyncio.gather(*(one.whole_answer(query, **SHORT) for query in QUESTIONS))
        whole = dict(zip(QUESTIONS, undisturbed, strict=True))
        clients = [Client(one, number, RUNNING // SOCKETS) for number in range(SOCKETS)]
        running = [asyncio.create_task(client.run()) for client in clients]
        await eventually(lambda: all(client.all_have("accepted") for client in clients), "all are accepted", 40)
        await asyncio.gather(*(_terminate(one.processes[service][0]) for service in ("retriever", "tools")))
        await eventually(
            lambda: all(client.all_have("answer_chunk") for client in clients), "all answers have begun", 40
        )
        # Both at once: a generator that takes its time to go must not outlast the answers that the gateway shows.
        await asyncio.gather(*(_terminate(one.processes[service][0]) for service in ("generator", "gateway")))
        await asyncio.gather(*running)
        return clients, whole

    with system(tmp_path, settings=settings, replicas=replicas) as one:
        clients, whole = asyncio.run(scenario(one))
    for client in clients:
        for name, frames in client.frames.items():
            assert_contiguous(frames)
            assert frames[-1]["type"] == "done", frames[-1]
            assert answer(frames) == whole[client.queries[name]]
    codes = {code for client in clients for code in client.closes}
    assert 1012 in codes
    assert codes <= {1012, 0}


async def _terminate(process: Process) -> None:
    process.popen.terminate()
    # Whoever stops processes waits for so long and then kills them: deploy/k8s/base/common/every-service.yaml.
    await eventually(lambda: not process.alive, "it has drained and gone", within_s=DRAIN_S + CLOSING_S)
    assert process.popen.returncode == 0, process.text()


def test_a_gateway_ends_whose_background_work_missed_that_it_was_told_to(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where nats-py swallows a cancellation, before Python 3.12."""

    async def deaf_once() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await asyncio.sleep(3600)

    async def scenario(one: Rig) -> None:
        async with watch(one.bus) as presence:
            gateway = Gateway(one.bus, presence, GatewaySettings())
            monkeypatch.setattr(gateway.requests.feeder, "run", deaf_once)
            async with asyncio.timeout(60), gateway.running():
                await asyncio.sleep(0)

    run_rig(nats, scenario)
