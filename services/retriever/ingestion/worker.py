"""The ingest worker around what is done with a file: pulls items, keeps them renewed, drains in order."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import time

from baton_proto import codec, subjects
from baton_proto.messages import IngestItem
from services.common import metrics, streams
from services.common.bus import Bus, Full, Unconfirmed, end_tasks
from services.common.config import IngestSettings
from services.common.errors import ServiceError
from services.common.files import Files
from services.common.queue import Delivery, Lease, Puller
from services.common.taking import note_return, returned

from .busy import Busy
from .handling import Handling, NotYet
from .sweep import sweep, sweep_chunks
from .telling import LeaseLost

log = logging.getLogger(__name__)

PAUSE_S = 0.3
"""Without a file for so long, the worker rests: the store is tidied up."""
REST_AGAIN_S = 5.0
LATER_S = (1.0, 2.0, 5.0, 10.0)
"""Pauses before a file is tried again that could not be dealt with; the last one goes on."""
SWEEP_EVERY_S = 600.0
CHUNKS_EVERY = 36
"""So many sweeps to one that looks for pieces of objects: that reads what is known of every document."""
COUNT_EVERY_S = 5.0
GIVEN_BACK_S = 5.0


class IngestWorker:
    """Takes files from the queue until `stop`."""

    def __init__(self, bus: Bus, handling: Handling, busy: Busy, settings: IngestSettings) -> None:
        self._bus = bus
        self._handling = handling
        self._busy = busy
        self._settings = settings
        self._files = Files(bus)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._draining = False
        self._puller = Puller(
            bus, subjects.INGEST_STREAM, subjects.INGEST_CONSUMER, self._free, self._take, self._make_consumer
        )

    async def run(self, stop: asyncio.Event, drain_s: float) -> None:
        """Serve until `stop` is set, then drain: take nothing more, finish within `drain_s`, give back the rest, tidy
        up."""
        await self._make_consumer()
        background = [
            asyncio.create_task(self._puller.run(), name="pull"),
            asyncio.create_task(self._rest_in_pauses(), name="rest"),
            asyncio.create_task(self._sweep(), name="sweep"),
            asyncio.create_task(self._count(), name="count"),
        ]
        stopping = asyncio.create_task(stop.wait(), name="stop")
        log.info("taking files as %s", self._bus.name)
        try:
            done, _ = await asyncio.wait([*background, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()  # none returns by itself: this raises what went wrong
        finally:
            stopping.cancel()
            background[0].cancel()
            await self._drain(drain_s)
            await end_tasks(*background, stopping)
            await self._busy.close()

    async def _make_consumer(self) -> None:
        await streams.ensure_ingest_consumer(self._bus, self._settings.ack_wait_s)

    def _free(self) -> int:
        return 0 if self._draining else self._settings.concurrency - len(self._tasks)

    async def _drain(self, drain_s: float) -> None:
        await self._puller.stop()
        self._draining = True
        if self._tasks:
            log.info("draining %d files, %g s at most", len(self._tasks), drain_s)
            await asyncio.wait(self._tasks, timeout=drain_s)
        left = set(self._tasks)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=GIVEN_BACK_S)

    def _take(self, message: Delivery, since: float) -> None:
        task = asyncio.create_task(self._serve(message, since))
        self._tasks.add(task)
        metrics.WORK_RUNNING.set(len(self._tasks))
        task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        metrics.WORK_RUNNING.set(len(self._tasks))
        self._ended.set()
        self._puller.wake()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a file broke the ingest worker's own code", exc_info=error)

    async def _serve(self, message: Delivery, since: float) -> None:
        """One delivery, from taking it to settling it."""
        started = time.monotonic()
        lease = Lease(self._bus, message, self._settings.ack_wait_s, since)
        if not lease.held:
            log.warning("a file came too late: it belongs to somebody else by now")
            return
        renewing = asyncio.create_task(lease.renew_forever())
        try:
            outcome = await self._deliver(message, lease)
        finally:
            lease.stop()
            renewing.cancel()
        metrics.INGEST_FILES.labels(outcome).inc()
        metrics.INGEST_SECONDS.observe(time.monotonic() - started)

    async def _deliver(self, message: Delivery, lease: Lease) -> str:
        try:
            item = codec.decode(message.data, IngestItem)
        except codec.WireError as error:
            log.error("an unreadable item of the ingest queue is dropped: %s", error)
            await lease.acknowledge()
            return "unreadable"
        working = asyncio.ensure_future(self._dealt_with(item, lease))
        losing = asyncio.create_task(lease.lost.wait())
        try:
            await asyncio.wait([working, losing], return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                await end_tasks(working)
                log.warning("%s was lost to another worker", item.name)
                return "lost"
            return working.result()
        except asyncio.CancelledError:
            await end_tasks(working)
            await self._give_back(item, lease)
            return "given_back"
        finally:
            losing.cancel()

    async def _dealt_with(self, item: IngestItem, lease: Lease) -> str:
        try:
            lost = await self._lost(item, lease)
            outcome = await self._handling.handle(item, lambda: lease.held, lost, lease.deliveries > 1)
        except (NotYet, ServiceError) as error:
            log.warning("%s waits: %s", item.name, error)
            await self._later(item, lease)
            return "later"
        except (Unconfirmed, Full) as error:
            log.warning("NATS did not store what is known of %s: %s", item.name, error)
            await self._later(item, lease)
            return "later"
        except LeaseLost:
            log.warning("%s was lost to another worker", item.name)
            return "lost"
        await lease.acknowledge()
        return outcome

    async def _lost(self, item: IngestItem, lease: Lease) -> int:
        """How many holders of an item were lost: all that had it before, less those who gave it back in good order."""
        before = lease.deliveries - 1
        if before < self._settings.max_deliveries:
            return before
        return before - await returned(self._bus, item.upload, 0)

    async def _note_return(self, item: IngestItem) -> None:
        await note_return(self._bus, item.upload, 0, await returned(self._bus, item.upload, 0) + 1)

    async def _later(self, item: IngestItem, lease: Lease) -> None:
        """Let an item wait in the queue, without holding it against the file."""
        with contextlib.suppress(Unconfirmed, Full):
            await self._note_return(item)
        pause = LATER_S[min(lease.deliveries, len(LATER_S)) - 1]
        await lease.give_back(pause * random.uniform(0.8, 1.2))

    async def _give_back(self, item: IngestItem, lease: Lease) -> None:
        """This process ends before the file is done: somebody else may begin with it at once."""
        try:
            await self._handling.give_back(item, "")
            await self._note_return(item)
        except (Unconfirmed, Full) as error:
            log.warning("%s is left to its next delivery: %s", item.name, error)
        await lease.give_back()

    async def _rest_in_pauses(self) -> None:
        while True:
            await self._ended.wait()
            self._ended.clear()
            while not self._tasks and self._busy.changing:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PAUSE_S):
                        await self._ended.wait()
                if self._tasks or self._ended.is_set():
                    break
                try:
                    await self._busy.rest()
                except ServiceError as error:
                    log.warning("the documents cannot be tidied up yet: %s", error)
                    await asyncio.sleep(REST_AGAIN_S)

    async def _sweep(self) -> None:
        for number in itertools.count():
            try:
                await sweep(self._files, self._bus)
                if number % CHUNKS_EVERY == 0:
                    await sweep_chunks(self._bus)
            except (Unconfirmed, Full) as error:
                log.debug("not swept: %s", error)
            await asyncio.sleep(SWEEP_EVERY_S * random.uniform(0.8, 1.2))

    async def _count(self) -> None:
        while True:
            with contextlib.suppress(Unconfirmed):
                state = await self._bus.stream_state(subjects.INGEST_STREAM)
                metrics.INGEST_WAITING.set(int(state.get("messages", 0)))
            await asyncio.sleep(COUNT_EVERY_S)
