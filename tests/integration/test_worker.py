"""The rules of the log, with real workers on a real nats-server."""

from __future__ import annotations

import asyncio
import contextlib
import time

import msgspec
import pytest
from nats.aio.msg import Msg

from baton_proto import codec, subjects
from baton_proto.messages import (
    AnswerChunk,
    DeadWork,
    Done,
    Error,
    Holdings,
    Passage,
    Sources,
    Status,
    Timings,
    Usage,
    WorkItem,
)
from services.common.cancelling import order_cancel
from services.common.clock import now_ms
from services.common.endings import end_log
from services.common.errors import ServiceError
from services.common.job import Job
from services.common.log import make_handoff, open_handoff, push_ref
from services.common.streams import ensure_consumer
from tests.measured import measured
from tests.rig import Rig, run_rig
from tests.servers.cable import cable
from tests.servers.nats import Nats
from tests.servers.processes import eventually


def done() -> Done:
    return Done(finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=Timings())


async def retrieve(job: Job) -> None:
    await job.write(Status(stage="retrieving", content="…"))
    await job.hand_over(Sources(sources=[]), msgspec.structs.replace(job.item, stage="generate"))


async def generate(job: Job) -> None:
    for number in range(len(job.written), 5):
        await job.write(AnswerChunk(content=f"{number} "))
    await job.finish(done())


def text(frames: list[object]) -> str:
    return "".join(frame.content for frame in frames if isinstance(frame, AnswerChunk))


def test_a_request_travels_from_stage_to_stage_in_one_log(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        async with one.worker(retrieve), one.worker(generate, "generate"):
            items = [one.item() for _ in range(30)]
            await asyncio.gather(*(one.start(item) for item in items))
            for item in items:
                frames = await one.ended(item)
                assert [frame.__struct_config__.tag for frame in frames[:3]] == ["accepted", "status", "sources"]
                assert text(frames) == "0 1 2 3 4 "
            await one.settled()

    run_rig(nats, scenario)


def test_a_dead_holder_is_replaced_and_its_frames_are_continued(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        stuck = asyncio.Event()

        async def write_two_and_hang(job: Job) -> None:
            await job.write(AnswerChunk(content="0 "))
            await job.write(AnswerChunk(content="1 "))
            stuck.set()
            await asyncio.Event().wait()

        item = one.item(stage="generate")
        before = measured("baton_failovers_total", stage="generate")
        async with one.worker(write_two_and_hang, "generate", ack_wait_s=30.0) as first:
            await one.start(item)
            await asyncio.wait_for(stuck.wait(), 30)
            await eventually(lambda: _length(one, item, 3), "both chunks are stored")
            await first.die()
        async with one.worker(generate, "generate", ack_wait_s=2.0):
            assert text(await one.ended(item)) == "0 1 2 3 4 "
        assert measured("baton_failovers_total", stage="generate") == before + 1

    run_rig(nats, scenario)


async def _length(one: Rig, item: WorkItem, count: int) -> bool:
    return len(await one.frames(item)) >= count


def test_a_holder_that_the_network_has_cut_off_is_replaced_and_what_it_sends_later_changes_nothing(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        async def write_until_stopped(job: Job) -> None:
            while job.item.key == item.key:
                await job.write(AnswerChunk(content="on "))
                await asyncio.sleep(0.02)
            await job.finish(done())

        async def go_on(job: Job) -> None:
            await job.write(AnswerChunk(content="end"))
            await job.finish(done())

        item = one.item(stage="generate")
        async with cable(nats.port) as network:
            url = f"nats://127.0.0.1:{network.port}"
            async with one.worker(write_until_stopped, "generate", url=url, name="cut", ack_wait_s=2.0) as cut:
                await one.start(item)
                await eventually(lambda: _length(one, item, 10), "it has begun")
                network.plugged.clear()
                async with one.worker(go_on, "generate", ack_wait_s=2.0):
                    frames = await one.ended(item)
                    assert text(frames) == "on " * (len(frames) - 3) + "end"
                    await eventually(lambda: cut.worker.running == 0, "the one that is cut off has stopped")
                # It is back: its append that was on its way is refused, and it takes new work.
                network.plugged.set()
                again = one.item(stage="generate")
                await one.start(again)
                await one.ended(again)
                assert await one.frames(item) == frames

    run_rig(nats, scenario)


def test_a_replaced_holder_stops_and_settles_nothing(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        cancelled, started = asyncio.Event(), asyncio.Event()

        async def hang(job: Job) -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        async def slow_writer(job: Job) -> None:
            started.set()
            await proceed.wait()
            await job.write(AnswerChunk(content="late"))
            await hang(job)

        proceed = asyncio.Event()
        item = one.item(stage="generate")
        async with one.worker(slow_writer, "generate", ack_wait_s=30.0):
            await one.start(item)
            await asyncio.wait_for(started.wait(), 30)
            # Somebody else takes the next seq, as a replacement does.
            await end_log(one.bus, one.bus.address(item.key), item.request_id, done())
            proceed.set()
            await asyncio.wait_for(cancelled.wait(), 30)
            frames = await one.ended(item)
            assert text(frames) == ""
            # Not acknowledged by the replaced one; dropped when it is delivered again.
            assert await one.queued() == 1
            await ensure_consumer(one.bus, "generate", 1.0, 1)  # now is soon enough
            await one.settled()

    run_rig(nats, scenario)


def test_a_hand_off_whose_writer_died_before_publishing_it_is_published_by_the_next_one(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        item = one.item()
        await one.start(item)
        following = msgspec.structs.replace(item, stage="generate")
        handoff = await make_handoff(one.bus, following, 1)
        stored = (await one.bus.tail(one.bus.address(item.key))).stream_seq  # type: ignore[union-attr]
        await one.append(item, Sources(sources=[], handoff=handoff), next_seq=1, last=stored)
        async with one.worker(retrieve), one.worker(generate, "generate"):
            frames = await one.ended(item)
            assert [frame.__struct_config__.tag for frame in frames[:2]] == ["accepted", "sources"]
            assert text(frames) == "0 1 2 3 4 "

    run_rig(nats, scenario)


def test_work_that_is_not_its_logs_latest_hand_off_is_dropped(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        calls = 0

        async def count(job: Job) -> None:
            nonlocal calls
            calls += 1
            await retrieve(job)

        async with one.worker(count), one.worker(generate, "generate"):
            item = one.item()
            ref = await one.start(item)
            await one.ended(item)
            await one.bus.push_work("retrieve", codec.encode(ref), "again")
            await one.bus.push_work("retrieve", b"\xc1 not msgpack", "broken")
            ghost = msgspec.structs.replace(ref, key="0" * 32)
            await one.bus.push_work("retrieve", codec.encode(ghost), "ghost")
            await one.settled()
            assert calls == 1

    run_rig(nats, scenario)


def test_a_request_that_no_worker_survives_ends_poisoned_and_is_kept_aside(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        item = one.item()
        await one.start(item)
        for _ in range(2):
            async with one.worker(_give_up_forever, max_deliveries=2, ack_wait_s=2.0) as victim:
                await eventually(lambda: victim.worker.running == 1, "it has the item")
                await victim.die()
        async with one.worker(retrieve, max_deliveries=2, ack_wait_s=2.0):
            frames = await one.ended(item)
        assert isinstance(frames[-1], Error)
        assert frames[-1].code == "poisoned"
        kept = await one.bus.last(subjects.DEAD_STREAM, subjects.dead_subject("retrieve"))
        assert kept is not None
        dead = codec.decode(kept.data, DeadWork)
        assert (dead.request_id, dead.deliveries) == (item.request_id, 2)
        assert dead.handoff is not None
        assert (await open_handoff(one.bus, dead.handoff)).query == item.query

    run_rig(nats, scenario)


def test_an_answer_that_moves_is_not_taken_for_one_that_kills_its_workers(nats: Nats) -> None:
    """As when NATS has lost a leader and delivers again what healthy holders have."""

    async def scenario(one: Rig) -> None:
        item = one.item(stage="generate")
        await one.start(item)
        await ensure_consumer(one.bus, "generate", 10.0, 1)
        queue = await one.bus.client.jetstream().pull_subscribe_bind("generate", stream=subjects.WORK_STREAM)
        for _ in range(3):
            (message,) = await queue.fetch(1, timeout=30)
            await message.nak()
        tail = await one.bus.tail(one.bus.address(item.key))
        assert tail is not None
        await one.append(item, AnswerChunk(content="0 "), next_seq=1, last=tail.stream_seq)
        async with one.worker(generate, "generate", max_deliveries=2, ack_wait_s=10.0):
            assert text(await one.ended(item)) == "0 1 2 3 4 "

    run_rig(nats, scenario)


def test_a_queue_that_a_worker_of_another_make_has_made_is_taken_over(nats: Nats) -> None:
    """It has settings of its own where the contract has none, and of those NATS changes only some."""

    async def scenario(one: Rig) -> None:
        other = {"ack_policy": "explicit", "deliver_policy": "all", "max_deliver": -1, "max_ack_pending": 20_000}
        config = {"durable_name": "retrieve", "filter_subject": "baton.v1.work.retrieve", "ack_wait": int(7e9), **other}
        name = "BATON_WORK.retrieve"
        await one.bus.api(f"CONSUMER.DURABLE.CREATE.{name}", stream_name="BATON_WORK", config=config)
        async with asyncio.timeout(30):
            await ensure_consumer(one.bus, "retrieve", 2.0, 1)
        made = (await one.bus.api(f"CONSUMER.INFO.{name}"))["config"]
        assert (made["ack_wait"], made["max_ack_pending"]) == (2e9, 20_000)

    run_rig(nats, scenario)


def test_deliveries_that_were_given_back_in_a_drain_do_not_count_towards_poisoned(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        item = one.item(stage="generate")
        await one.start(item)
        for _ in range(4):
            async with one.worker(_give_up_forever, "generate", max_deliveries=2, drain_s=0.0) as leaving:
                await eventually(lambda: leaving.worker.running == 1, "it has the item")
        async with one.worker(generate, "generate", max_deliveries=2):
            assert text(await one.ended(item)) == "0 1 2 3 4 "

    run_rig(nats, scenario)


async def _give_up_forever(_: Job) -> None:
    await asyncio.Event().wait()


def test_a_drained_worker_gives_back_what_it_cannot_finish_at_once(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        item = one.item(stage="generate")
        before = [measured(name, stage="generate") for name in ("baton_failovers_total", "baton_redelivered_total")]
        async with one.worker(_give_up_forever, "generate", drain_s=0.0, ack_wait_s=30.0) as first:
            await one.start(item)
            await eventually(lambda: first.worker.running == 1, "the first has it")
        async with one.worker(generate, "generate", ack_wait_s=30.0):
            assert text(await one.ended(item, within_s=15.0)) == "0 1 2 3 4 "
        assert measured("baton_failovers_total", stage="generate") == before[0]
        assert measured("baton_redelivered_total", stage="generate") == before[1] + 1

    run_rig(nats, scenario)


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_cancel_ends_the_log_whoever_holds_the_baton(nats: Nats, when: str) -> None:
    async def scenario(one: Rig) -> None:
        item = one.item(stage="generate")
        if when == "before":
            await order_cancel(one.bus, item.key)
        async with one.worker(_give_up_forever, "generate") as worker:
            await one.start(item)
            if when == "during":
                await eventually(lambda: worker.worker.running == 1, "it runs")
                await order_cancel(one.bus, item.key)
            frames = await one.ended(item)
        assert isinstance(frames[-1], Done)
        assert frames[-1].finish_reason == "cancelled"
        await one.settled()  # NATS takes an acknowledged message out of the queue a moment later

    run_rig(nats, scenario)


async def _deadline_passed(_: Job) -> None:
    await asyncio.Event().wait()


async def _service_error(_: Job) -> None:
    raise ServiceError("model_failed", "The model said no.", retryable=True, retry_after_ms=7)


async def _exception(_: Job) -> None:
    raise RuntimeError("secret detail")


async def _nothing(_: Job) -> None:
    return


@pytest.mark.parametrize(
    ("handler", "code"),
    [
        (_deadline_passed, "deadline"),
        (_service_error, "model_failed"),
        (_exception, "internal"),
        (_nothing, "internal"),
    ],
)
def test_what_goes_wrong_in_a_handler_ends_the_log_with_an_error(nats: Nats, handler: object, code: str) -> None:
    async def scenario(one: Rig) -> None:
        left_ms = 300 if code == "deadline" else 60_000
        item = one.item(stage="generate", deadline_ms=now_ms() + left_ms)
        async with one.worker(handler, "generate"):  # type: ignore[arg-type]
            await one.start(item)
            last = (await one.ended(item))[-1]
        assert isinstance(last, Error)
        assert last.code == code
        assert "secret" not in last.message

    run_rig(nats, scenario)


def test_a_hand_off_too_large_for_a_message_goes_through_the_object_store(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        passages = [
            Passage(n=n, id=str(n), document_id="d", title="t", url="/", text="x" * 100_000, score=1.0)
            for n in range(1, 21)
        ]
        seen: list[int] = []

        async def retrieve_much(job: Job) -> None:
            item = msgspec.structs.replace(job.item, stage="generate", passages=passages, extra={"new_field": 7})
            await job.hand_over(Sources(sources=[]), item)

        async def count(job: Job) -> None:
            seen.extend(len(passage.text) for passage in job.item.passages)
            assert job.item.extra == {"new_field": 7}
            await job.finish(done())

        async with one.worker(retrieve_much), one.worker(count, "generate"):
            item = one.item()
            await one.start(item)
            assert isinstance((await one.ended(item))[-1], Done)
            name = subjects.handoff_object(item.key, 1)

            async def forgotten() -> bool:
                return not await one.bus.has_object(name)

            await eventually(forgotten, "the object is deleted once its item is dealt with")
        assert seen == [100_000] * 20

    run_rig(nats, scenario)


def test_work_is_refused_when_the_queue_is_full(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        from services.common.bus import Full

        for _ in range(3):
            await one.start(one.item())
        ref = await one.start(one.item(), push=False)
        with pytest.raises(Full):
            await push_ref(one.bus, ref)

    run_rig(nats, scenario, work_max_items=3)


def test_a_worker_serves_no_more_at_once_than_it_has_slots(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        running, most = 0, 0
        proceed = asyncio.Event()

        async def hold(job: Job) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await proceed.wait()
            running -= 1
            await job.finish(done())

        items = [one.item() for _ in range(12)]
        async with one.worker(hold, concurrency=4):
            for item in items:
                await one.start(item)
            await eventually(lambda: running == 4, "all slots are taken")
            proceed.set()
            for item in items:
                await one.ended(item)
        assert most == 4

    run_rig(nats, scenario)


def test_everybody_may_make_the_streams_at_once_and_again(nats: Nats) -> None:
    from services.common import streams
    from services.common.config import NatsSettings
    from services.common.connection import connect

    async def one_of_many(changes: dict[str, object]) -> int:
        async with connect(NatsSettings(url=nats.url, shards=4, **changes), "maker") as bus:  # type: ignore[arg-type]
            await streams.ensure(bus)
            js = bus.client.jetstream()
            return int((await js.stream_info(subjects.WORK_STREAM)).config.max_msgs or 0)

    async def main() -> None:
        assert set(await asyncio.gather(*(one_of_many({}) for _ in range(8)))) == {10_000}
        assert await one_of_many({"work_max_items": 77}) == 77

    asyncio.run(main())


def test_every_worker_tells_what_it_holds(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        heard: dict[str, Holdings] = {}

        async def on_holdings(message: Msg) -> None:
            holdings = codec.decode(message.data, Holdings)
            heard[holdings.stage] = holdings

        item = one.item(stage="generate")
        async with (
            one.worker(_give_up_forever, "generate", drain_s=0.0, ack_wait_s=30.0) as busy,
            one.worker(retrieve),
        ):
            await one.start(item)
            await one.bus.subscribe("heard", on_holdings)

            async def both() -> bool:
                await one.bus.publish(subjects.INVENTORY, b"", "heard")
                return len(heard) == 2 and heard["generate"].total == 1

            await eventually(both, "both have answered, and one holds the item")
            assert heard["retrieve"].items == []
            (held,) = heard["generate"].items
            assert (held.key, held.request_id, held.seq, held.deliveries) == (item.key, item.request_id, 0, 1)
            assert heard["generate"].worker == busy.bus.name

    run_rig(nats, scenario)


def test_an_item_past_its_deadline_ends_its_log_and_no_handler_sees_it(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        seen: list[Job] = []

        async def see(job: Job) -> None:
            seen.append(job)
            await job.finish(done())

        item = one.item(stage="generate", deadline_ms=now_ms() - 1)
        await one.start(item)
        async with one.worker(see, "generate"):
            last = (await one.ended(item))[-1]
        assert isinstance(last, Error)
        assert last.code == "deadline"
        assert seen == []

    run_rig(nats, scenario)


def test_a_holder_that_stood_still_writes_nothing_when_it_wakes_though_nobody_has_written_meanwhile(
    nats: Nats,
) -> None:
    async def stand_still(job: Job) -> None:
        if not job.written:
            await job.write(AnswerChunk(content="before "))
            await job.flush()
            time.sleep(1.8)  # noqa: ASYNC251 - the whole process stands still, for longer than its lease
            await job.write(AnswerChunk(content="woken "))
            await job.flush()
        await job.write(AnswerChunk(content="after"))
        await job.finish(done())

    async def scenario(one: Rig) -> None:
        async with one.worker(stand_still, ack_wait_s=2.0):
            item = one.item()
            await one.start(item)
            assert text(list(await one.ended(item))) == "before after"

    run_rig(nats, scenario)


def test_a_drain_ends_though_a_cancellation_was_swallowed(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `asyncio.wait_for` of Python 3.11 does with one that comes as its future ends."""

    async def scenario(one: Rig) -> None:
        async with one.worker(retrieve) as worker:
            client, flushing = worker.bus.client, asyncio.Event()
            really = client.flush

            async def flush(*_: object, **__: object) -> None:
                monkeypatch.setattr(client, "flush", really)
                flushing.set()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)

            monkeypatch.setattr(client, "flush", flush)
            # It takes itself for frozen, and asks the server what has come meanwhile.
            puller = worker.worker._puller
            await eventually(lambda: puller._open, "it has asked for work")
            puller._beat_at -= 60
            async with asyncio.timeout(20):
                await flushing.wait()
            async with asyncio.timeout(20):  # before the minute of `flush` is over
                await worker.stop()

    run_rig(nats, scenario)
