"""Several of everything at once, and workers that die or freeze in the middle of an answer."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import websockets
from nats.aio.msg import Msg

from baton_proto import codec, subjects
from baton_proto.messages import Holdings
from services.common.bus import Bus
from services.common.config import NatsSettings, WorkerSettings
from services.common.connection import connect
from tests.servers.processes import Process, eventually, freeze
from tests.system import Frame, System, answer, assert_contiguous, only, start, system

QUESTION = "公司年假政策有哪些?"


def test_fifty_questions_at_once_over_three_of_each_worker_and_two_gateways(tmp_path: Path) -> None:
    async def on_one_socket(one: System, gateway: int, number: int) -> dict[str, list[Frame]]:
        found: dict[str, list[Frame]] = {}
        async with websockets.connect(one.socket_url(gateway)) as socket:
            for index in range(number):
                query = ("我还剩多少天年假?", QUESTION, "How long is probation?")[index % 3]
                await socket.send(json.dumps({"query": query, "request_id": f"g{gateway}-{index}"}))
            ended = 0
            async with asyncio.timeout(90):
                while ended < number:
                    frame = json.loads(await socket.recv())
                    if "request_id" in frame:
                        found.setdefault(frame["request_id"], []).append(frame)
                        ended += frame["type"] in ("done", "error")
        return found

    async def scenario(one: System) -> None:
        results = await asyncio.gather(*(on_one_socket(one, gateway, 25) for gateway in (0, 1)))
        for frames in (frames for result in results for frames in result.values()):
            assert_contiguous(frames)
            assert frames[-1]["type"] == "done", frames[-1]
            tools = only(frames, "tool_result")
            assert all(result["ok"] for result in tools)
        assert sum(len(result) for result in results) == 50

    with system(tmp_path, replicas={"retriever": 3, "generator": 3, "tools": 3, "gateway": 2}) as one:
        asyncio.run(scenario(one))


async def _until_chunks(socket: Any, frames: list[Frame], number: int) -> None:
    async with asyncio.timeout(60):
        while len(only(frames, "answer_chunk")) < number:
            frames.append(json.loads(await socket.recv()))


async def _to_the_end(socket: Any, frames: list[Frame]) -> list[Frame]:
    async with asyncio.timeout(60):
        while frames[-1]["type"] not in ("done", "error"):
            frames.append(json.loads(await socket.recv()))
    return [frame for frame in frames if frame["type"] != "hello"]


SLOW = {"BATON_EXTRACTIVE_DELAY_MS": "25"}


def test_a_generator_killed_in_the_middle_of_an_answer_is_replaced_within_six_seconds_and_the_answer_is_complete(
    tmp_path: Path,
) -> None:
    # What it takes is the ack wait and what comes on top. A shorter one than is set where nobody chooses leaves a busy
    # machine more time for that.
    assert WorkerSettings().ack_wait_s <= 5

    async def scenario(one: System) -> tuple[list[Frame], str]:
        undisturbed = await one.whole_answer(QUESTION)
        async with (
            connect(NatsSettings(url=one.nats.url), "test") as bus,
            websockets.connect(one.socket_url()) as socket,
        ):
            await socket.send(json.dumps({"query": QUESTION, "request_id": "killed"}))
            frames: list[Frame] = []
            await _until_chunks(socket, frames, 5)
            (await _holder(one, bus, "killed")).kill()
            heard = killed = time.monotonic()
            while True:
                frames.append(json.loads(await socket.recv()))
                # Frames that were on their way come at once. This process may stand still before it listens again, so
                # it counts from when the last one was heard: a pause that was missed would never end.
                before, heard = heard, time.monotonic()
                if heard - before > 1:
                    break
            waited = heard - killed
            assert waited < 6, f"the next frame came after {waited:.1f} s"
            return await _to_the_end(socket, frames), undisturbed

    with system(tmp_path, settings={**SLOW, "BATON_ACK_WAIT_S": "3"}, replicas={"generator": 2}) as one:
        frames, undisturbed = asyncio.run(scenario(one))
    assert_contiguous(frames)
    assert frames[-1]["type"] == "done"
    assert only(frames, "answer_reset") == []
    assert answer(frames) == undisturbed


def test_a_generator_frozen_for_twenty_seconds_writes_and_settles_nothing_and_takes_new_work(tmp_path: Path) -> None:
    async def scenario(one: System) -> tuple[list[Frame], str]:
        undisturbed = await one.whole_answer(QUESTION)
        async with websockets.connect(one.socket_url()) as socket:
            await socket.send(json.dumps({"query": QUESTION, "request_id": "frozen"}))
            frames: list[Frame] = []
            await _until_chunks(socket, frames, 5)
            generator = one.processes["generator"][0]
            freeze(generator.pid)
            frozen = time.monotonic()
            with start(one, "generator", 1) as other:
                frames = await _to_the_end(socket, frames)
                # Asked while it is frozen: whatever of it lies in its socket must not be worked on twice.
                during = await asyncio.gather(*(one.ask_async(QUESTION) for _ in range(4)))
                await eventually(lambda: time.monotonic() - frozen > 20, "twenty seconds have passed", within_s=60)
                os.kill(generator.pid, signal.SIGCONT)
                await eventually(
                    lambda: "replaced" in generator.text(), "the frozen one learns that it was replaced", 60
                )
                other.stop()
            for one_answer in [*during, await one.ask_async(QUESTION)]:
                assert_contiguous(one_answer)
                assert answer(one_answer) == undisturbed
            await socket.send('{"type": "resume", "request_id": "frozen"}')
            again = [json.loads(await socket.recv())]
            replayed = await _to_the_end(socket, again)
            assert [frame["seq"] for frame in replayed[1:]] == [frame["seq"] for frame in frames]
            return frames, undisturbed

    with system(tmp_path, settings=SLOW) as one:
        frames, undisturbed = asyncio.run(scenario(one))
    assert_contiguous(frames)
    assert answer(frames) == undisturbed


async def _holder(one: System, bus: Bus, request_id: str) -> Process:
    """The generator process that holds a request; its name ends in its process id and a random part."""
    found: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def on_holdings(message: Msg) -> None:
        holdings = codec.decode(message.data, Holdings)
        holds = holdings.stage == "generate" and request_id in (item.request_id for item in holdings.items)
        if holds and not found.done():
            found.set_result(holdings.worker)

    await bus.subscribe("heard", on_holdings)
    await bus.publish(subjects.INVENTORY, b"", "heard")
    async with asyncio.timeout(30):
        pid = int((await found).split("-")[-2])
    return next(process for process in one.processes["generator"] if process.pid == pid)
