"""What is read from NATS for the metrics, every few seconds: how much work waits, how full the streams are, and who is
there to work."""

from __future__ import annotations

import asyncio
import logging
import random

from baton_proto import subjects
from services.common import metrics
from services.common.bus import Bus, Unconfirmed
from services.common.presence import Presence
from services.common.waiting import undelivered

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
SHARES = 6
"""In each look only one log stream in so many is asked for its state: there may be hundreds, and as many gateways."""
MAX_QUEUES = 50
_BOUNDED = {"work": subjects.WORK_STREAM, "waiting": subjects.WAITING_STREAM, "ingest": subjects.INGEST_STREAM}


class Gauges:
    """Every gateway reads them all, so that one is enough and none is needed.

    One that NATS does not tell keeps its last value; `baton_nats_connected` says that it is old.
    """

    def __init__(self, bus: Bus, presence: Presence) -> None:
        self._bus = bus
        self._presence = presence
        self._queues = {subjects.RETRIEVE, subjects.GENERATE}
        self._logs: dict[int, float] = {}
        self._looks = 0

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                self.see_workers()
                await self.look()
            except Unconfirmed as error:
                log.info("nothing new is known of the streams: %s", error)
            except Exception:
                log.exception("the gauges stumbled")
            await asyncio.sleep(LOOK_EVERY_S * random.uniform(0.8, 1.2))

    def see_workers(self) -> None:
        """A queue that has lost its last worker is told as 0, not left out."""
        live, slots = self._presence.counts(), self._presence.slots()
        self._queues.update(list(live)[: MAX_QUEUES - len(self._queues)])
        for queue in self._queues:
            metrics.WORKERS.labels(queue).set(live.get(queue, 0))
            metrics.SLOTS.labels(queue).set(slots.get(queue, 0))

    async def look(self) -> None:
        """Raises Unconfirmed."""
        for queue, count in (await undelivered(self._bus, self._queues)).items():
            metrics.QUEUED.labels(queue).set(count)
        for name, stream in _BOUNDED.items():
            metrics.FILL.labels(name).set(await self._fill(stream))
        for shard in range(self._looks % SHARES, self._bus.settings.shards, SHARES):
            self._logs[shard] = await self._fill(subjects.log_stream(shard))
        self._looks += 1
        metrics.FILL.labels("log").set(max(self._logs.values(), default=0.0))
        metrics.SET_ASIDE.set((await self._bus.stream_state(subjects.DEAD_STREAM)).get("messages", 0))

    async def _fill(self, stream: str) -> float:
        """The larger share of the stream's limits, in messages or bytes."""
        info = await self._bus.api(f"STREAM.INFO.{stream}")
        config, state = info.get("config", {}), info.get("state", {})
        pairs = (("max_msgs", "messages"), ("max_bytes", "bytes"))
        return max((state.get(have, 0) / config[most] for most, have in pairs if config.get(most, -1) > 0), default=0.0)
