"""Follows one request's log and gives its frames on in order, whatever the live path loses."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Literal

from baton_proto import codec
from baton_proto.messages import Done, Error, LogEntry, LogFrame, Timings, Usage
from baton_proto.sequencer import Assembler, Gap
from baton_proto.subjects import LogAddress
from services.common import metrics
from services.common.bus import Bus, Stored, Unconfirmed
from services.common.clock import now_ms
from services.common.endings import end_log
from services.common.errors import no_worker
from services.common.holding import DEADLINE
from services.common.presence import Presence

from .observer import Observer

log = logging.getLogger(__name__)

SILENCE_S = 3.0
"""A log that has been silent for so long is read again: its last frames may have been lost on the way."""
DEADLINE_GRACE_MS = 1_500
"""How much longer than a deadline the gateway waits for the holder to keep it."""
CANCEL_GRACE_S = 1.0

Show = Callable[[LogFrame], None]


class Follower:
    """One request, followed from `next_seq` to its terminal frame.

    Frames go to `observer`, if there is one, and to `show`, which must not wait. Until `release` is called they are
    held back. `tick` is called about once a second and does what time demands.
    """

    def __init__(
        self,
        bus: Bus,
        presence: Presence,
        at: LogAddress,
        request_id: str,
        show: Show,
        *,
        next_seq: int = 0,
        observer: Observer | None = None,
    ) -> None:
        self._bus = bus
        self._presence = presence
        self.at = at
        self.request_id = request_id
        self.show = show
        self._observer = observer
        self._must_read = False
        self.deadline_ms: int | None = None
        self._assembler = Assembler(next_seq)
        self._stream_seq = 0
        self._heard = time.monotonic()
        self._held: list[Stored] | None = []
        self._waiting_stage = ""
        self._absent_since: float | None = None
        self._cancel_at: float | None = None
        self._unsubscribe: Callable[[], Awaitable[None]] | None = None
        self._again = False
        self._repair: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self.over = asyncio.Event()

    @property
    def ended(self) -> bool:
        return self.over.is_set()

    @property
    def next_seq(self) -> int:
        return self._assembler.next_seq

    async def listen(self) -> None:
        """Subscribe to the live path. Raises Unconfirmed without a connection."""
        self._unsubscribe = await self._bus.follow(self.at, self._on_live)

    def attach(self) -> None:
        """The log was there before we listened: it must be read, and somebody else measures it."""
        self._must_read = True
        self._observer = None
        self.deadline_ms = None

    def release(self) -> None:
        """Let frames through."""
        held, self._held = self._held or [], None
        for stored in held:
            self._take(stored)
        if self._must_read:
            self.read_log()

    def read_log(self) -> None:
        """Fetch what the live path has not brought."""
        self._again = True
        if not self.ended and (self._repair is None or self._repair.done()):
            self._repair = asyncio.create_task(self._read_log(), name=f"read {self.at.key}")

    def cancel(self) -> None:
        """The user has cancelled: if no holder ends the log within a second, `tick` does."""
        if self._cancel_at is None:
            self._cancel_at = time.monotonic() + CANCEL_GRACE_S

    def tick(self, no_worker_s: float) -> None:
        """Read a silent log again; end one that is past its deadline, cancelled, or waits for an absent worker."""
        if self.ended or self._held is not None:
            return
        now = time.monotonic()
        if now - self._heard > SILENCE_S:
            self._heard = now
            self.read_log()
        if self._cancel_at is not None and now > self._cancel_at:
            self._end(Done(finish_reason="cancelled", cited=[], citations=[], usage=Usage(), timings=Timings()))
        elif self.deadline_ms is not None and now_ms() > self.deadline_ms + DEADLINE_GRACE_MS:
            self._end(DEADLINE)
        elif self._absent(now) > no_worker_s:
            self._end(no_worker(self._waiting_stage).frame(), only_after=self.next_seq - 1)

    async def close(self) -> None:
        """Stop following. The request itself goes on."""
        self.over.set()
        for task in (self._repair, self._ending):
            if task is not None:
                task.cancel()
        if self._unsubscribe is not None:
            await self._unsubscribe()
            self._unsubscribe = None

    def _absent(self, now: float) -> float:
        """Seconds for which the log has been waiting for a worker while none of its stage was alive."""
        if not self._waiting_stage or self._presence.live(self._waiting_stage):
            self._absent_since = None
        elif self._absent_since is None:
            self._absent_since = now
        # A gateway that has only just begun to listen cannot tell silence from absence yet.
        return now - self._absent_since if self._absent_since is not None and self._presence.settled else 0.0

    def _end(self, frame: Done | Error, only_after: int | None = None) -> None:
        if self._ending is None or self._ending.done():
            self._ending = asyncio.create_task(self._end_log(frame, only_after), name=f"end {self.at.key}")

    async def _end_log(self, frame: Done | Error, only_after: int | None) -> None:
        try:
            await end_log(self._bus, self.at, self.request_id, frame, only_after=only_after)
        except (Unconfirmed, codec.WireError) as error:
            log.warning("could not end the log: %s", error)
        else:
            self.read_log()

    def _on_live(self, stored: Stored) -> None:
        if self._held is not None:
            self._held.append(stored)
        else:
            self._take(stored)

    def _take(self, stored: Stored) -> None:
        if self.ended:
            return
        self._heard = time.monotonic()
        try:
            entry = codec.decode(stored.data, LogEntry)
            for frame in self._assembler.feed(entry):
                self._give(frame)
        except Gap:
            metrics.GAPS.inc()
            self.read_log()
            return
        except codec.WireError as error:
            log.error("an entry of the log cannot be read: %s", error)
            self._give_up("internal", "A worker wrote something into this answer that cannot be read.")
            return
        self._stream_seq = max(self._stream_seq, stored.stream_seq)

    def _give(self, frame: LogFrame) -> None:
        # The accepted frame's hand-off counts too: the request waits for its first worker.
        self._waiting_stage = frame.handoff.stage if frame.handoff else ""
        if self._observer is not None:
            self._observer.see(frame)
        self.show(frame)
        if isinstance(frame, Done | Error):
            self.over.set()

    def _give_up(self, code: Literal["log_lost", "internal"], message: str) -> None:
        if not self.ended:
            self.show(Error(code=code, message=message, retryable=True))
            self.over.set()

    async def _read_log(self) -> None:
        """Read from where we are to the end; once more when a live entry has not joined on meanwhile."""
        try:
            while self._again and not self.ended:
                self._again = False
                for stored in await self._bus.replay(self.at, self._stream_seq):
                    self._take(stored)
            if self._stream_seq == 0 and await self._bus.tail(self.at) is None:
                self._give_up("log_lost", "The log of this request is gone; ask the question again.")
        except Unconfirmed as error:
            log.info("the log could not be read now: %s", error)  # the next tick tries again
