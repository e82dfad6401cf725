"""`baton work` as a process, on a real nats-server."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import msgspec
import pytest

from baton_proto import codec, subjects
from baton_proto.messages import (
    Accepted,
    AnswerChunk,
    DeadWork,
    Done,
    LogFrame,
    Passage,
    Sources,
    Status,
    Timings,
    ToolCall,
    ToolCalled,
    ToolTurn,
    Usage,
    WorkItem,
    WorkRef,
)
from services.common.inspection import dead_items
from services.common.job import Job
from services.common.log import make_handoff
from tests.commands import TIMEOUT_S, baton, finish, start_baton
from tests.rig import Rig, rig
from tests.servers.nats import Nats
from tests.servers.processes import eventually

pytestmark = pytest.mark.anyio

PASSAGE = Passage(n=1, id="a", document_id="d", title="Leave", url="/documents/d", text="Twenty days.", score=1.0)


def settings(nats: Nats) -> dict[str, str]:
    return {"BATON_NATS_URL": nats.url, "BATON_LOG_SHARDS": "4"}


async def work(nats: Nats) -> dict[str, Any]:
    status, out, err = await baton("work", "--json", **settings(nats))
    assert (status, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


async def work_with_workers(nats: Nats) -> tuple[dict[str, Any], str]:
    """What it finds when the worker in this process has answered, and shows then; it waits a second for that, and this
    process may stand still for so long."""
    for _ in range(5):
        found = await work(nats)
        _, out, _ = await baton("work", **settings(nats))
        said = found["running"] and all(stage["workers"] for stage in found["stages"])
        if said and "running: none" not in out:
            break
    return found, out


async def set_aside(one: Rig, item: WorkItem, **changes: Any) -> DeadWork:
    """What a worker does with an item that no worker has survived."""
    handoff = await make_handoff(one.bus, item, 0)
    ref = WorkRef(stage=item.stage, key=item.key, shard=item.shard, seq=0)
    fields = {"reason": "no worker finished it in 5 deliveries", "deliveries": 5, "at_ms": 1_700_000_000_000}
    dead = DeadWork(ref=ref, request_id=item.request_id, handoff=handoff, **{**fields, **changes})
    await one.bus.store(subjects.dead_subject(item.stage), codec.encode(dead))
    return dead


async def test_waiting_work_is_counted_by_stage_also_where_no_worker_ever_was(nats: Nats) -> None:
    async with rig(nats.url) as one:
        for _ in range(3):
            await one.start(one.item())
        await one.start(one.item(stage="tools.default"))
        found = await work(nats)
        _, out, _ = await baton("work", **settings(nats))
    stages = {each["stage"]: each for each in found["stages"]}
    assert {name: each["waiting"] for name, each in stages.items()} == {"retrieve": 3, "tools.default": 1}
    assert stages["retrieve"]["oldest_ms"] > 0
    assert stages["retrieve"]["workers"] == 0
    assert len(re.findall("NO WORKER", out)) == 2
    assert "running: none" in out


async def test_held_and_waiting_work_are_told_apart_and_the_holder_is_named(nats: Nats) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    async def handler(job: Job) -> None:
        started.set()
        await go.wait()
        await job.finish(Done(finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=Timings()))

    async with rig(nats.url) as one:
        first, second = one.item(), one.item()
        async with one.worker(handler, name="retriever-7", concurrency=1):
            await one.start(first)
            await asyncio.wait_for(started.wait(), TIMEOUT_S)
            await one.start(second)
            found, out = await work_with_workers(nats)
            go.set()
            await one.ended(second)
    (stage,) = found["stages"]
    assert {name: stage[name] for name in ("workers", "slots", "running", "waiting", "delivered")} == {
        "workers": 1,
        "slots": 1,
        "running": 1,
        "waiting": 1,
        "delivered": 1,
    }
    (running,) = found["running"]
    assert (running["request_id"], running["worker"], running["deliveries"]) == (first.request_id, "retriever-7", 1)
    assert found["unanswered"] == []
    assert re.search(rf"{first.key[:12]}\s+{first.request_id}\s+retrieve\s+retriever-7", out)


async def test_an_item_whose_holder_does_not_answer_is_shown_as_such(nats: Nats) -> None:
    started = asyncio.Event()

    async def hang(_: Job) -> None:
        started.set()
        await asyncio.Event().wait()

    async with rig(nats.url) as one, one.worker(hang, ack_wait_s=30.0) as worker:
        item = one.item()
        await one.start(item)
        await asyncio.wait_for(started.wait(), TIMEOUT_S)
        await worker.die()
        found = await work(nats)
        _, out, _ = await baton("work", **settings(nats))
    (unanswered,) = found["unanswered"]
    assert (unanswered["key"], unanswered["request_id"]) == (item.key, item.request_id)
    assert (unanswered["last_writer"], unanswered["redelivery_s"]) == ("somebody", 30.0)
    assert "held by nobody who answers" in out
    assert "within 30.0 s" in out


async def test_set_aside_items_are_shown_with_why_when_and_how_often(nats: Nats) -> None:
    async with rig(nats.url) as one:
        item = one.item(query="SECRET")
        await set_aside(one, item)
        (poisoned,) = (await work(nats))["poisoned"]
        _, out, _ = await baton("work", **settings(nats))
    assert poisoned == {
        "key": item.key,
        "request_id": item.request_id,
        "stage": "retrieve",
        "at_ms": 1_700_000_000_000,
        "deliveries": 5,
        "reason": "no worker finished it in 5 deliveries",
        "retryable": True,
    }
    assert "11-14 22:13:20" in out
    assert "SECRET" not in out


async def test_an_item_that_was_told_twice_is_one_item_and_goes_as_one(nats: Nats) -> None:
    async with rig(nats.url) as one:
        item = one.item()
        await set_aside(one, item)
        await set_aside(one, item, deliveries=6)
        assert [each["deliveries"] for each in (await work(nats))["poisoned"]] == [6]
        assert (await baton("work", "discard", item.key, **settings(nats)))[0] == 0
        assert (await one.bus.stream_state(subjects.DEAD_STREAM))["messages"] == 0


async def test_retry_makes_a_new_request_that_goes_on_where_the_old_one_failed(nats: Nats) -> None:
    seen: list[WorkItem] = []

    async def handler(job: Job) -> None:
        seen.append(job.item)
        await job.write(AnswerChunk(content="Twenty."))
        await job.finish(Done(finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=job.item.timings))

    async with rig(nats.url) as one:
        old = one.item(
            stage="generate",
            passages=[PASSAGE],
            turns=[ToolTurn(calls=[], results=[], text="Let me look. ")],
            timings=Timings(queue_ms=99_000),
            received_ms=1,
            deadline_ms=60_001,
            place=7,
            extra={"newer": "field"},
        )
        await set_aside(one, old)
        status, out, _ = await baton("work", "retry", old.key[:6].upper(), **settings(nats))
        assert status == 0, out
        key = re.search(r"baton log --follow ([0-9a-f]{32})", out)
        assert key is not None
        async with one.worker(handler, "generate"):
            new = one.item(key=key[1], shard=one.bus.address(key[1]).shard)
            frames = await one.ended(new)
        left = await dead_items(one.bus)
    (item,) = seen
    assert (item.owner, item.stage, item.query) == (old.owner, old.stage, old.query)
    assert item.request_id != old.request_id
    assert item.request_id in out
    assert item.key == subjects.request_key(old.owner, item.request_id) == key[1]
    assert item.deadline_ms - item.received_ms == 60_000
    assert item.timings.queue_ms < 99_000
    assert item.place is None
    assert item.extra == {"newer": "field"}
    assert [type(frame) for frame in frames] == [Accepted, Sources, AnswerChunk, AnswerChunk, Done]
    assert frames[1].sources[0].snippet == "Twenty days."
    assert frames[2].content == "Let me look. "
    assert left == []


CALLS = [ToolCall(call_id=call_id, name="book", arguments={"day": 1}) for call_id in ("c1", "c2")]


@pytest.mark.parametrize("log_is_there", [True, False])
async def test_the_next_holder_is_told_which_tool_calls_may_have_run(nats: Nats, log_is_there: bool) -> None:
    written: list[LogFrame] = []

    async def handler(job: Job) -> None:
        written.extend(job.written)
        await job.finish(Done(finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=job.item.timings))

    async with rig(nats.url) as one:
        item = one.item(stage="tools.default", calls=CALLS)
        await set_aside(one, item)
        if log_is_there:
            await one.start(item, push=False)
            tail = await one.bus.tail(one.bus.address(item.key))
            assert tail is not None
            begun = ToolCalled(call_id="c1", name="book", arguments={"day": 1})
            await one.append(item, Status(stage="tool", content=""), begun, next_seq=1, last=tail.stream_seq)
        status, out, _ = await baton("work", "retry", item.key, "--json", **settings(nats))
        assert status == 0
        key = json.loads(out)["key"]
        async with one.worker(handler, "tools.default"):
            await one.ended(one.item(key=key, shard=one.bus.address(key).shard))
    called = [frame.call_id for frame in written if isinstance(frame, ToolCalled)]
    assert called == (["c1"] if log_is_there else ["c1", "c2"])
    assert len(called) == len(written)


async def test_retry_takes_an_item_from_its_own_log_where_the_note_has_none(nats: Nats) -> None:
    async with rig(nats.url) as one:
        item = one.item()
        ref = await one.start(item, push=False)
        dead = DeadWork(ref=ref, request_id=item.request_id, reason="r", deliveries=5, at_ms=1)
        await one.bus.store(subjects.dead_subject("retrieve"), codec.encode(dead))
        status, out, _ = await baton("work", "retry", item.request_id, "--json", **settings(nats))
        assert status == 0
        assert json.loads(out)["retried"] == item.request_id
        assert await one.queued() == 1


async def test_a_large_item_is_tried_again_and_its_object_is_deleted(nats: Nats) -> None:
    async with rig(nats.url) as one:
        passages = [msgspec.structs.replace(PASSAGE, n=n, text="x" * 60_000) for n in range(1, 11)]
        item = one.item(stage="generate", passages=passages)
        dead = await set_aside(one, item)
        assert dead.handoff is not None
        assert dead.handoff.object is not None
        status, out, _ = await baton("work", "retry", item.key, "--json", **settings(nats))
        told = json.loads(out)
        assert status == 0
        assert not await one.bus.has_object(dead.handoff.object)
        assert await one.bus.has_object(subjects.handoff_object(told["key"], 1))


async def test_discard_forgets_the_item_and_its_object(nats: Nats) -> None:
    async with rig(nats.url) as one:
        kept, gone = (
            one.item(),
            one.item(query="x" * 30_000, turns=[ToolTurn(calls=[], results=[], text="y" * 400_000)]),
        )
        await set_aside(one, kept)
        dead = await set_aside(one, gone)
        assert dead.handoff is not None
        assert dead.handoff.object is not None
        status, out, _ = await baton("work", "discard", gone.key, **settings(nats))
        assert (status, out) == (0, f"Discarded {gone.request_id} ({gone.key}).\n")
        assert [each.work.ref.key for each in await dead_items(one.bus)] == [kept.key]
        assert not await one.bus.has_object(dead.handoff.object)


async def test_work_that_killed_its_workers_is_tried_again_when_they_can_do_it(nats: Nats) -> None:
    started = asyncio.Event()

    async def hang(_: Job) -> None:
        started.set()
        await asyncio.Event().wait()

    async def finish_it(job: Job) -> None:
        await job.finish(Done(finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=Timings()))

    async with rig(nats.url) as one:
        item = one.item()
        async with one.worker(hang, ack_wait_s=2.0) as worker:
            await one.start(item)
            await asyncio.wait_for(started.wait(), TIMEOUT_S)
            await worker.die()
        async with one.worker(finish_it, max_deliveries=1, ack_wait_s=2.0):
            assert (await one.ended(item))[-1].code == "poisoned"
        (poisoned,) = (await work(nats))["poisoned"]
        status, out, _ = await baton("work", "retry", poisoned["key"], "--json", **settings(nats))
        key = json.loads(out)["key"]
        async with one.worker(finish_it):
            frames = await one.ended(one.item(key=key, shard=one.bus.address(key).shard))
        after = await work(nats)
    assert (poisoned["request_id"], poisoned["deliveries"], poisoned["retryable"]) == (item.request_id, 1, True)
    assert status == 0
    assert [type(frame) for frame in frames] == [Accepted, Done]
    assert after["poisoned"] == []


async def test_a_key_that_is_wrong_short_or_ambiguous_changes_nothing(nats: Nats) -> None:
    async with rig(nats.url) as one:
        for end in "01":
            key = "abcdef" + "0" * 25 + end
            await set_aside(one, one.item(key=key, shard=one.bus.address(key).shard))
        wrong = await baton("work", "discard", "123456", **settings(nats))
        short = await baton("work", "discard", "abcde", **settings(nats))
        several = await baton("work", "retry", "abcdef", **settings(nats))
        left = len(await dead_items(one.bus))
    assert wrong[0] == short[0] == several[0] == 1
    assert "nothing that was set aside has the key '123456'" in wrong[2]
    assert "at least 6 digits" in short[2]
    assert "fits 2 items" in several[2]
    assert left == 2


async def test_watching_shows_what_changes(nats: Nats) -> None:
    async with rig(nats.url) as one:
        process = await start_baton("work", "--watch", "--json", **settings(nats))
        assert process.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            assert json.loads(await process.stdout.readline())["stages"] == []
        await one.start(one.item())

        async def seen() -> bool:
            assert process.stdout is not None
            stages = json.loads(await process.stdout.readline())["stages"]
            return [each["waiting"] for each in stages] == [1]

        await eventually(seen, "the new item is shown")
        process.send_signal(2)
        status, _, err = await finish(process)
    assert (status, err) == (130, "")
