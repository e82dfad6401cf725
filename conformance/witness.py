"""What passes by on NATS while a worker is tested: who settles which item, who tells which stage, who is there.

Acknowledgements and appends are plain messages before JetStream takes them, so whoever listens sees them too, refused
ones as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from baton_proto import codec, subjects
from baton_proto.messages import PRESENCE_TTL_MS, Announcement, WorkRef
from services.common.bus import Bus, Unconfirmed
from services.common.queue import Delivery

MAX_KEPT = 20_000
"""Most messages of one kind that are remembered."""
CATCH_UP_S = 5.0


@dataclass(frozen=True, slots=True)
class Settling:
    """A message to the reply subject of a work item: `+ACK`, `-NAK …` or `+WPI`."""

    what: str
    stream_seq: int
    delivery: int
    at: float


@dataclass(frozen=True, slots=True)
class Told:
    """A reference that somebody has published to a queue."""

    ref: WorkRef
    queue: str
    message_id: str


@dataclass
class Witness:
    """Listens from `watch` on. `news` wakes whoever waits for something to come true."""

    bus: Bus
    stage: str
    variant: str = ""
    """Of the worker under test; empty: none."""
    ack_wait_s: float = 0.0
    """Of the queue's consumer; 0 until it is known."""
    settlings: dict[int, list[Settling]] = field(default_factory=dict)
    told: dict[str, list[Told]] = field(default_factory=dict)
    workers: dict[str, tuple[Announcement, float]] = field(default_factory=dict)
    announced: list[tuple[Announcement, float]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    elsewhere: set[str] = field(default_factory=set)
    """Other queues whose workers were heard."""
    on_settling: dict[int, Callable[[Settling], None]] = field(default_factory=dict)
    on_told: dict[str, Callable[[Told], None]] = field(default_factory=dict)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _subscriptions: list[Any] = field(default_factory=list)

    @property
    def queue(self) -> str:
        """Where the worker takes its work from."""
        return subjects.queue_name(self.stage, self.variant)

    @property
    def presence(self) -> str:
        """Where the worker announces itself."""
        return subjects.presence_subject(self.queue)

    @property
    def consumer(self) -> str:
        """The worker's consumer with its stream, as in subjects of the JetStream API."""
        return f"{subjects.WORK_STREAM}.{subjects.work_consumer(self.queue)}"

    async def watch(self) -> None:
        consumer = self.consumer
        for subject in (f"$JS.ACK.{consumer}.>", f"$JS.ACK.*.*.{consumer}.>"):
            self._subscriptions.append(await self.bus.subscribe(subject, self._on_settling))
        self._subscriptions.append(await self.bus.subscribe(f"{subjects.PREFIX}.work.>", self._on_work))
        self._subscriptions.append(await self.bus.subscribe(f"{subjects.PREFIX}.workers.>", self._on_presence))

    async def caught_up(self) -> None:
        """Wait until all that has come by now is noted: of two subjects, what came first may be noted last."""
        with contextlib.suppress(TimeoutError):  # of a connection that was closed nothing is noted any more
            async with asyncio.timeout(CATCH_UP_S):
                while any(one.pending_msgs for one in self._subscriptions):  # noqa: ASYNC110  # nobody tells of it
                    await asyncio.sleep(0)

    def present(self) -> list[Announcement]:
        """The workers of the stage that have been heard lately and are not leaving."""
        since = time.monotonic() - PRESENCE_TTL_MS / 1000
        return [said for said, at in self.workers.values() if at > since and not said.draining]

    def others(self) -> str:
        """Of which other stages workers were heard, to be said behind that none of this one was."""
        return f"; there are workers of {', '.join(sorted(self.elsewhere))}" if self.elsewhere else ""

    async def until(self, condition: Callable[[], object], within_s: float) -> bool:
        """Wait until the condition holds; whether it did in time. What was heard last wakes it."""
        try:
            async with asyncio.timeout(within_s), self.news:
                await self.news.wait_for(condition)
        except TimeoutError:
            with contextlib.suppress(Unconfirmed):  # what came while we stood still ourselves counts, too
                await self.bus.stream_state(subjects.WORK_STREAM)
            await self.caught_up()
            return bool(condition())
        return True

    async def wake(self) -> None:
        async with self.news:
            self.news.notify_all()

    async def _on_settling(self, message: Delivery) -> None:
        # $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<left>[.…]
        parts = message.subject.split(".")
        parts = parts[parts.index(subjects.WORK_STREAM) :]
        what, delivery, seq = message.data.decode(errors="replace") or "+ACK", int(parts[2]), int(parts[3])
        settling = Settling(what, seq, delivery, time.monotonic())
        if len(self.settlings) < MAX_KEPT:
            self.settlings.setdefault(seq, []).append(settling)
        if (heard := self.on_settling.get(seq)) is not None:
            heard(settling)
        await self.wake()

    async def _on_work(self, message: Delivery) -> None:
        try:
            ref = codec.decode(message.data, WorkRef)
        except codec.WireError:
            return
        queue = message.subject.removeprefix(f"{subjects.PREFIX}.work.")
        told = Told(ref, queue, (message.headers or {}).get("Nats-Msg-Id", ""))
        if len(self.told) < MAX_KEPT:
            self.told.setdefault(ref.key, []).append(told)
        if (heard := self.on_told.get(ref.key)) is not None:
            heard(told)
        await self.wake()

    async def _on_presence(self, message: Delivery) -> None:
        if message.subject != self.presence:
            if self.bus.name.encode() not in message.data:
                self.elsewhere.add(message.subject.removeprefix(f"{subjects.PREFIX}.workers."))
            return
        try:
            said = codec.decode(message.data, Announcement)
        except codec.WireError as error:
            self.unreadable = [*self.unreadable[-9:], str(error)]
            return
        self.workers[said.worker] = (said, time.monotonic())
        self.announced = [*self.announced[-999:], (said, time.monotonic())]
        await self.wake()
