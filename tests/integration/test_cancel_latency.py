"""From a client's `cancel` to the closed connection of the model, while its tokens arrive fast."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from baton_proto.messages import Sources
from services.common.job import Job
from tests.integration.test_gateway_protocol import connected, gateway, receive
from tests.rig import rig
from tests.servers.fast_llm import fast_llm
from tests.servers.nats import Nats
from tests.servers.processes import PATIENCE_S, eventually, running, wait_until
from tests.system import Frame, assert_contiguous, workers_alive

CANCELS = 40
AT_A_TIME = 4
EVERY_S = 0.004
LIMIT_MS = 100.0
WANTED = 5
ROUNDS = 40
"""Other tests run beside this one and take the processors from time to time: so many rounds `WANTED` without that, of
these, are the proof. They are short, so that most have a chance."""


async def _retrieve(job: Job) -> None:
    await job.hand_over(Sources(sources=[]), msgspec.structs.replace(job.item, stage="generate"))


async def _ask_and_cancel(socket: Any, number: int, after_s: float) -> float:
    """Ask, read for a while, cancel, read to the end; returns when the cancel was sent."""
    frames: list[Frame] = []

    async def read_until(*kinds: str) -> None:
        while not frames or frames[-1]["type"] not in kinds:
            frames.append(await receive(socket))

    await socket.send(json.dumps({"query": f"number {number}", "request_id": f"r{number}"}))
    await read_until("answer_chunk", "error")
    reading = asyncio.create_task(read_until("done", "error"))
    await asyncio.sleep(after_s)
    sent = time.monotonic()
    await socket.send(json.dumps({"type": "cancel", "request_id": f"r{number}"}))
    await asyncio.wait_for(reading, PATIENCE_S)
    assert (frames[-1]["type"], frames[-1].get("finish_reason")) == ("done", "cancelled"), frames[-1]
    assert_contiguous(frames)
    return sent


async def _hears_of_a_retriever(port: int) -> bool:
    return "retrieve" in await asyncio.to_thread(workers_alive, port)


async def _cancel_many(nats: Nats, port: int, start: int) -> dict[int, float]:
    """When each of the requests from number `start` on was cancelled; monotonic seconds."""
    moments = random.Random(3)
    waits = [moments.uniform(0, 0.12) for _ in range(CANCELS)]
    sent: dict[int, float] = {}

    async def client(first: int) -> None:
        async with connected(port) as socket:
            assert (await receive(socket))["type"] == "hello"
            # A gateway that has run for a while refuses what it knows no worker for.
            await eventually(lambda: _hears_of_a_retriever(port), "the gateway hears of the retriever")
            for number in range(first, CANCELS, AT_A_TIME):
                sent[start + number] = await _ask_and_cancel(socket, start + number, waits[number])

    async with rig(nats.url) as one, one.worker(_retrieve, concurrency=2 * AT_A_TIME):
        await asyncio.gather(*(client(first) for first in range(AT_A_TIME)))
    return sent


@pytest.mark.timeout(300)
def test_a_cancel_closes_the_connection_to_the_model_within_a_tenth_of_a_second(nats: Nats, tmp_path: Path) -> None:
    env = {
        "BATON_NATS_URL": nats.url,
        "BATON_LOG_SHARDS": "4",
        "BATON_GENERATOR": "openai",
        "BATON_LLM_MODEL": "m",
    }
    with fast_llm(tmp_path, EVERY_S) as llm:
        generator = [sys.executable, "-m", "services.generator"]
        with (
            running(generator, tmp_path / "generator.log", {**env, "BATON_LLM_URL": llm.url}) as process,
            gateway(tmp_path, nats) as (port, _),
        ):
            wait_until(lambda: "serving generate" in process.text(), "the generator serves")
            good = 0
            for number in range(ROUNDS):
                sent = asyncio.run(_cancel_many(nats, port, number * CANCELS))
                expected = (number + 1) * CANCELS
                wait_until(lambda most=expected: len(llm.closed()) == most, "every connection is closed")
                closed = llm.closed()
                took = sorted((closed[one] - at) * 1000 for one, at in sent.items())
                print(f"{CANCELS} cancels until closed: p50 {took[len(took) // 2]:.1f} ms, max {took[-1]:.1f} ms")
                assert took[0] > 0
                good += took[-1] < LIMIT_MS
                if good == WANTED:
                    return
    pytest.fail(f"only in {good} of {ROUNDS} rounds")
