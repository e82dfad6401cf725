"""`baton log` as a process, on a real nats-server."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

import pytest

from baton_proto import codec, subjects
from baton_proto.messages import AnswerChunk, Done, LogFrame, Status, StoredAnswer, Timings, Usage
from services.common.job import Job
from services.common.streams import ensure_consumer
from tests.commands import TIMEOUT_S, baton, finish, start_baton
from tests.rig import Rig, rig
from tests.servers.nats import Nats
from tests.servers.processes import free_port

pytestmark = pytest.mark.anyio

TRIES = 5
"""It waits a second for what workers say of themselves; this process may stand still for so long."""
SECRET = "How much does Kim earn?"
DONE = Done(finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=Timings())


def settings(nats: Nats) -> dict[str, str]:
    return {"BATON_NATS_URL": nats.url, "BATON_LOG_SHARDS": "4"}


def chunks(count: int) -> list[LogFrame]:
    return [AnswerChunk(content=f"secret {number} ") for number in range(count)]


async def answered(one: Rig, **changes: Any) -> Any:
    """A request with a question, an answer of 20 chunks, and an end."""
    item = one.item(query=SECRET, **changes)
    await one.start(item)
    await one.append(item, Status(stage="generating", content="Writing"), next_seq=1, last=await last(one, item))
    await one.append(item, *chunks(20), next_seq=2, last=await last(one, item))
    await one.append(item, DONE, next_seq=22, last=await last(one, item))
    return item


async def last(one: Rig, item: Any) -> int:
    tail = await one.bus.tail(one.bus.address(item.key))
    assert tail is not None
    return tail.stream_seq


async def test_a_log_is_shown_by_key_and_by_request_id_without_what_was_said(nats: Nats) -> None:
    async with rig(nats.url) as one:
        item = await answered(one)
        by_key = await baton("log", item.key, **settings(nats))
        by_id = await baton("log", item.request_id, "--owner", "tester", **settings(nats))
    assert by_key == by_id
    status, out, err = by_key
    assert (status, err) == (0, "")
    assert "accepted" in out
    assert "-> retrieve" in out
    assert "2-21" in out
    assert "20 chunks in 1 entry, 190 characters" in out
    assert "ended with done (stop)" in out
    assert "at the longest, between" in out
    assert "secret" not in out
    assert "Kim" not in out


async def test_contents_and_every_chunk_are_shown_when_asked_for(nats: Nats) -> None:
    async with rig(nats.url) as one:
        item = await answered(one)
        status, out, _ = await baton("log", item.key, "--content", "--all", **settings(nats))
    assert status == 0
    assert SECRET in out
    assert '"secret 7 "' in out
    assert "6/20" in out  # the sixth of the twenty frames of its entry


async def test_json_has_every_frame_with_its_entry_and_a_summary(nats: Nats) -> None:
    async with rig(nats.url) as one:
        item = await answered(one)
        status, out, _ = await baton("log", item.key, "--json", **settings(nats))
        _, whole, _ = await baton("log", item.key, "--json", "--content", **settings(nats))
    *frames, summary = map(json.loads, out.splitlines())
    assert status == 0
    assert [frame["seq"] for frame in frames] == list(range(23))
    assert frames[5] | {"timestamp": "", "append_id": "", "stream_seq": 0} == {
        "type": "answer_chunk",
        "seq": 5,
        "timestamp": "",
        "request_id": item.request_id,
        "writer": "somebody",
        "append_id": "",
        "entry_frames": 20,
        "stream_seq": 0,
        "content_chars": 9,
    }
    assert frames[0]["handoff"] == {"stage": "retrieve"}
    assert (summary["type"], summary["ended"]) == ("summary", True)
    assert SECRET not in out
    assert SECRET in whole


async def test_a_request_that_nobody_took_is_waiting(nats: Nats) -> None:
    async with rig(nats.url) as one:
        await one.start(one.item())
        item = one.item()
        await one.start(item)
        status, out, _ = await baton("log", item.key, **settings(nats))
    assert status == 0
    assert "waiting for stage retrieve since" in out
    assert "1 in the queue before it" in out


async def test_a_request_that_a_worker_holds_names_it(nats: Nats) -> None:
    started = asyncio.Event()

    async def hang(_: Job) -> None:
        started.set()
        await asyncio.Event().wait()

    async with rig(nats.url) as one, one.worker(hang, name="retriever-7", drain_s=0.1):
        item = one.item()
        await one.start(item)
        await asyncio.wait_for(started.wait(), TIMEOUT_S)
        for _ in range(TRIES):
            _, out, _ = await baton("log", item.key, **settings(nats))
            if "held by" in out:
                break
    assert "running at stage retrieve, held by retriever-7 since" in out
    assert "1 delivery" in out


async def test_a_request_whose_holder_died_is_said_to_be_held_by_nobody(nats: Nats) -> None:
    started = asyncio.Event()

    async def hang(_: Job) -> None:
        started.set()
        await asyncio.Event().wait()

    async with rig(nats.url) as one:
        item = one.item()
        async with one.worker(hang, ack_wait_s=30.0) as worker:
            await one.start(item)
            await asyncio.wait_for(started.wait(), TIMEOUT_S)
            await worker.die()
            _, out, _ = await baton("log", item.key, **settings(nats))
    assert "a worker took it, but none that answers holds it" in out


async def test_a_log_is_followed_to_its_end(nats: Nats) -> None:
    async with rig(nats.url) as one:
        item = one.item()
        await one.start(item)
        process = await start_baton("log", "--follow", "--all", item.key, **settings(nats))
        assert process.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            while b"accepted" not in await process.stdout.readline():
                pass
        await one.append(item, *chunks(3), next_seq=1, last=await last(one, item))
        async with asyncio.timeout(TIMEOUT_S):
            assert b"answer_chunk" in await process.stdout.readline()
        await one.append(item, DONE, next_seq=4, last=await last(one, item))
        status, out, _ = await finish(process)
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["2", "3", "4"]
    assert "ended with done" in out


async def test_ctrl_c_ends_following_quietly(nats: Nats) -> None:
    async with rig(nats.url) as one:
        item = one.item()
        await one.start(item)
        process = await start_baton("log", "-f", item.key, **settings(nats))
        assert process.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            while b"accepted" not in await process.stdout.readline():
                pass
        process.send_signal(signal.SIGINT)
        status, _, err = await finish(process)
    assert (status, err) == (130, "")


async def test_what_was_kept_is_shown_when_the_log_is_gone(nats: Nats) -> None:
    async with rig(nats.url) as one:
        key = subjects.request_key("anonymous", "old-one")
        kept = StoredAnswer(
            request_id="old-one", outcome="stop", ended_ms=1, finish_reason="stop", answer="secret text"
        )
        await one.bus.store(subjects.kept_answer(key), codec.encode(kept))
        status, out, _ = await baton("log", "old-one", **settings(nats))
        _, whole, _ = await baton("log", "old-one", "--content", **settings(nats))
    assert status == 0
    assert "ended with stop" in out
    assert "11 characters" in out
    assert "secret" not in out
    assert "secret text" in whole


async def test_a_request_that_is_not_there_comes_with_possible_reasons(nats: Nats) -> None:
    async with rig(nats.url):
        status, out, err = await baton("log", "nothing", BATON_NATS_URL=nats.url)
    assert (status, out) == (1, "")
    assert "there is no log of 'nothing' (owner 'anonymous'" in err
    assert "--owner" in err
    assert "4 log streams, but BATON_LOG_SHARDS is 16" in err


async def test_a_nats_without_baton_is_named(nats: Nats) -> None:
    status, _, err = await baton("log", "nothing", BATON_NATS_URL=nats.url)
    assert status == 1
    assert "no Baton uses this NATS" in err


async def test_looking_makes_and_changes_no_stream(nats: Nats) -> None:
    async with rig(nats.url) as one:
        item = await answered(one)
        await ensure_consumer(one.bus, "retrieve", 2.0, 1)
        before = await one.bus.client.jetstream().streams_info()
        await baton("log", item.key, **settings(nats), BATON_LOG_MAX_AGE_S="60")
        await baton("work", **settings(nats), BATON_LOG_MAX_AGE_S="60")
        after = await one.bus.client.jetstream().streams_info()
    assert [info.config for info in before] == [info.config for info in after]


async def test_without_nats_it_says_where_it_looked() -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    status, _, err = await baton("log", "r1", BATON_NATS_URL=url)
    assert status == 3
    assert url in err


async def test_wrong_arguments_exit_with_2() -> None:
    assert (await baton("log", "not a request"))[0] == 2
    assert (await baton("log"))[0] == 2
