"""Who is alive: workers announce themselves, everybody else keeps a table of what was heard lately."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

from nats.aio.msg import Msg

from baton_proto import codec, subjects
from baton_proto.messages import PRESENCE_INTERVAL_MS, PRESENCE_TTL_MS, Announcement, ToolSpec, WorkItem

from .bus import Bus, end_tasks

log = logging.getLogger(__name__)

MAX_WORKERS = 10_000
ECHO_EVERY_S = 0.5
ECHO_LATE_S = 1.5
"""Well below `PRESENCE_TTL_MS`: an outage must be noticed before what was heard last is forgotten."""


def queue_of(announcement: Announcement) -> str:
    """The queue from which a worker takes its work."""
    return subjects.queue_name(announcement.stage, announcement.variant)


async def announce(bus: Bus, current: Callable[[], Announcement]) -> None:
    """Say who we are every second, and at once when somebody takes a census. Runs until cancelled."""
    asked = asyncio.Event()

    async def on_census(_: Msg) -> None:
        asked.set()

    await bus.subscribe(subjects.CENSUS, on_census)
    while True:
        asked.clear()
        announcement = current()
        await bus.publish(subjects.presence_subject(queue_of(announcement)), codec.encode(announcement))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PRESENCE_INTERVAL_MS / 1000):
                await asked.wait()


class Presence:
    """The workers heard of within `PRESENCE_TTL_MS`. Open it with `watch`.

    Silence means absence only to one who could have heard: after the connection was away, what was known before it
    stands until we have listened for that time again.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[tuple[str, str], tuple[float, Announcement]] = {}
        self._queues: set[str] = set()
        self._since = clock()

    @property
    def settled(self) -> bool:
        """Whether it has listened long enough for silence to mean absence."""
        return self._clock() - self._since >= PRESENCE_TTL_MS / 1000

    def deaf(self) -> None:
        """We could not have heard anybody until now."""
        self._since = self._clock()

    def hear(self, announcement: Announcement) -> None:
        queue = queue_of(announcement)
        key = (queue, announcement.worker)
        if len(self._queues) < MAX_WORKERS:
            self._queues.add(queue)
        if announcement.draining:
            self._heard.pop(key, None)
        elif key in self._heard or len(self._heard) < MAX_WORKERS:
            self._heard[key] = (self._clock(), announcement)

    def live(self, queue: str) -> list[Announcement]:
        """The live workers of a queue."""
        return [one for name, one in self._current() if name == queue]

    def gone(self, queue: str) -> bool:
        """Whether there were workers of a queue, and none is alive now."""
        return queue in self._queues and not self.live(queue)

    def counts(self) -> dict[str, int]:
        """How many workers of each queue are alive."""
        return dict(Counter(queue for queue, _ in self._current()))

    def slots(self) -> dict[str, int]:
        """How many items the live workers of each queue hold at most, all together."""
        slots: Counter[str] = Counter()
        for queue, one in self._current():
            slots[queue] += one.slots
        return dict(slots)

    def tools(self, item: WorkItem | None = None) -> dict[str, list[ToolSpec]]:
        """The tools that live workers serve, by stage: tools workers, and retrievers, which can search again. Of two
        tools of one name in a stage the first counts.

        Args:
            item: whose calls they would serve: only workers of its variants count, and without it, those of none.
        """
        found: dict[str, dict[str, ToolSpec]] = {}
        for queue, one in self._current():
            variant = subjects.variant_at(item, one.stage) if item else ""
            if one.tools and queue == subjects.queue_name(one.stage, variant):
                by_name = found.setdefault(one.stage, {})
                for tool in one.tools:
                    by_name.setdefault(tool.name, tool)
        return {stage: list(by_name.values()) for stage, by_name in sorted(found.items())}

    def _current(self) -> list[tuple[str, Announcement]]:
        """The live workers, each with its queue."""
        if self.settled:
            oldest = self._clock() - PRESENCE_TTL_MS / 1000
            self._heard = {key: heard for key, heard in self._heard.items() if heard[0] >= oldest}
        return [(queue, announcement) for (queue, _), (_, announcement) in sorted(self._heard.items())]


@contextlib.asynccontextmanager
async def watch(bus: Bus, clock: Callable[[], float] = time.monotonic) -> AsyncIterator[Presence]:
    """A presence table that fills at once: a census is taken at the start, and when the connection was away."""
    presence = Presence(clock)

    async def on_announcement(message: Msg) -> None:
        try:
            presence.hear(codec.decode(message.data, Announcement))
        except codec.WireError as error:
            log.warning("unreadable announcement on %s: %s", message.subject, error)

    echo = _Echo(bus)
    subscriptions = [
        await bus.subscribe(f"{subjects.PREFIX}.workers.>", on_announcement),
        await bus.subscribe(echo.inbox, echo.on_message),
    ]
    await bus.publish(subjects.CENSUS, b"")
    noticing = asyncio.create_task(echo.notice_outages(presence), name="presence")
    try:
        yield presence
    finally:
        await end_tasks(noticing)
        for subscription in subscriptions:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()


class _Echo:
    """Whoever does not hear himself hears nobody: the connection is away, the server hangs although the connection
    seems well, or this process stood still."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.inbox = bus.client.new_inbox()
        self._heard = time.monotonic()

    async def on_message(self, _: Msg) -> None:
        self._heard = time.monotonic()

    async def notice_outages(self, presence: Presence) -> None:
        """Tell `presence` while nobody can be heard. Runs until cancelled."""
        reconnects = self._bus.reconnects
        while True:
            await self._bus.publish(self.inbox, b"")
            await asyncio.sleep(ECHO_EVERY_S)
            if time.monotonic() - self._heard > ECHO_LATE_S:
                presence.deaf()
            if self._bus.reconnects != reconnects:
                reconnects = self._bus.reconnects
                presence.deaf()
                await self._bus.publish(subjects.CENSUS, b"")
