"""`baton ask` as a process with real gateways, of which one is killed."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

from baton_proto.messages import AnswerChunk, Done, Timings, Usage
from services.common.job import Job
from tests.commands import TIMEOUT_S, baton, finish, start_baton
from tests.integration.test_gateway_protocol import gateway
from tests.rig import rig
from tests.servers.nats import Nats
from tests.servers.processes import eventually

DONE = Done(finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=Timings())


def url(port: int) -> str:
    return f"ws://127.0.0.1:{port}/ws"


def _folder(parent: Path) -> Path:
    (parent / "second").mkdir()
    return parent / "second"


async def _until_chunk(process: asyncio.subprocess.Process) -> str:
    """The request id, once the answer has begun."""
    assert process.stdout is not None
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            frame: dict[str, Any] = json.loads(await process.stdout.readline())
            if frame["type"] == "answer_chunk":
                return str(frame["request_id"])


def test_an_answer_goes_on_at_another_gateway_when_its_own_is_killed(nats: Nats, tmp_path: Path) -> None:
    go = asyncio.Event()

    async def handler(job: Job) -> None:
        await job.write(AnswerChunk(content="0 "))
        await job.flush()
        await go.wait()
        for number in range(1, 20):
            await job.write(AnswerChunk(content=f"{number} "))
        await job.finish(DONE)

    async def scenario(first: int, second: int, killed: Any) -> tuple[int, str, str]:
        async with rig(nats.url) as one, one.worker(handler):
            process = await start_baton("ask", "--json", "--url", f"{url(first)},{url(second)}", "q")
            await _until_chunk(process)
            killed.kill()
            go.set()
            return await finish(process)

    with gateway(tmp_path, nats) as (first, dying), gateway(_folder(tmp_path), nats) as (second, _):
        status, out, err = asyncio.run(scenario(first, second, dying))
    frames = [json.loads(line) for line in out.splitlines()]
    texts = [frame["content"] for frame in frames if frame["type"] == "answer_chunk"]
    assert status == 0
    assert "reconnecting" in err
    assert [frame["type"] for frame in frames].count("resumed") == 1
    assert "".join(texts) == " ".join(map(str, range(1, 20))) + " "
    assert frames[-1]["type"] == "done"


def test_a_stop_while_the_gateway_is_away_cancels_at_the_other_one(nats: Nats, tmp_path: Path) -> None:
    async def handler(job: Job) -> None:
        await job.write(AnswerChunk(content="0 "))
        await job.flush()
        await asyncio.Event().wait()

    async def scenario(first: int, second: int, killed: Any) -> tuple[int, str]:
        async with rig(nats.url) as one, one.worker(handler) as worker:
            process = await start_baton("ask", "--json", "--url", f"{url(first)},{url(second)}", "q")
            request_id = await _until_chunk(process)
            killed.kill()
            process.send_signal(signal.SIGINT)
            status, _, _ = await finish(process)
            await eventually(lambda: worker.worker.running == 0, "the holder has stopped")
            _, log, _ = await baton("log", request_id, BATON_NATS_URL=nats.url, BATON_LOG_SHARDS="4")
            return status, log

    with gateway(tmp_path, nats) as (first, dying), gateway(_folder(tmp_path), nats) as (second, _):
        status, log = asyncio.run(scenario(first, second, dying))
    assert status == 130
    assert "ended with done (cancelled)" in log
