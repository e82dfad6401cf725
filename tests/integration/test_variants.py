"""Two versions of a worker side by side: who serves what, and what happens when one of them goes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from baton_proto.messages import AnswerChunk, Done, LogFrame, Sources, Status, Timings, Usage, WorkItem
from services.common.job import Handler, Job
from services.common.presence import watch
from services.common.streams import ensure_consumer
from services.gateway.mover import Mover
from tests.golden import previous
from tests.measured import measured
from tests.rig import Rig, run_rig
from tests.servers.nats import Nats
from tests.servers.processes import ROOT, eventually, running
from tests.system import start, system, workers_alive


def answers_as(name: str) -> Handler:
    """A handler that says its name, and the variant that its item has by then."""

    async def answer(job: Job) -> None:
        await job.write(AnswerChunk(content=name))
        said = job.item.variant or None
        await job.finish(
            Done(finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=Timings(), variant=said)
        )

    return answer


async def never(job: Job) -> None:
    await job.write(AnswerChunk(content="b begins. "))
    await asyncio.sleep(3600)


@contextlib.asynccontextmanager
async def moving(one: Rig) -> AsyncIterator[None]:
    async with watch(one.bus) as presence:
        task = asyncio.create_task(Mover(one.bus, presence).run())
        try:
            yield
        finally:
            task.cancel()


def said(frames: list[LogFrame]) -> tuple[str, str | None]:
    text = "".join(frame.content for frame in frames if isinstance(frame, AnswerChunk))
    done = frames[-1]
    assert isinstance(done, Done)
    return text, done.variant


def varied(one: Rig) -> WorkItem:
    return one.item(stage="generate", variant="b", varied=["generate"])


def test_each_variant_serves_its_own_items_and_a_hand_over_keeps_to_it(nats: Nats) -> None:
    async def hand_on(job: Job) -> None:
        await job.hand_over(Sources(sources=[]), msgspec.structs.replace(job.item, stage="generate"))

    async def scenario(one: Rig) -> None:
        async with (
            one.worker(hand_on, "retrieve"),
            one.worker(answers_as("a"), "generate"),
            one.worker(answers_as("b"), "generate", variant="b"),
        ):
            plain = one.item()
            tries = one.item(variant="b", varied=["generate"])
            for item in (plain, tries):
                await one.start(item)
            assert said(await one.ended(plain)) == ("a", None)
            assert said(await one.ended(tries)) == ("b", "b")

    run_rig(nats, scenario)


def test_a_tools_worker_that_is_called_a_variant_leaves_an_item_its_own(nats: Nats) -> None:
    async def run(job: Job) -> None:
        await job.hand_over(Status(stage="tool", content="done"), msgspec.structs.replace(job.item, stage="generate"))

    async def scenario(one: Rig) -> None:
        async with (
            one.worker(run, "tools.default", variant="c") as tools,
            one.worker(answers_as("b"), "generate", variant="b"),
        ):
            assert tools.worker.announcement().variant == ""
            item = one.item(stage="tools.default", variant="b", varied=["generate"])
            await one.start(item)
            assert said(await one.ended(item)) == ("b", "b")

    run_rig(nats, scenario)


def test_an_item_of_a_variant_that_comes_to_the_others_is_theirs(nats: Nats) -> None:
    """Whoever handed it over did not know variants."""

    async def scenario(one: Rig) -> None:
        async with one.worker(answers_as("a"), "generate"):
            item = varied(one)
            ref = await one.start(item, push=False)
            await one.bus.push_work(
                "generate", msgspec.msgpack.encode(msgspec.structs.replace(ref, variant="")), f"{ref.key}.0"
            )
            assert said(await one.ended(item)) == ("a", None)

    run_rig(nats, scenario)


def test_a_worker_of_the_version_before_leaves_an_item_its_variant(nats: Nats, tmp_path: Path) -> None:
    root = previous()
    env = {
        "BATON_NATS_URL": nats.url,
        "BATON_LOG_SHARDS": "4",
        "BATON_RETRIEVER": "instant_retriever:open_retriever",
        "PYTHONPATH": os.pathsep.join(map(str, (root, root / "proto", ROOT / "bench"))),
    }

    async def scenario(one: Rig) -> None:
        async with one.worker(answers_as("a"), "generate"), one.worker(answers_as("b"), "generate", variant="b"):
            item = one.item(variant="b", varied=["generate"])
            await one.start(item)
            frames = await one.ended(item)
        assert said(frames) == ("a", None), "it knows one queue of a stage"
        handed_over = [frame.handoff.item for frame in frames if frame.handoff is not None][-1]
        assert handed_over is not None
        kept = {name: handed_over.get(name) for name in ("stage", "variant", "varied")}
        assert kept == {"stage": "generate", "variant": "b", "varied": ["generate"]}

    with running([sys.executable, "-m", "services.retriever"], tmp_path / "retriever.log", env, root):
        run_rig(nats, scenario)


def test_what_nobody_has_taken_goes_to_the_others_when_a_variant_is_gone(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        def moved() -> float:
            return measured("baton_moved_items_total", stage="generate", variant="b")

        before = moved()
        async with moving(one), one.worker(answers_as("a"), "generate"):
            async with one.worker(answers_as("b"), "generate", variant="b"):
                first = varied(one)
                await one.start(first)
                assert said(await one.ended(first)) == ("b", "b")
            late = varied(one)
            await one.start(late)
            assert said(await one.ended(late)) == ("a", None)
            await one.settled()
            # It is counted when the server has confirmed that the old reference is gone: a moment after it is.
            await eventually(lambda: moved() > before, "the move is counted")
        assert moved() == before + 1

    run_rig(nats, scenario)


def test_an_answer_goes_on_that_the_last_worker_of_a_variant_has_begun(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        async with moving(one), one.worker(answers_as("a ends."), "generate"):
            item = varied(one)
            async with one.worker(never, "generate", variant="b", ack_wait_s=30.0) as doomed:
                await one.start(item)
                await eventually(lambda: _has_text(one, item), "it has begun")
                await doomed.die()
                await ensure_consumer(one.bus, "generate.b", 2.0, 1)  # now is soon enough
                assert said(await one.ended(item)) == ("b begins. a ends.", None)
            await one.settled()

    run_rig(nats, scenario)


async def _has_text(one: Rig, item: WorkItem) -> bool:
    return any(isinstance(frame, AnswerChunk) for frame in await one.frames(item))


def test_what_a_worker_that_goes_away_still_holds_it_finishes(nats: Nats) -> None:
    async def scenario(one: Rig) -> None:
        go = asyncio.Event()

        async def slowly(job: Job) -> None:
            await go.wait()
            await answers_as("b")(job)

        async with watch(one.bus) as presence, one.worker(answers_as("a"), "generate"):
            mover = Mover(one.bus, presence)
            item = varied(one)
            async with one.worker(slowly, "generate", variant="b", drain_s=60.0, ack_wait_s=30.0) as leaving:
                await one.start(item)
                await eventually(lambda: leaving.worker.running == 1, "it is held")
                stopping = asyncio.create_task(leaving.stop())
                await eventually(lambda: not presence.live("generate.b"), "it is going away")
                await eventually(lambda: presence.settled, "silence means absence")
                await mover._look()
                go.set()
                await stopping
            assert said(await one.ended(item)) == ("b", "b")

    run_rig(nats, scenario)


def test_a_share_of_the_conversations_tries_a_variant_until_it_is_gone(tmp_path: Path) -> None:
    shares = {"BATON_VARIANTS": "b=50"}
    with system(tmp_path, replicas={"tools": 0}, settings=shares) as one:
        with start(one, "generator", 1, BATON_VARIANT="b"):

            async def ask_all() -> dict[str, set[str | None]]:
                await eventually(lambda: workers_alive(one.gateways[0]).get("generate.b") == 1, "b is there", 60)
                found: dict[str, set[str | None]] = {}
                for number in range(8):
                    for _ in range(2):
                        conversation = f"conv-{number}"
                        frames = await one.ask_async("How many days of leave?", conversation_id=conversation)
                        assert frames[-1]["type"] == "done", frames[-1]
                        assert frames[0].get("variant") == frames[-1].get("variant")
                        assert ("variant=b" in frames[-1]["fingerprint"]) == (frames[-1].get("variant") == "b")
                        found.setdefault(conversation, set()).add(frames[-1].get("variant"))
                return found

            tried = asyncio.run(ask_all())
            assert all(len(variants) == 1 for variants in tried.values()), "a conversation keeps to its variant"
            assert {variant for variants in tried.values() for variant in variants} == {None, "b"}
            told = one.metrics()
            for variant in ("b", "none"):
                assert f'baton_variant_requests_total{{outcome="stop",variant="{variant}"}} 0' not in told
            assert 'baton_variant_seconds_count{measure="ttft",variant="b"}' in told
            assert 'baton_variant_share_ratio{variant="b"} 0.5' in told

        async def ask_without() -> None:
            await eventually(lambda: "generate.b" not in workers_alive(one.gateways[0]), "b has left", 60)
            for conversation in tried:
                frames = await one.ask_async("How many days of leave?", conversation_id=conversation)
                assert (frames[-1]["type"], frames[-1].get("variant")) == ("done", None)

        asyncio.run(ask_without())
