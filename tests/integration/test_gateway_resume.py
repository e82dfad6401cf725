"""Coming back, and not coming back: expired and lost logs, long ones, requests that nobody follows any more."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from baton_proto import codec, subjects
from baton_proto.messages import (
    AnswerChunk,
    Done,
    Error,
    LogEntry,
    LogFrame,
    Source,
    Sources,
    Timings,
    Usage,
    WorkItem,
)
from baton_proto.sequencer import Sequencer
from services.common.clock import now_ms
from services.common.job import Handler, Job
from services.common.log import LogWriter
from tests.integration.test_gateway_protocol import closed, closed_with, connected, gateway, receive, until
from tests.rig import Rig, rig
from tests.servers.nats import Nats, nats_server
from tests.servers.processes import Process, eventually, free_port
from tests.system import workers_alive

GRACE_S = 1.5
Frame = dict[str, Any]


class Two:
    """Two gateways with a short grace time and the smallest buffer."""

    def __init__(self, nats: Nats, ports: list[int]) -> None:
        self.nats = nats
        self.ports = ports

    @contextlib.asynccontextmanager
    async def rig(self) -> AsyncIterator[Rig]:
        async with rig(self.nats.url) as one:
            yield one

    @contextlib.asynccontextmanager
    async def worker(self, one: Rig, handler: Handler) -> AsyncIterator[None]:
        """A worker that both gateways have heard of: they refuse questions while there is none. What it holds it keeps,
        however long this process may stand still: an answer that begins twice has other frames."""
        async with one.worker(handler, ack_wait_s=60.0):
            await eventually(lambda: all(map(workers_alive, self.ports)), "the gateways have heard of the worker", 60)
            yield


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    folder = tmp_path_factory.mktemp("resume")
    # On a busy machine a log that a test writes itself may stand still for seconds, and no worker is there.
    settings = {"BATON_DISCONNECT_GRACE_S": str(GRACE_S), "BATON_SEND_BUFFER_BYTES": "65536", "BATON_NO_WORKER_S": "10"}
    with contextlib.ExitStack() as stack:
        nats = stack.enter_context(nats_server(folder / "nats"))
        ports = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            port, _ = stack.enter_context(gateway(folder / name, nats, **settings))
            ports.append(port)
        yield Two(nats, ports)


def done(reason: Any = "stop") -> Done:
    return Done(finish_reason=reason, cited=[], citations=[], usage=Usage(), timings=Timings())


def mine(one: Rig, request_id: str, **changes: Any) -> WorkItem:
    """The item of a request of the gateways' anonymous user."""
    key = subjects.request_key("anonymous", request_id)
    return one.item(request_id=request_id, key=key, shard=one.bus.address(key).shard, **changes)


async def append(one: Rig, item: WorkItem, *frames: LogFrame) -> None:
    """Append to a log after whatever is there."""
    tail = await one.bus.tail(one.bus.address(item.key))
    assert tail is not None
    last = codec.decode(tail.data, LogEntry).frames[-1].seq
    sequencer = Sequencer(item.request_id, "somebody", next_seq=last + 1, last=tail.stream_seq)
    async with LogWriter(one.bus, one.bus.address(item.key), sequencer) as writer:
        for frame in frames:
            await writer.write(frame)
            await writer.flush()


async def expire(one: Rig, item: WorkItem) -> None:
    """What `max_age` does to a log."""
    at = one.bus.address(item.key)
    await one.bus.client.jetstream().purge_stream(subjects.log_stream(at.shard), subject=subjects.log_subject(at))


async def tell(socket: Any, kind: str, request_id: str, **fields: Any) -> None:
    query = {"query": "q"} if kind == "query" else {}
    await socket.send(json.dumps({"type": kind, "request_id": request_id, **query, **fields}))


# --- logs that have expired or are lost -------------------------------------------------------------------------------


def test_of_an_expired_log_the_stored_answer_is_given_or_it_is_gone(two: Two) -> None:
    source = Source(n=1, id="p", document_id="d", title="t", url="/documents/d", snippet="s", score=1.0)

    async def answering(job: Job) -> None:
        if job.item.request_id.startswith("failed"):
            await job.finish(Error(code="model_failed", message="no", retryable=False))
            return
        await job.write(Sources(sources=[source]))
        await job.write(AnswerChunk(content="Ten "))
        await job.write(AnswerChunk(content="days [1]."))
        await job.finish(done())

    async def main() -> None:
        async with two.rig() as one, two.worker(one, answering), connected(two.ports[0]) as socket:
            await receive(socket)
            for name in ("kept", "failed"):
                item = mine(one, name)
                await tell(socket, "query", name)
                await one.ended(item)
                await one.settled()
                await until(socket, "done", "error")
                await expire(one, item)
            for port in two.ports:
                async with connected(port) as back:
                    await receive(back)
                    for message in ({"kind": "resume", "after_seq": 1}, {"kind": "query"}):
                        kind, fields = message["kind"], {k: v for k, v in message.items() if k != "kind"}
                        await tell(back, kind, "kept", **fields)
                        frame = await receive(back)
                        assert (frame["type"], frame["recovered"]) == ("resumed", False)
                        assert frame["next_seq"] == (2 if kind == "resume" else 0)
                        assert (frame["answer"], frame["finish_reason"]) == ("Ten days [1].", "stop")
                        assert [one["n"] for one in frame["sources"]] == [1]
                        await tell(back, kind, "failed", **fields)
                        frame, error = await receive(back), await receive(back)
                        assert (frame["type"], frame["recovered"]) == ("resumed", False)
                        assert "answer" not in frame
                        assert (error["type"], error["code"], error["request_id"]) == ("error", "gone", "failed")
                    told = (await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{port}/metrics")).text
                    assert 'baton_resumes_total{outcome="kept"}' in told
                    assert 'baton_resumes_total{outcome="gone"}' in told
                    await tell(back, "cancel", "kept")  # it has ended: harmless
                    await tell(back, "resume", "never")
                    assert (await receive(back))["code"] == "not_found"

    asyncio.run(main())


def test_a_log_that_vanishes_under_its_clients_ends_with_log_lost(two: Two) -> None:
    async def main() -> None:
        async with two.rig() as one, contextlib.AsyncExitStack() as stack:
            item = mine(one, "vanishing", deadline_ms=now_ms() + 600_000)
            await one.start(item, push=False)
            await append(one, item, AnswerChunk(content="a"), AnswerChunk(content="b"))
            sockets = []
            for port, after in zip(two.ports, (-1, 2), strict=True):
                socket = await stack.enter_async_context(connected(port))
                await receive(socket)
                await tell(socket, "resume", "vanishing", after_seq=after)
                assert (await receive(socket))["recovered"] is True
                sockets.append(socket)
            await until(sockets[0], "answer_chunk")
            await expire(one, item)
            for socket in sockets:
                frame = (await until(socket, "error", "done"))[-1]
                assert (frame["code"], frame["retryable"]) == ("log_lost", True)
                assert "seq" not in frame

    asyncio.run(main())


def test_what_a_memory_only_server_loses_with_its_restart_is_said_to_be_lost(tmp_path: Path) -> None:
    port = free_port()

    async def main(gateway_port: int, server: contextlib.ExitStack) -> None:
        async with rig(f"nats://127.0.0.1:{port}", log_storage="memory") as one, connected(gateway_port) as socket:
            await receive(socket)
            for name in ("early", "late"):
                item = mine(one, name, deadline_ms=now_ms() + 600_000)
                await one.start(item, push=False)
                await append(one, item, *[AnswerChunk(content="a")] * (3 if name == "late" else 1))
                await tell(socket, "resume", name)
                await until(socket, "answer_chunk")
            await asyncio.to_thread(server.close)
            await asyncio.to_thread(server.enter_context, nats_server(tmp_path / "nats", port))
            codes = {}
            while len(codes) < 2:
                frame = (await until(socket, "error"))[-1]
                codes[frame["request_id"]] = frame["code"]
            assert codes == {"early": "log_lost", "late": "log_lost"}

    with contextlib.ExitStack() as server:
        nats = server.enter_context(nats_server(tmp_path / "nats", port))
        with gateway(tmp_path, nats, BATON_LOG_STORAGE="memory") as (gateway_port, _):
            asyncio.run(main(gateway_port, server))


def test_a_gateway_that_only_attached_ends_a_log_past_its_deadline_or_without_its_worker(two: Two) -> None:
    async def main() -> None:
        async with two.rig() as one, connected(two.ports[1]) as socket:
            await receive(socket)
            late = mine(one, "late", deadline_ms=now_ms() + 500)
            await one.start(late, push=False)
            await append(one, late, AnswerChunk(content="a"))
            lonely = mine(one, "lonely", stage="tools.nobody", deadline_ms=now_ms() + 600_000)
            await one.start(lonely, push=False)
            await tell(socket, "resume", "late", after_seq=1)
            await tell(socket, "resume", "lonely", after_seq=0)
            ends = {}
            while len(ends) < 2:
                frame = (await until(socket, "error"))[-1]
                ends[frame["request_id"]] = (frame["code"], frame["seq"])
            assert ends == {"late": ("deadline", 2), "lonely": ("no_worker", 1)}

    asyncio.run(main())


# --- long logs and small buffers --------------------------------------------------------------------------------------


def test_a_log_far_larger_than_the_buffer_comes_over_one_connection_while_it_grows(two: Two) -> None:
    async def main() -> None:
        async with two.rig() as one, connected(two.ports[0]) as socket:
            await receive(socket)
            item = mine(one, "long", deadline_ms=now_ms() + 600_000)
            await one.start(item, push=False)
            # One frame alone is larger than the gateways' buffer of 64 KiB, and so are the others together.
            await append(one, item, AnswerChunk(content="x" * 200_000))
            await append(one, item, *(AnswerChunk(content=f"{number} ".ljust(2_000)) for number in range(300)))
            await tell(socket, "resume", "long")
            growing = asyncio.create_task(
                append(one, item, *(AnswerChunk(content=f"{number} ") for number in range(200)), done())
            )
            frames = await until(socket, "done", "error")
            await growing
            assert [frame["seq"] for frame in frames[1:]] == list(range(503))
            assert len(frames[2]["content"]) == 200_000

    asyncio.run(main())


def test_a_client_that_does_not_read_gets_4009_and_later_everything(two: Two) -> None:
    async def main() -> None:
        async with two.rig() as one:
            item = mine(one, "slow", deadline_ms=now_ms() + 600_000)
            await one.start(item, push=False)
            async with connected(two.ports[0], max_queue=1) as slow:
                await receive(slow)
                await tell(slow, "resume", "slow")
                await until(slow, "accepted")
                chunks = 0
                # A client that begins to read too late is not told any more why: it does as soon as it was given up.
                before = await closed(two.ports[0], 4009)
                while await closed(two.ports[0], 4009) == before:
                    await append(one, item, *(AnswerChunk(content="y" * 30_000) for _ in range(20)))
                    chunks += 20
                    assert chunks <= 2_000
                assert await closed_with(slow) == 4009
                await append(one, item, done())
            async with connected(two.ports[1]) as back:
                await receive(back)
                await tell(back, "resume", "slow", after_seq=0)
                frames = await until(back, "done", "error")
                assert [frame["seq"] for frame in frames[1:]] == list(range(1, chunks + 2))

    asyncio.run(main())


# --- nobody follows any more ------------------------------------------------------------------------------------------


async def _hang(job: Job) -> None:
    await job.write(AnswerChunk(content="beginning "))
    await asyncio.Event().wait()


async def begin(port: int, name: str, **fields: Any) -> Any:
    """A connection on which a question is being answered."""
    socket = await websockets.connect(f"ws://127.0.0.1:{port}/ws")
    await tell(socket, "query", name, **fields)
    await until(socket, "answer_chunk")
    return socket


def test_what_nobody_follows_is_cancelled_after_the_grace_time_unless_it_was_to_continue(two: Two) -> None:
    async def main() -> None:
        async with two.rig() as one, two.worker(one, _hang):
            choices = {"unsaid": {}, "continue": {"on_disconnect": "continue"}, "cancel": {"on_disconnect": "cancel"}}
            loop = asyncio.get_running_loop()
            sockets = {name: await begin(two.ports[0], f"left-{name}", **how) for name, how in choices.items()}
            # A resume elsewhere inherits what the query said.
            await sockets["continue"].close()
            back = await websockets.connect(f"ws://127.0.0.1:{two.ports[1]}/ws")
            await tell(back, "resume", "left-continue", after_seq=0)
            await until(back, "answer_chunk")
            left = loop.time()
            for socket in (sockets["cancel"], sockets["unsaid"], back):
                await socket.close()
            ends = {}
            for name in ("cancel", "unsaid"):
                last = (await one.ended(mine(one, f"left-{name}")))[-1]
                assert isinstance(last, Done)
                ends[name] = (last.finish_reason, loop.time() - left)
            assert [reason for reason, _ in ends.values()] == ["cancelled", "cancelled"]
            assert ends["unsaid"][1] > GRACE_S
            frames = await one.frames(mine(one, "left-continue"))
            assert isinstance(frames[-1], AnswerChunk)

    asyncio.run(main())


def test_a_request_that_somebody_follows_at_another_gateway_is_not_cancelled(two: Two) -> None:
    async def main() -> None:
        async with two.rig() as one, two.worker(one, _hang):
            choices = {"followed-unsaid": {}, "followed-cancel": {"on_disconnect": "cancel"}}
            async with connected(two.ports[1]) as second:
                for name, how in choices.items():
                    first = await begin(two.ports[0], name, **how)
                    await tell(second, "resume", name)
                    await until(second, "answer_chunk")
                    await first.close()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(GRACE_S + 2.5):
                        await until(second, "done", "error")
            for name in choices:  # now the last one has left as well
                last = (await one.ended(mine(one, name)))[-1]
                assert isinstance(last, Done)
                assert last.finish_reason == "cancelled"

    asyncio.run(main())


def test_a_close_by_the_server_is_not_the_clients_wish(tmp_path: Path, two: Two) -> None:
    async def main(port: int, process: Process) -> None:
        async with two.rig() as one, two.worker(one, _hang):
            socket = await begin(port, "drained", on_disconnect="cancel")
            process.popen.terminate()
            assert await closed_with(socket) == 1012
            async with connected(two.ports[0]) as back:
                await tell(back, "resume", "drained", after_seq=0)
                frames = await until(back, "answer_chunk")
                assert frames[-1]["seq"] == 1
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(2.0):
                        await until(back, "done", "error")
            # This time its client has left by itself, and the choice of its query still counts.
            last = (await one.ended(mine(one, "drained")))[-1]
            assert isinstance(last, Done)
            assert last.finish_reason == "cancelled"

    with gateway(tmp_path, two.nats, BATON_DRAIN_S="0.3") as (port, process):
        asyncio.run(main(port, process))


# --- cancel -----------------------------------------------------------------------------------------------------------


async def overtakes(two: Two, name: str) -> bool:
    """Cancel a request at one gateway before it is asked at the other; whether it was found, and then it has ended."""
    async with connected(two.ports[0]) as first, connected(two.ports[1]) as second:
        await tell(second, "cancel", name)
        await tell(first, "query", name)
        await tell(second, "resume", name)  # is handled after the cancel, which only says something where it failed
        if (await until(second, "resumed", "error"))[-1]["type"] == "error":
            return False
        last = (await until(first, "done", "error"))[-1]
        assert (last["type"], last["finish_reason"]) == ("done", "cancelled")
        return True


def test_a_cancel_from_anywhere_at_any_time_ends_a_request_once(two: Two) -> None:
    async def main() -> None:
        async with two.rig() as one, connected(two.ports[0]) as first, connected(two.ports[1]) as second:
            await receive(first)
            await receive(second)
            async with two.worker(one, _hang):
                # It may even overtake the query on its way through another gateway: by half a second. Where the machine
                # stood still for longer in between, it is told that there is no such request, and tries another one.
                assert any([await overtakes(two, f"early-{number}") for number in range(3)])
                await tell(first, "query", "during")
                await until(first, "answer_chunk")
                await tell(second, "resume", "during")
                await until(second, "answer_chunk")
                for socket in (first, second, second):
                    await tell(socket, "cancel", "during")
                ends = [(await until(socket, "done", "error"))[-1] for socket in (first, second)]
                assert ends[0] == ends[1]
                assert ends[0]["finish_reason"] == "cancelled"
                await tell(second, "cancel", "during")  # after
                await tell(second, "resume", "during", after_seq=-1)
                assert (await until(second, "done"))[-1] == ends[0]

    asyncio.run(main())


# --- drain ------------------------------------------------------------------------------------------------------------


def test_a_question_to_a_gateway_that_drains_is_not_lost_and_what_runs_goes_on_elsewhere(
    tmp_path: Path, two: Two
) -> None:
    leave = asyncio.Event()

    async def answering(job: Job) -> None:
        await job.write(AnswerChunk(content="beginning "))
        if job.item.request_id == "running":
            await leave.wait()
        await job.write(AnswerChunk(content="end"))
        await job.finish(done())

    async def main(port: int, process: Process) -> None:
        async with two.rig() as one, two.worker(one, answering):
            socket = await begin(port, "running")
            process.popen.terminate()

            async def drains() -> bool:
                async with connected(port) as newcomer:
                    return await closed_with(newcomer) == 1012

            await eventually(drains, "the gateway drains")
            await tell(socket, "query", "asked-late")
            with pytest.raises(websockets.ConnectionClosed) as closed:  # at once, and without an answer
                await until(socket, "nothing")
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
            async with connected(two.ports[0]) as back:
                await tell(back, "query", "asked-late")
                frames = await until(back, "done", "error")
                assert [frame["seq"] for frame in frames if "seq" in frame] == [0, 1, 2, 3]
                await tell(back, "resume", "running", after_seq=1)
                leave.set()
                frames = await until(back, "done", "error")
                assert [frame["seq"] for frame in frames[1:]] == [2, 3]
            assert await asyncio.to_thread(process.popen.wait, 10) == 0

    with gateway(tmp_path, two.nats, BATON_DRAIN_S="30") as (port, process):
        asyncio.run(main(port, process))
