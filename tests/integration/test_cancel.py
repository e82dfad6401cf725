"""Cancel from anywhere at any time: two real gateways, workers of every stage in this process."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY

from baton_proto import codec, subjects
from baton_proto.messages import Announcement, AnswerChunk, CancelOrder, Done, Sources, ToolCall
from services.common.cancelling import cancel_orders, order_cancel
from services.common.clock import now_ms
from services.common.config import ToolsSettings
from services.common.job import Job
from services.common.presence import announce
from services.tools.service import tools_handler
from services.tools.toolbox import Toolbox
from tests.integration.test_gateway_protocol import connected, gateway, until
from tests.rig import Rig, rig
from tests.sample_tools import SampleTool, hang
from tests.servers.nats import nats_server
from tests.servers.processes import eventually
from tests.system import Frame, assert_contiguous, workers_alive


@dataclass
class Gateways:
    nats: str
    first: int
    second: int


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    folders = [tmp_path_factory.mktemp(name) for name in ("nats", "first", "second")]
    with nats_server(folders[0]) as nats, gateway(folders[1], nats) as one, gateway(folders[2], nats) as other:
        yield Gateways(nats.url, one[0], other[0])


def run(gateways: Gateways, scenario: Callable[[Rig], Awaitable[None]]) -> None:
    """With a generator that is only there: a gateway that has seen the last one go refuses questions."""
    present = Announcement(worker="stand-in", stage="generate", slots=1, running=0)

    async def main() -> None:
        async with rig(gateways.nats) as one, asyncio.timeout(100):
            standing_in = asyncio.create_task(announce(one.bus, lambda: present))
            try:
                await scenario(one)
            finally:
                standing_in.cancel()

    asyncio.run(main())


class Holder:
    """A handler that writes a chunk and goes on for ever."""

    def __init__(self) -> None:
        self.took: list[str] = []
        self.stopped: list[str] = []

    async def __call__(self, job: Job) -> None:
        name = job.item.request_id
        self.took.append(name)
        try:
            await job.write(AnswerChunk(content="beginning "))
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.stopped.append(name)
            raise


async def _ask(socket: Any, name: str) -> None:
    """Ask once the gateway knows of a worker: one that has run for a while refuses a question at once otherwise."""
    port = socket.remote_address[1]

    async def knows() -> bool:
        return {"retrieve", "generate"} <= set(await asyncio.to_thread(workers_alive, port))

    await eventually(knows, "the gateway hears of the worker")
    await socket.send(json.dumps({"query": "q", "request_id": name}))


async def _cancel(socket: Any, name: str) -> None:
    await socket.send(json.dumps({"type": "cancel", "request_id": name}))


async def _until(socket: Any, *kinds: str) -> list[Frame]:
    return [frame for frame in await until(socket, *kinds) if frame["type"] != "hello"]


def _assert_cancelled(frames: list[Frame]) -> None:
    assert_contiguous(frames)
    assert (frames[-1]["type"], frames[-1].get("finish_reason")) == ("done", "cancelled")


def _cancels_counted() -> float:
    return REGISTRY.get_sample_value("baton_cancel_seconds_count") or 0


def _seconds_counted() -> float:
    return REGISTRY.get_sample_value("baton_cancel_seconds_sum") or 0


def test_a_question_that_nobody_has_taken_yet_is_never_begun(gateways: Gateways) -> None:
    async def scenario(one: Rig) -> None:
        holder = Holder()
        async with one.worker(holder, concurrency=1), connected(gateways.first) as socket:
            await _ask(socket, "busy")
            await _until(socket, "answer_chunk")
            await _ask(socket, "waiting")
            await _until(socket, "accepted")
            await _cancel(socket, "waiting")
            assert (await _until(socket, "done", "error"))[-1]["finish_reason"] == "cancelled"
            await _cancel(socket, "busy")
            await _until(socket, "done")
            await eventually(lambda: _none_queued(one), "its work is dropped")
        assert holder.took == ["busy"]

    run(gateways, scenario)


async def _none_queued(one: Rig) -> bool:
    return await one.queued() == 0


def test_a_holder_that_finds_the_order_does_not_begin(gateways: Gateways) -> None:
    async def scenario(one: Rig) -> None:
        holder, item = Holder(), one.item()
        await order_cancel(one.bus, item.key)
        async with one.worker(holder):
            await one.start(item)
            frames = await one.ended(item)
        assert isinstance(frames[-1], Done)
        assert (frames[-1].finish_reason, holder.took) == ("cancelled", [])

    run(gateways, scenario)


def test_a_cancelled_holder_cleans_up_undisturbed_before_the_log_ends(gateways: Gateways) -> None:
    async def scenario(one: Rig) -> None:
        begun, seen, item = asyncio.Event(), [], one.item()

        async def tidy(job: Job) -> None:
            try:
                begun.set()
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.05)
                seen.extend(await one.frames(item))

        async with one.worker(tidy):
            await one.start(item)
            await begun.wait()
            await order_cancel(one.bus, item.key)
            frames = await one.ended(item)
        assert isinstance(frames[-1], Done)
        assert seen == frames[:-1]

    run(gateways, scenario)


def test_an_order_that_cannot_be_read_cancels_all_the_same(gateways: Gateways) -> None:
    async def scenario(one: Rig) -> None:
        holder, item = Holder(), one.item()
        async with one.worker(holder):
            await one.start(item)
            await eventually(lambda: holder.took, "it runs")
            await one.bus.store(subjects.cancel_subject(item.key), b"stop!")
            assert isinstance((await one.ended(item))[-1], Done)

    run(gateways, scenario)


def test_a_cancel_stops_a_search(gateways: Gateways) -> None:
    async def scenario(one: Rig) -> None:
        holder = Holder()
        async with one.worker(holder), connected(gateways.first) as socket:
            await _ask(socket, "searching")
            frames = await _until(socket, "answer_chunk")
            await _cancel(socket, "searching")
            frames += await _until(socket, "done", "error")
            _assert_cancelled(frames)
        assert holder.stopped == ["searching"]

    run(gateways, scenario)


def test_an_order_that_is_given_while_a_holder_begins_is_heard(gateways: Gateways) -> None:
    """It arrives just before the holder subscribes and is stored just after it has looked, in every other case here."""

    async def heard(one: Rig) -> bool:
        key = one.item().key
        giving = asyncio.create_task(order_cancel(one.bus, key))
        await asyncio.sleep(0)
        async with cancel_orders(one.bus, key) as order:
            await giving
            await asyncio.wait([order], timeout=30)
            return order.done()

    async def scenario(one: Rig) -> None:
        for _ in range(30):
            assert await heard(one)

    run(gateways, scenario)


def test_how_long_a_cancel_took_is_counted(gateways: Gateways) -> None:
    """Followed by no gateway, which would end the log itself where the holder stands still for a second."""

    async def scenario(one: Rig) -> None:
        holder, item, count, seconds = Holder(), one.item(), _cancels_counted(), _seconds_counted()
        async with one.worker(holder):
            await one.start(item)
            await eventually(lambda: holder.took, "it runs")
            order = CancelOrder(key=item.key, requested_ms=now_ms() - 5_000)
            began = time.monotonic()
            await one.bus.store(subjects.cancel_subject(item.key), codec.encode(order))
            await one.ended(item)
            await eventually(lambda: _cancels_counted() == count + 1, "it is counted")
            most = 5 + time.monotonic() - began
        assert 4.9 < _seconds_counted() - seconds < most + 0.1

    run(gateways, scenario)


def test_a_cancel_stops_a_tool_and_nobody_gets_its_result(gateways: Gateways) -> None:
    async def scenario(one: Rig) -> None:
        tool, generator = SampleTool("slow", hang), Holder()

        async def retrieve(job: Job) -> None:
            calls = [ToolCall(call_id="a", name="slow", arguments={})]
            await job.hand_over(Sources(sources=[]), msgspec.structs.replace(job.item, stage=STAGE, calls=calls))

        async with (
            one.worker(retrieve),
            one.worker(tools_handler(Toolbox([tool]), ToolsSettings()), STAGE),
            one.worker(generator, "generate"),
            connected(gateways.first) as socket,
        ):
            await _ask(socket, "calling")
            frames = await _until(socket, "tool_call")
            await tool.started.wait()
            await _cancel(socket, "calling")
            frames += await _until(socket, "done", "error")
        _assert_cancelled(frames)
        assert [frame["type"] for frame in frames] == ["accepted", "sources", "tool_call", "done"]
        assert (tool.calls, tool.cancelled, generator.took) == (1, 1, [])

    run(gateways, scenario)


STAGE = "tools.default"


def test_a_cancel_after_the_end_changes_nothing(gateways: Gateways) -> None:
    async def scenario(one: Rig) -> None:
        async with one.worker(Holder()), connected(gateways.first) as socket:
            await _ask(socket, "over")
            await _until(socket, "answer_chunk")
            await _cancel(socket, "over")
            await _until(socket, "done")
            key = subjects.request_key("anonymous", "over")
            order = await one.bus.last(subjects.CANCEL_STREAM, subjects.cancel_subject(key))
            tail = await one.bus.tail(one.bus.address(key))
            for port in (gateways.first, gateways.second):
                async with connected(port) as other:
                    await _cancel(other, "over")
                    await other.send('{"type": "ping"}')
                    # Neither a frame nor an error, and no second order.
                    assert [frame["type"] for frame in await _until(other, "pong")] == ["pong"]
            assert await one.bus.last(subjects.CANCEL_STREAM, subjects.cancel_subject(key)) == order
            assert await one.bus.tail(one.bus.address(key)) == tail

    run(gateways, scenario)


def test_cancels_from_two_gateways_at_once_end_the_answer_once(gateways: Gateways) -> None:
    async def scenario(one: Rig) -> None:
        async with (
            one.worker(Holder()),
            connected(gateways.first) as asking,
            connected(gateways.second) as other,
        ):
            await _ask(asking, "twice")
            frames = await _until(asking, "answer_chunk")
            await asyncio.gather(*(_cancel(socket, "twice") for socket in (asking, other, asking, other)))
            frames += await _until(asking, "done", "error")
            _assert_cancelled(frames)
            await asking.send('{"type": "resume", "request_id": "twice"}')
            assert (await _until(asking, "done"))[1:] == frames

    run(gateways, scenario)


@pytest.mark.parametrize("holder_lives", [True, False])
def test_another_gateway_cancels_too(gateways: Gateways, holder_lives: bool) -> None:
    async def scenario(one: Rig) -> None:
        name = f"elsewhere-{holder_lives}"
        async with connected(gateways.first) as asking, connected(gateways.second) as other:
            async with one.worker(Holder(), ack_wait_s=60.0) as worker:
                await _ask(asking, name)
                frames = await _until(asking, "answer_chunk")
                if not holder_lives:
                    await worker.die()
                await _cancel(other, name)
                frames += await _until(asking, "done", "error")
            _assert_cancelled(frames)

    run(gateways, scenario)


def test_an_answer_that_was_resumed_elsewhere_is_cancelled_there(gateways: Gateways) -> None:
    async def scenario(one: Rig) -> None:
        holder = Holder()
        async with one.worker(holder):
            async with connected(gateways.first) as socket:
                await _ask(socket, "resumed")
                frames = await _until(socket, "answer_chunk")
            async with connected(gateways.second) as socket:
                after = frames[-1]["seq"]
                await socket.send(json.dumps({"type": "resume", "request_id": "resumed", "after_seq": after}))
                # Without waiting for `resumed`: the cancel comes after the resume all the same.
                await _cancel(socket, "resumed")
                resumed, *rest = await _until(socket, "done", "error")
                assert (resumed["type"], resumed["recovered"]) == ("resumed", True)
            _assert_cancelled(frames + rest)
        assert holder.stopped == ["resumed"]

    run(gateways, scenario)
