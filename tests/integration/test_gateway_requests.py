"""Requests as their clients see them: cancel, leave, come back elsewhere, attach, and keep out of other people's."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from baton_proto import subjects
from baton_proto.messages import Accepted, Announcement, AnswerChunk, Done, Timings, Usage
from services.common import streams
from services.common.job import Handler, Job
from services.common.presence import announce
from tests.integration.test_gateway_protocol import SECRET, connected, gateway, receive, token, until
from tests.rig import Rig, RunningWorker, rig
from tests.servers.nats import Nats
from tests.servers.processes import eventually
from tests.system import workers_alive

Frame = dict[str, Any]


async def _hang(job: Job) -> None:
    await job.write(AnswerChunk(content="beginning "))
    await asyncio.Event().wait()


async def _answer(job: Job) -> None:
    for number in range(20):
        await job.write(AnswerChunk(content=f"{number} "))
    await job.finish(Done(finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=Timings()))


def _with_gateway(nats: Nats, folder: Path, scenario: Callable[[Rig, int], Awaitable[None]], **settings: str) -> None:
    async def main(port: int) -> None:
        async with rig(nats.url) as one:
            await scenario(one, port)

    with gateway(folder, nats, **settings) as (port, _):
        asyncio.run(main(port))


@contextlib.asynccontextmanager
async def _worker(one: Rig, port: int, handler: Handler) -> AsyncIterator[RunningWorker]:
    """A worker that the gateway has heard of: it refuses questions while there is none. What it holds it keeps, however
    long this process may stand still."""
    async with one.worker(handler, ack_wait_s=60.0) as running:
        await eventually(lambda: workers_alive(port), "the gateway has heard of the worker", 60)
        yield running


async def _ask(socket: Any, **fields: Any) -> None:
    await socket.send(json.dumps({"query": "q", **fields}))


def test_a_cancel_stops_the_holder_and_ends_the_answer(nats: Nats, tmp_path: Path) -> None:
    async def scenario(one: Rig, port: int) -> None:
        async with _worker(one, port, _hang) as worker, connected(port) as socket:
            await _ask(socket, request_id="r")
            await until(socket, "answer_chunk")
            for _ in range(2):  # cancelling again changes nothing
                await socket.send('{"type": "cancel", "request_id": "r"}')
            frames = await until(socket, "done", "error")
            assert frames[-1]["finish_reason"] == "cancelled"
            await eventually(lambda: worker.worker.running == 0, "the holder has stopped", 60)

    _with_gateway(nats, tmp_path, scenario)


def test_a_query_whose_work_could_not_be_queued_goes_on_when_it_is_sent_again(nats: Nats, tmp_path: Path) -> None:
    """As while the queue's replicas elect a new leader: nothing has ended, and nothing is lost."""

    async def scenario(one: Rig, port: int) -> None:
        key = subjects.request_key("anonymous", "r")
        item = one.item(request_id="r", key=key, shard=one.bus.address(key).shard)
        async with connected(port) as socket:
            # Somebody has announced himself, though he takes nothing: without any worker it would be refused as such.
            announced = Announcement(worker="w", stage=subjects.RETRIEVE, slots=1, running=0)
            announcing = asyncio.create_task(announce(one.bus, lambda: announced))
            await eventually(lambda: workers_alive(port), "the gateway has heard of a worker", 60)
            await one.bus.client.jetstream().delete_stream(subjects.WORK_STREAM)
            await _ask(socket, request_id="r")
            refused = (await until(socket, "error"))[-1]
            assert (refused["code"], refused["retryable"], refused.get("seq")) == ("overloaded", True, None)
            assert [type(frame) for frame in await one.frames(item)] == [Accepted]
            announcing.cancel()
            await streams.ensure(one.bus)
            async with _worker(one, port, _answer):
                await _ask(socket, request_id="r")
                frames = await until(socket, "done", "error")
            assert frames[-1]["type"] == "done"
            assert [frame["seq"] for frame in frames] == list(range(22))

    _with_gateway(nats, tmp_path, scenario)


def test_a_cancel_that_no_holder_honours_is_honoured_by_the_gateway(nats: Nats, tmp_path: Path) -> None:
    async def scenario(one: Rig, port: int) -> None:
        async with connected(port) as socket:
            async with _worker(one, port, _hang) as worker:
                await _ask(socket, request_id="r")
                await until(socket, "answer_chunk")
                await worker.die()
            await socket.send('{"type": "cancel", "request_id": "r"}')
            frames = await until(socket, "done", "error")
            assert frames[-1]["finish_reason"] == "cancelled"

    _with_gateway(nats, tmp_path, scenario)


@pytest.mark.parametrize(("choice", "ends"), [("cancel", "cancelled"), ("continue", "stop")])
def test_leaving_cancels_only_where_the_client_chose_so(nats: Nats, tmp_path: Path, choice: str, ends: str) -> None:
    left = asyncio.Event()

    async def wait_for_the_client_to_leave(job: Job) -> None:
        await job.write(AnswerChunk(content="beginning "))
        await left.wait()
        if choice == "cancel":
            await asyncio.Event().wait()
        await _answer(job)

    async def scenario(one: Rig, port: int) -> None:
        key = subjects.request_key("anonymous", "r")
        item = one.item(request_id="r", key=key, shard=one.bus.address(key).shard)
        async with _worker(one, port, wait_for_the_client_to_leave):
            async with connected(port) as socket:
                await _ask(socket, request_id="r", on_disconnect=choice)
                await until(socket, "answer_chunk")
            left.set()
            last = (await one.ended(item, 60))[-1]
        assert isinstance(last, Done)
        assert last.finish_reason == ends

    _with_gateway(nats, tmp_path, scenario)


def test_an_answer_is_the_same_live_resumed_attached_and_from_another_gateway(nats: Nats, tmp_path: Path) -> None:
    async def scenario(one: Rig, first: int, second: int) -> None:
        async with _worker(one, first, _answer), connected(first) as socket:
            await _ask(socket, request_id="r")
            live = [frame for frame in await until(socket, "done", "error") if frame["type"] != "hello"]
            assert [frame["seq"] for frame in live] == list(range(22))
            for port in (first, second):
                async with connected(port) as other:
                    await receive(other)
                    await _ask(other, request_id="r")
                    assert await until(other, "done") == live
                    await other.send('{"type": "resume", "request_id": "r", "after_seq": 9}')
                    resumed, *rest = await until(other, "done")
                    assert (resumed["type"], resumed["recovered"], resumed["next_seq"]) == ("resumed", True, 10)
                    assert rest == live[10:]
                    await other.send('{"type": "resume", "request_id": "r", "after_seq": 21}')
                    assert (await receive(other))["next_seq"] == 22
                    await other.send('{"type": "resume", "request_id": "r", "after_seq": 22}')
                    assert (await receive(other))["code"] == "bad_message"

    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with gateway(tmp_path / "one", nats) as (first, _), gateway(tmp_path / "two", nats) as (second, _):

        async def main() -> None:
            async with rig(nats.url) as one:
                await scenario(one, first, second)

        asyncio.run(main())


def test_somebody_elses_request_does_not_exist(nats: Nats, tmp_path: Path) -> None:
    async def scenario(one: Rig, port: int) -> None:
        def as_(name: str) -> dict[str, str]:
            return {"Authorization": f"Bearer {token(sub=name)}"}

        async with _worker(one, port, _answer), connected(port, additional_headers=as_("alice")) as alice:
            await _ask(alice, request_id="r")
            await until(alice, "done")
            async with connected(port, additional_headers=as_("bob")) as bob:
                await receive(bob)
                for kind in ("resume", "cancel"):
                    await bob.send(json.dumps({"type": kind, "request_id": "r"}))
                    of_alice = await receive(bob)
                    await bob.send(json.dumps({"type": kind, "request_id": "never"}))
                    of_nobody = await receive(bob)
                    assert of_alice["code"] == of_nobody["code"] == "not_found"
                    assert of_alice["message"].replace("'r'", "'never'") == of_nobody["message"]

    _with_gateway(nats, tmp_path, scenario, BATON_JWT_SECRET=SECRET)


def test_requests_beyond_the_limit_of_a_connection_are_refused_at_once(nats: Nats, tmp_path: Path) -> None:
    async def scenario(one: Rig, port: int) -> None:
        async with _worker(one, port, _hang), connected(port) as socket:
            for number in range(3):
                await _ask(socket, request_id=f"r{number}")
            refused = (await until(socket, "error"))[-1]
            assert (refused["code"], refused["retryable"]) == ("rate_limited", True)
            assert refused["retry_after_ms"] > 0
            assert "seq" not in refused

    _with_gateway(nats, tmp_path, scenario, BATON_REQUESTS_PER_CONNECTION="2")


def test_a_known_request_is_shown_though_no_worker_is_left(nats: Nats, tmp_path: Path) -> None:
    async def scenario(one: Rig, port: int) -> None:
        async with connected(port) as socket:
            async with _worker(one, port, _answer):
                await _ask(socket, request_id="r")
                live = [frame for frame in await until(socket, "done") if frame["type"] != "hello"]

            async def refused() -> bool:
                await _ask(socket, request_id="another")
                return (await until(socket, "error"))[-1]["code"] == "no_worker"

            await eventually(refused, "the gateway knows that nobody is left", 60)
            await _ask(socket, request_id="r")
            assert await until(socket, "done") == live

    _with_gateway(nats, tmp_path, scenario)
