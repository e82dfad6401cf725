"""What is kept of a request when its log has gone, on a real nats-server."""

from __future__ import annotations

import asyncio

import pytest
from nats.js.api import DiscardPolicy, KeyValueConfig

from baton_proto import subjects
from baton_proto.messages import (
    AnswerChunk,
    AnswerReset,
    Done,
    Error,
    LogFrame,
    Source,
    Sources,
    StoredAnswer,
    Timings,
    Usage,
)
from services.common.config import NatsSettings
from services.common.connection import connect
from services.common.endings import end_log, record_end, stored_answer, summary
from services.common.errors import ServiceError
from services.common.job import Job
from services.common.log import push_ref
from tests.rig import Rig, rig, run_rig
from tests.servers.nats import Nats
from tests.servers.processes import eventually

SOURCE = Source(n=1, id="p", document_id="d", title="t", url="/documents/d", snippet="s", score=1.0)
DONE = Done(finish_reason="stop", cited=[1], citations=[], usage=Usage(), timings=Timings())


async def answering(job: Job) -> None:
    for frame in (Sources(sources=[SOURCE]), AnswerChunk(content="ten "), AnswerChunk(content="days [1]")):
        await job.write(frame)
    await job.finish(DONE)


async def failing(_: Job) -> None:
    raise ServiceError("model_failed", "no")


async def _kept(one: Rig, key: str) -> StoredAnswer:
    async def there() -> bool:
        return await stored_answer(one.bus, key) is not None

    await eventually(there, "the answer is kept")
    found = await stored_answer(one.bus, key)
    assert found is not None
    return found


def test_an_answer_outlives_its_log(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        item = one.item(stage="generate")
        async with one.worker(answering, "generate"):
            await one.start(item)
            await one.ended(item)
            kept = await _kept(one, item.key)
        js = one.bus.client.jetstream()
        await js.purge_stream(subjects.log_stream(item.shard))
        assert (kept.answer, kept.sources, kept.finish_reason) == ("ten days [1]", [SOURCE], "stop")
        assert (kept.request_id, kept.conversation_id) == (item.request_id, "c")
        assert await stored_answer(one.bus, item.key) == kept

    run_rig(nats, scenario)


def test_of_a_failed_request_only_how_it_ended_is_kept(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        item = one.item(stage="generate")
        async with one.worker(failing, "generate"):
            await one.start(item)
            kept = await _kept(one, item.key)
        assert (kept.outcome, kept.answer, kept.finish_reason) == ("model_failed", None, None)

    run_rig(nats, scenario)


def test_an_answer_whose_holder_died_before_keeping_it_is_kept_by_the_next_delivery(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        item = one.item(stage="generate")
        ref = await one.start(item, push=False)
        tail = await one.bus.tail(one.bus.address(item.key))
        assert tail is not None
        await one.append(item, AnswerChunk(content="late"), DONE, next_seq=1, last=tail.stream_seq)
        await push_ref(one.bus, ref)
        async with one.worker(answering, "generate"):
            assert (await _kept(one, item.key)).answer == "late"
            assert await one.settled()

    run_rig(nats, scenario)


def test_whoever_ends_an_abandoned_log_keeps_it(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        item = one.item()
        await one.start(item)
        error = Error(code="no_worker", message="nobody", retryable=True)
        assert await end_log(one.bus, one.bus.address(item.key), item.request_id, error)
        assert (await _kept(one, item.key)).outcome == "no_worker"
        await record_end(one.bus, one.bus.address(item.key))  # harmless

    run_rig(nats, scenario)


def test_a_log_that_runs_is_not_recorded(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        item = one.item()
        await one.start(item)
        await record_end(one.bus, one.bus.address(item.key))
        assert await stored_answer(one.bus, item.key) is None

    run_rig(nats, scenario)


@pytest.mark.parametrize(
    ("frames", "answer"),
    [
        ([AnswerChunk(content="a"), AnswerReset(), AnswerChunk(content="b"), DONE], "b"),
        ([DONE], ""),
    ],
)
def test_the_kept_text_is_what_a_client_would_have(frames: list[LogFrame], answer: str) -> None:
    assert summary("r", frames).answer == answer


def test_a_bucket_of_answers_that_the_client_library_made_is_changed_to_ours(nats: Nats) -> None:
    """As version 0.1 made it before answers were kept: it refused what is new where it was full."""

    async def main() -> None:
        async with connect(NatsSettings(url=nats.url), "before") as bus:
            js = bus.client.jetstream()
            await js.create_key_value(KeyValueConfig(bucket=subjects.ANSWERS_BUCKET, ttl=60, max_bytes=1024 * 1024))
        async with asyncio.timeout(60), rig(nats.url) as one:
            config = (await one.bus.client.jetstream().stream_info(f"KV_{subjects.ANSWERS_BUCKET}")).config
            assert config.discard == DiscardPolicy.OLD
            assert config.max_age == one.settings.answers_max_age_s

    asyncio.run(main())
