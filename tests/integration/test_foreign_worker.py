"""A worker written from the spec alone keeps the contract: no binding, no service, only NATS and msgpack on both sides.

The streams are made here by hand as proto/README.md says a worker may rely on.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import nats as nats_py
import pytest
from nats.aio.client import Client
from nats.js.api import DiscardPolicy, RePublish, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError

from baton_proto import codec
from baton_proto.messages import Announcement, DeadWork, LogEntry, LogFrame, StoredAnswer
from services.common.endings import summary
from tests.servers.nats import Nats
from tests.servers.processes import ROOT, Process, eventually, freeze, running

PROGRAM = ROOT / "examples" / "foreign_worker" / "echo_generator.py"
SHARDS = 2
PASSAGE = {"document_id": "d", "url": "/documents/d", "text": "…", "score": 1.0}
PASSAGES = [{**PASSAGE, "n": 1, "id": "p1", "title": "Leave policy"}, {**PASSAGE, "n": 2, "id": "p2", "title": "年假"}]
ANSWER = "Found: Leave policy [1] 年假 [2] "

Request = dict[str, Any]
Frame = dict[str, Any]


class Wire:
    """Both neighbours of a generator, by hand: the retriever that hands over, and the gateway that listens."""

    def __init__(self, nc: Client) -> None:
        self.nc = nc
        self.js = nc.jetstream()

    def request(self, **item: Any) -> Request:
        request_id = secrets.token_hex(4)
        key = sha256(f"tester\0{request_id}".encode()).hexdigest()[:32]
        now = int(time.time() * 1000)
        shard = zlib.crc32(key.encode()) % SHARDS
        fields = {"v": 1, "stage": "generate", "key": key, "shard": shard, "request_id": request_id, "owner": "tester"}
        fields |= {"query": "leave?", "language": "en", "received_ms": now, "queued_ms": now, "passages": PASSAGES}
        return {**fields, "deadline_ms": now + 60_000, **item}

    async def append(self, request: Request, frames: list[Frame], expected: int = 0) -> int:
        stamped = [{"timestamp": "2026-11-22T07:00:00.000Z", **frame} for frame in frames]
        entry = {"v": 1, "request_id": request["request_id"], "append_id": secrets.token_hex(8), "writer": "test"}
        stored = await self.js.publish(
            f"baton.v1.log.{request['shard']}.{request['key']}",
            msgpack.packb({**entry, "frames": stamped}),
            headers={"Nats-Expected-Last-Subject-Sequence": str(expected)},
        )
        return stored.seq

    async def hand_over(self, request: Request, later: list[Frame] = (), **handoff: Any) -> int:
        """The log as a retriever leaves it, and whatever an earlier generator has written since."""
        accepted = {
            "type": "accepted",
            "seq": 0,
            "conversation_id": "c",
            "handoff": {"stage": "retrieve", "item": request},
        }
        sources = {"type": "sources", "seq": 1, "sources": []}
        sources["handoff"] = handoff or {"stage": "generate", "item": request}
        last = await self.append(request, [accepted])
        last = await self.append(request, [sources], last)
        return await self.append(request, later, last) if later else last

    async def push(self, request: Request, seq: int = 1) -> None:
        ref = {"v": 1, "stage": "generate", "key": request["key"], "shard": request["shard"], "seq": seq}
        headers = {"Nats-Msg-Id": f"{request['key']}.{seq}"}
        await self.js.publish("baton.v1.work.generate", msgpack.packb(ref), headers=headers)

    async def frames(self, request: Request) -> list[Frame]:
        """The log, through our own codec: what the foreign worker wrote must be readable to it."""
        stream, subject = f"BATON_LOG_{request['shard']}", f"baton.v1.log.{request['shard']}.{request['key']}"
        found: list[Frame] = []
        at = 0
        while True:
            try:
                message = await self.js.get_msg(stream, seq=at + 1, subject=subject, next=True)
            except NotFoundError:
                return found
            at = message.seq
            codec.decode(message.data, LogEntry)
            found += msgpack.unpackb(message.data)["frames"]

    async def ended(self, request: Request) -> list[Frame]:
        async def terminal() -> bool:
            frames = await self.frames(request)
            return bool(frames) and frames[-1]["type"] in ("done", "error")

        await eventually(terminal, "the log has ended")
        frames = await self.frames(request)
        assert [frame["seq"] for frame in frames] == list(range(len(frames)))
        return frames

    async def settled(self) -> None:
        """All work is acknowledged."""

        async def empty() -> bool:
            return (await self.js.stream_info("BATON_WORK")).state.messages == 0

        await eventually(empty, "the work queue is empty")


async def make_streams(nc: Client) -> None:
    js, memory = nc.jetstream(), StorageType.MEMORY
    for shard in range(SHARDS):
        source, target = f"baton.v1.log.{shard}.*", f"baton.v1.live.{shard}.{{{{wildcard(1)}}}}"
        config = StreamConfig(name=f"BATON_LOG_{shard}", subjects=[source], storage=memory, allow_direct=True)
        config.retention, config.discard = RetentionPolicy.LIMITS, DiscardPolicy.NEW
        config.republish = RePublish(src=source, dest=target)
        await js.add_stream(config)
    work = StreamConfig(name="BATON_WORK", subjects=["baton.v1.work.>"], storage=memory, duplicate_window=120)
    work.retention, work.discard = RetentionPolicy.WORK_QUEUE, DiscardPolicy.NEW
    await js.add_stream(work)
    cancel = StreamConfig(name="BATON_CANCEL", subjects=["baton.v1.cancel.*"], storage=memory, max_msgs_per_subject=1)
    await js.add_stream(cancel)
    await js.add_stream(StreamConfig(name="BATON_DEAD", subjects=["baton.v1.dead.>"], storage=memory))
    await js.add_stream(StreamConfig(name="BATON_RUNNING", subjects=["baton.v1.running.*"], storage=memory))
    await js.add_stream(StreamConfig(name="KV_baton_answers", subjects=["$KV.baton_answers.>"], storage=memory))


@asynccontextmanager
async def wire(nats: Nats) -> AsyncIterator[Wire]:
    nc = await nats_py.connect(nats.url)
    try:
        await make_streams(nc)
        yield Wire(nc)
    finally:
        await nc.close()


@asynccontextmanager
async def worker(nats: Nats, folder: Path) -> AsyncIterator[Process]:
    with running([sys.executable, str(PROGRAM), nats.url], folder / "worker.log", {"PYTHONPATH": ""}) as process:
        await eventually(lambda: "serves generate" in process.text() or not process.alive, "the worker serves")
        assert process.alive, process.text()
        yield process


def run(nats: Nats, folder: Path, scenario: Callable[[Wire], Awaitable[None]]) -> None:
    """A scenario with one worker, which must be well afterwards."""

    async def main() -> None:
        async with wire(nats) as one, worker(nats, folder) as process:
            await scenario(one)
            assert process.alive, process.text()
            assert "Traceback" not in process.text()

    asyncio.run(main())


def text(frames: list[Frame]) -> str:
    return "".join(frame["content"] for frame in frames if frame["type"] == "answer_chunk")


def chunk(seq: int, content: str) -> Frame:
    return {"type": "answer_chunk", "seq": seq, "content": content}


def test_it_answers_an_item_and_acknowledges_it(nats: Nats, tmp_path: Path) -> None:
    async def scenario(one: Wire) -> None:
        request, live = one.request(), []
        listening = await one.nc.subscribe(f"baton.v1.live.{request['shard']}.{request['key']}")
        await one.hand_over(request)
        await one.push(request)
        frames = await one.ended(request)
        assert [frame["type"] for frame in frames[2:]] == ["status", *["answer_chunk"] * 3, "done"]
        assert text(frames) == ANSWER
        assert frames[-1]["finish_reason"] == "stop"
        assert frames[-1]["cited"] == [1, 2]
        assert [ANSWER[one["start"] : one["end"]] for one in frames[-1]["citations"]] == ["[1]", "[2]"]
        while len(live) < len(frames):
            live += msgpack.unpackb((await listening.next_msg(timeout=30)).data)["frames"]
        assert live == frames
        await one.settled()

    run(nats, tmp_path, scenario)


def test_it_keeps_the_answer_for_when_the_log_has_expired_and_frees_the_users_place(nats: Nats, tmp_path: Path) -> None:
    async def scenario(one: Wire) -> None:
        place = (await one.js.publish("baton.v1.running.somebody", b"")).seq
        request = one.request(place=place)
        await one.hand_over(request)
        await one.push(request)
        frames = await one.ended(request)
        await one.settled()
        message = await one.js.get_last_msg("KV_baton_answers", f"$KV.baton_answers.{request['key']}")
        kept = codec.decode(message.data, StoredAnswer)
        assert kept == summary(request["request_id"], msgspec.convert(frames, list[LogFrame]))
        assert (kept.answer, kept.outcome) == (ANSWER, "stop")
        assert (await one.js.stream_info("BATON_RUNNING")).state.messages == 0

    run(nats, tmp_path, scenario)


def test_it_goes_on_where_an_earlier_holder_stopped(nats: Nats, tmp_path: Path) -> None:
    async def scenario(one: Wire) -> None:
        request = one.request()
        status = {"type": "status", "seq": 2, "stage": "generating", "content": "Writing"}
        await one.hand_over(request, [status, chunk(3, "Found: "), chunk(4, "Leave policy [1] ")])
        await one.push(request)
        frames = await one.ended(request)
        assert text(frames) == ANSWER
        assert [frame["type"] for frame in frames].count("status") == 1
        await one.settled()

    run(nats, tmp_path, scenario)


def test_it_says_when_nothing_was_found_in_the_language_of_the_question(nats: Nats, tmp_path: Path) -> None:
    async def scenario(one: Wire) -> None:
        request = one.request(passages=[], language="zh")
        await one.hand_over(request)
        await one.push(request)
        assert text(await one.ended(request)) == "没有找到。"

    run(nats, tmp_path, scenario)


def test_an_item_too_large_for_a_message_comes_from_the_object_store(nats: Nats, tmp_path: Path) -> None:
    async def scenario(one: Wire) -> None:
        request = one.request(passages=[{**PASSAGES[0], "text": "长" * 400_000}])
        documents = await one.js.create_object_store("baton_documents")
        await documents.put("handoff/x.1", msgpack.packb(request))
        small = {**request, "passages": []}
        await one.hand_over(small, stage="generate", object="handoff/x.1")
        await one.push(request)
        assert text(await one.ended(request)) == "Found: Leave policy [1] "

    run(nats, tmp_path, scenario)


def test_a_cancel_that_came_before_the_item_is_honoured(nats: Nats, tmp_path: Path) -> None:
    async def scenario(one: Wire) -> None:
        request = one.request()
        await one.hand_over(request)
        order = {"v": 1, "key": request["key"], "requested_ms": 1}
        await one.js.publish(f"baton.v1.cancel.{request['key']}", msgpack.packb(order))
        await one.push(request)
        frames = await one.ended(request)
        assert (frames[-1]["type"], frames[-1]["finish_reason"], text(frames)) == ("done", "cancelled", "")
        await one.settled()

    run(nats, tmp_path, scenario)


def test_an_item_past_its_deadline_ends_with_an_error(nats: Nats, tmp_path: Path) -> None:
    async def scenario(one: Wire) -> None:
        request = one.request(deadline_ms=1)
        await one.hand_over(request)
        await one.push(request)
        frames = await one.ended(request)
        assert (frames[-1]["type"], frames[-1]["code"]) == ("error", "deadline")
        await one.settled()

    run(nats, tmp_path, scenario)


@pytest.mark.parametrize("log", ["ended", "gone", "handed on"])
def test_a_reference_that_is_out_of_date_is_acknowledged_and_changes_nothing(
    nats: Nats, tmp_path: Path, log: str
) -> None:
    async def scenario(one: Wire) -> None:
        request = one.request()
        if log == "ended":
            ending = {"type": "error", "seq": 2, "code": "deadline", "message": "late", "retryable": True}
            await one.hand_over(request, [ending])
        elif log == "handed on":
            handoff = {"stage": "tools.x", "item": {**request, "stage": "tools.x"}}
            status = {"type": "status", "stage": "tool", "content": "…"}
            last = await one.hand_over(request, [{**status, "seq": 2, "handoff": handoff}])
            await one.append(request, [{**status, "seq": 3}], last)
        before = await one.frames(request)
        await one.push(request)
        await eventually(lambda: acknowledged(one), "the reference is acknowledged")
        await one.settled()
        assert await one.frames(request) == before

    run(nats, tmp_path, scenario)


async def acknowledged(one: Wire) -> bool:
    info = await one.js.consumer_info("BATON_WORK", "generate")
    return info.ack_floor.consumer_seq >= 1


def test_a_hand_off_that_nobody_published_is_published_again(nats: Nats, tmp_path: Path) -> None:
    async def scenario(one: Wire) -> None:
        request = one.request()
        handoff = {"stage": "tools.x", "item": {**request, "stage": "tools.x"}}
        await one.hand_over(
            request, [{"type": "status", "stage": "tool", "content": "…", "seq": 2, "handoff": handoff}]
        )
        await one.push(request)
        await eventually(lambda: acknowledged(one), "the old reference is acknowledged")
        message = await one.js.get_last_msg("BATON_WORK", "baton.v1.work.tools.x")
        assert msgpack.unpackb(message.data)["seq"] == 2
        assert message.headers["Nats-Msg-Id"] == f"{request['key']}.2"

    run(nats, tmp_path, scenario)


def test_an_item_that_no_worker_survives_is_set_aside(nats: Nats, tmp_path: Path) -> None:
    async def main() -> None:
        async with wire(nats) as one:
            request = one.request()
            await one.hand_over(request)
            await one.push(request)
            queue = await one.js.pull_subscribe("baton.v1.work.generate", durable="generate", stream="BATON_WORK")
            for _ in range(5):
                (message,) = await queue.fetch(1, timeout=30)
                await message.nak()
            async with worker(nats, tmp_path):
                frames = await one.ended(request)
                assert (frames[-1]["type"], frames[-1]["code"], len(frames)) == ("error", "poisoned", 3)
                await one.settled()
            message = await one.js.get_last_msg("BATON_DEAD", "baton.v1.dead.generate")
            dead = codec.decode(message.data, DeadWork)
            assert (dead.ref.key, dead.ref.seq, dead.deliveries) == (request["key"], 1, 5)
            assert dead.handoff is not None
            assert dead.handoff.item is not None
            assert dead.handoff.item["query"] == request["query"]

    asyncio.run(main())


def test_a_worker_that_was_frozen_finds_out_and_leaves_the_log_to_the_other(nats: Nats, tmp_path: Path) -> None:
    """It is frozen in the middle of an answer; somebody else ends the log; nothing of its own is stored after that."""

    async def main() -> None:
        async with wire(nats) as one, worker(nats, tmp_path) as process:
            request = one.request(passages=[{**PASSAGES[0], "n": n, "id": str(n)} for n in range(1, 3000)])
            await one.hand_over(request)
            await one.push(request)

            async def writing() -> bool:
                return (await tail(one, request))[0]["type"] == "answer_chunk"

            await eventually(writing, "it writes")
            freeze(process.pid)
            await eventually(lambda: end(one, request), "somebody else ends the log")
            process.popen.send_signal(signal.SIGCONT)
            frames = await one.ended(request)
            await eventually(lambda: "Replaced" in process.text(), "it has noticed")
            assert await one.frames(request) == frames
            assert (frames[-1]["type"], frames[-1]["code"]) == ("error", "internal")

    asyncio.run(main())


async def tail(one: Wire, request: Request) -> tuple[Frame, int]:
    """The log's last frame, and the stream sequence of the message that it is in."""
    subject = f"baton.v1.log.{request['shard']}.{request['key']}"
    message = await one.js.get_last_msg(f"BATON_LOG_{request['shard']}", subject)
    return msgpack.unpackb(message.data)["frames"][-1], message.seq


async def end(one: Wire, request: Request) -> bool:
    """End the log as another holder would; False where an append was quicker."""
    newest, stream_seq = await tail(one, request)
    ending = {"type": "error", "seq": newest["seq"] + 1, "code": "internal", "message": "x", "retryable": True}
    try:
        await one.append(request, [ending], stream_seq)
    except APIError:
        return False
    return True


def test_it_announces_itself_when_asked_and_stops_on_sigterm(nats: Nats, tmp_path: Path) -> None:
    async def main() -> None:
        async with wire(nats) as one, worker(nats, tmp_path) as process:
            heard = await one.nc.subscribe("baton.v1.workers.generate")
            await one.nc.publish("baton.v1.census")
            said = codec.decode((await heard.next_msg(timeout=30)).data, Announcement)
            assert (said.stage, said.slots, said.draining) == ("generate", 8, False)
            process.popen.terminate()
            await eventually(lambda: not process.alive, "it has stopped")
            assert process.popen.returncode == 0, process.text()

    asyncio.run(main())


def test_it_uses_nothing_of_ours() -> None:
    source = PROGRAM.read_text("utf-8")
    assert "baton_proto" not in source
    assert "services" not in source
