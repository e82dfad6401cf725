"""Workers in two languages serve the same stage: either answers a question, and each takes over from the other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import websockets

from baton_proto import subjects
from services.common import streams
from services.common.config import NatsSettings
from services.common.connection import connect
from services.common.log import read_entries
from tests.servers.llm import node
from tests.servers.nats import Nats
from tests.servers.processes import ROOT, Process, free_port, running, wait_until
from tests.system import answer, assert_contiguous, only, workers_alive

ACK_WAIT_S = 2.0
SLOW_MS, QUICK_MS = "150", "5"
"""Between two pieces of an answer. One of thirty takes a slow worker so long that it is killed before the end, however
late the test hears of the beginning."""
QUESTION = "How many days of annual leave do employees have, and can they be carried over?"
SMALL_RETRIEVER = "tests.chaos.small_retriever:open_retriever"

Frame = dict[str, Any]


@dataclass
class Mixed:
    """A Baton whose generators come and go: `node` and `python`."""

    nats: Nats
    gateway: int
    folder: Path
    env: dict[str, str]
    generators: dict[str, Process] = field(default_factory=dict)

    def start(self, name: str, pace_ms: str) -> None:
        argv = {
            "node": [*node(), str(ROOT / "examples" / "worker-node" / "worker.js"), self.nats.url],
            "python": [sys.executable, "-m", "services.generator"],
        }[name]
        env = {**self.env, "BATON_EXTRACTIVE_DELAY_MS": pace_ms, "PACE_MS": pace_ms}
        self.generators[name] = Process(argv, self.folder / f"{name}.log", env)

    def kill(self, name: str) -> None:
        self.generators.pop(name).kill()

    def there(self, count: int = 1) -> None:
        wait_until(lambda: workers_alive(self.gateway).get("generate") == count, f"{count} generators are heard", 60)

    def ask(self, on_first_text: Callable[[], object] = lambda: None) -> list[Frame]:
        """The frames of a question, to the end; something happens as soon as its answer begins."""

        async def main() -> list[Frame]:
            frames: list[Frame] = []
            async with (
                websockets.connect(f"ws://127.0.0.1:{self.gateway}/ws") as socket,
                asyncio.timeout(60),
            ):
                await socket.send(json.dumps({"query": QUESTION, "top_k": 2, "cache": False}))
                async for data in socket:
                    frame = json.loads(data)
                    if frame["type"] == "hello":
                        continue
                    if frame["type"] == "answer_chunk" and not only(frames, "answer_chunk"):
                        await asyncio.to_thread(on_first_text)
                    frames.append(frame)
                    if frame["type"] in ("done", "error"):
                        break
            return frames

        frames = asyncio.run(main())
        assert_contiguous(frames)
        assert frames[-1]["type"] == "done", frames[-1]
        assert frames[-1]["finish_reason"] == "stop"
        assert answer(frames).strip()
        assert frames[-1]["cited"]
        return frames

    def writers(self, frames: list[Frame]) -> list[str]:
        """Who wrote the log, one after the other, by the first word of their names."""

        async def main() -> list[str]:
            async with connect(NatsSettings(url=self.nats.url), "look") as bus:
                key = subjects.request_key("anonymous", frames[0]["request_id"])
                names = [stored.entry.writer.split("-")[0] for stored in await read_entries(bus, bus.address(key))]
            return [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]

        return asyncio.run(main())


@contextlib.contextmanager
def mixed(nats: Nats, folder: Path) -> Iterator[Mixed]:
    asyncio.run(_consumer(nats))
    port = free_port()
    env = {
        "BATON_NATS_URL": nats.url,
        "BATON_GATEWAY_PORT": str(port),
        "BATON_RETRIEVER": SMALL_RETRIEVER,
        "BATON_CACHE": "off",
        "BATON_ACK_WAIT_S": str(ACK_WAIT_S),
        "BATON_METRICS_PORT": "0",
    }
    one = Mixed(nats, port, folder, env)
    with contextlib.ExitStack() as stack:
        for service in ("gateway", "retriever"):
            stack.enter_context(running([sys.executable, "-m", f"services.{service}"], folder / f"{service}.log", env))
        stack.callback(lambda: [process.stop() for process in one.generators.values()])
        one.start("node", SLOW_MS)
        wait_until(lambda: workers_alive(port).get("retrieve") == 1, "the retriever is heard", 60)
        yield one


async def _consumer(nats: Nats) -> None:
    """The queue of the generators, with a short ack wait, so that a take-over takes less time."""
    async with connect(NatsSettings(url=nats.url), "test") as bus:
        await streams.ensure(bus)
        await streams.ensure_consumer(bus, subjects.GENERATE, ACK_WAIT_S, 0)


def test_workers_in_two_languages_take_over_from_each_other(nats: Nats, tmp_path: Path) -> None:
    with mixed(nats, tmp_path) as one:
        one.there()

        def python_takes_over() -> None:
            one.kill("node")
            one.start("python", SLOW_MS)

        frames = one.ask(python_takes_over)
        assert one.writers(frames)[-2:] == ["node", "generate"]
        assert len(only(frames, "answer_reset")) == 1, (
            "other words than the other worker's: it starts again, and says so"
        )

        def node_takes_over() -> None:
            one.kill("python")
            one.start("node", QUICK_MS)

        frames = one.ask(node_takes_over)
        assert one.writers(frames)[-2:] == ["generate", "node"]
        assert one.writers(one.ask())[-1] == "node"
