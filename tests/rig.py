"""A bus on a real nats-server, requests made by hand, and workers in this process: for tests of the log's rules."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from baton_proto import subjects
from baton_proto.messages import Accepted, LogFrame, WorkItem, WorkRef
from baton_proto.sequencer import Sequencer
from services.common import streams
from services.common.bus import Bus, Unconfirmed
from services.common.clock import now_ms
from services.common.config import NatsSettings, WorkerSettings
from services.common.connection import connect
from services.common.job import Handler
from services.common.log import LogWriter, make_handoff, push_ref, read_log, ref_to
from services.common.worker import Worker
from tests.servers.nats import Nats
from tests.servers.processes import PATIENCE_S, eventually


class Rig:
    def __init__(self, bus: Bus, settings: NatsSettings) -> None:
        self.bus = bus
        self.settings = settings

    def item(self, **changes: Any) -> WorkItem:
        request_id = secrets.token_hex(6)
        key = subjects.request_key("tester", request_id)
        at = self.bus.address(key)
        now = now_ms()
        item = WorkItem(
            stage="retrieve",
            key=key,
            shard=at.shard,
            request_id=request_id,
            owner="tester",
            query="q",
            language="en",
            received_ms=now,
            queued_ms=now,
            deadline_ms=now + 60_000,
            conversation_id="c",
        )
        return msgspec.structs.replace(item, **changes)

    async def append(self, item: WorkItem, *frames: LogFrame, next_seq: int = 0, last: int = 0) -> int:
        """Append frames to the item's log as some earlier holder; returns the stream sequence."""
        sequencer = Sequencer(item.request_id, "somebody", next_seq=next_seq, last=last)
        async with LogWriter(self.bus, self.bus.address(item.key), sequencer) as writer:
            for frame in frames:
                await writer.write(frame)
            await writer.flush()
        return sequencer.last

    async def start(self, item: WorkItem, *, push: bool = True) -> WorkRef:
        """What the gateway does with a query: `accepted` with the hand-off, then the work reference."""
        await self.append(item, Accepted(conversation_id="c", handoff=await make_handoff(self.bus, item, 0)))
        ref = ref_to(item, 0)
        while push:
            try:
                await push_ref(self.bus, ref)
            except Unconfirmed:  # NATS is away, or elects a leader
                await asyncio.sleep(0.1)
            else:
                push = False
        return ref

    async def frames(self, item: WorkItem) -> list[LogFrame]:
        position = await read_log(self.bus, self.bus.address(item.key))
        return position.frames if position else []

    async def ended(self, item: WorkItem, within_s: float = PATIENCE_S) -> list[LogFrame]:
        """The frames of the item's log once it has its terminal frame; checks that `seq` counts from 0."""
        frames: list[LogFrame] = []

        async def terminal() -> bool:
            nonlocal frames
            try:
                frames = await self.frames(item)
            except Unconfirmed:  # NATS is away
                return False
            return bool(frames) and frames[-1].__struct_config__.tag in ("done", "error")

        try:
            await eventually(terminal, f"the log of {item.request_id} has ended", within_s)
        except AssertionError as error:
            error.add_note(f"its frames: {frames}")
            raise
        assert [frame.seq for frame in frames] == list(range(len(frames)))
        return frames

    async def queued(self) -> int:
        """Work items that nobody has acknowledged yet."""
        state = await self.bus.stream_state(subjects.WORK_STREAM)
        return int(state.get("messages", -1))

    async def settled(self, within_s: float = PATIENCE_S) -> bool:
        """Wait until the queue is empty."""

        async def empty() -> bool:
            try:
                return await self.queued() == 0
            except Unconfirmed:  # NATS is away
                return False

        await eventually(empty, "the queue is empty", within_s)
        return True

    @contextlib.asynccontextmanager
    async def worker(
        self,
        handler: Handler,
        stage: str = "retrieve",
        *,
        name: str = "",
        url: str = "",
        drain_s: float = 5.0,
        variant: str = "",
        **settings: Any,
    ) -> AsyncIterator[RunningWorker]:
        """A worker with a connection of its own, to `url` if it is given. Where its items are to go to another one soon
        after it was lost, give `ack_wait_s`: a short one is also lost where this process stands still for a second."""
        nats = dataclasses.replace(self.settings, url=url or self.settings.url)
        async with connect(nats, name or f"worker-{secrets.token_hex(3)}") as bus:
            worker = Worker(bus, stage, handler, WorkerSettings(**{"ack_wait_s": 10.0, **settings}), variant=variant)
            running = RunningWorker(bus, worker, drain_s)
            try:
                yield running
            finally:
                await running.stop()


class RunningWorker:
    def __init__(self, bus: Bus, worker: Worker, drain_s: float) -> None:
        self.bus = bus
        self.worker = worker
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(worker.run(self._stop, drain_s))

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.gather(self._task, return_exceptions=True)

    async def die(self) -> None:
        """Vanish as a killed process does: nothing is settled, nothing is said."""
        self._task.cancel()
        for task in list(self.worker._tasks):
            task.cancel()
        with contextlib.suppress(Exception):
            await self.bus.client.close()


@contextlib.asynccontextmanager
async def rig(url: str, **changes: Any) -> AsyncIterator[Rig]:
    settings = NatsSettings(**{"url": url, "shards": 4, **changes})
    async with connect(settings, "rig") as bus, streams.kept(bus):
        yield Rig(bus, settings)


def run_rig(nats: Nats, scenario: Callable[[Rig], Awaitable[None]], **settings: Any) -> None:
    """Run a scenario on a rig of its own."""

    async def main() -> None:
        async with rig(nats.url, **settings) as one:
            await scenario(one)

    asyncio.run(main())
