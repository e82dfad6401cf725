"""Follows one request: its frames to its client, and the ends that time demands."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from baton_proto import codec, subjects
from baton_proto.messages import Done, Error, ErrorCode, Handoff, LogEntry, LogFrame, Timings, Usage
from baton_proto.subjects import LogAddress
from services.common.bus import Bus, Full, Unconfirmed
from services.common.clock import now_ms
from services.common.endings import end_log
from services.common.errors import DEADLINE, no_worker
from services.common.holding import FULL
from services.common.logs import request_context
from services.common.presence import Presence

from .observer import Observer
from .reader import LogReader, Lost, Show

log = logging.getLogger(__name__)

SILENCE_S = 3.0
"""A log that has been silent for so long is read again: its last frames may have been lost on the way."""
DEADLINE_GRACE_MS = 1_500
"""How much longer than a deadline the gateway waits for the holder to keep it."""
CANCEL_GRACE_S = 1.0


class _Nobody:
    """Where frames go that have no client (any more)."""

    def __call__(self, frame: LogFrame) -> None:
        pass

    def in_turn(self, frame: LogFrame) -> None:
        pass

    def stop(self) -> None:
        pass


NOBODY = _Nobody()


class Follower:
    """One request, followed from `next_seq` to its terminal frame.

    Frames go to `observer`, if there is one, and to `show`. Until `release` is called they are held back. `tick` is
    called about once a second and does what time demands. `deadline_ms` and `on_disconnect` are what the query said;
    they are known as soon as its first frame, or any later hand-off, has been read.
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
        self._observer = observer
        self.deadline_ms: int | None = None
        self.on_disconnect: str | None = None
        self._reader = LogReader(
            bus, at, next_seq, show=show, shown=self._shown, learn=self._learn, broken=self._broken
        )
        self._must_read = False
        self._released = False
        self._waiting_for: Handoff | None = None
        self._absent_since: float | None = None
        self._cancel_at: float | None = None
        self._ending: asyncio.Task[None] | None = None
        self.over = asyncio.Event()

    @property
    def ended(self) -> bool:
        return self.over.is_set()

    @property
    def watched(self) -> bool:
        """Whether a client sees it."""
        return self._reader.show is not NOBODY

    @property
    def observed(self) -> bool:
        """Whether it measures its request."""
        return self._observer is not None

    @property
    def next_seq(self) -> int:
        return self._reader.next_seq

    def hide(self) -> None:
        """Its client does not want it any more, or has left; the log is followed all the same."""
        self._reader.show.stop()
        self._reader.show = NOBODY

    async def listen(self) -> None:
        """Subscribe to the live path. Raises Unconfirmed without a connection."""
        await self._reader.listen()

    def attach(self) -> None:
        """The log was there before we listened: it must be read, and somebody else measures it."""
        self._must_read = True
        self._observer = None
        self.deadline_ms = self.on_disconnect = None  # the first query's count

    def release(self) -> None:
        """Let frames through."""
        self._released = True
        self._reader.start(read=self._must_read)

    def cancel(self) -> None:
        """The user has cancelled: if no holder ends the log within a second, `tick` does."""
        if self._cancel_at is None:
            self._cancel_at = time.monotonic() + CANCEL_GRACE_S

    def tick(self, no_worker_s: float) -> None:
        """Read a silent log again; end one that is past its deadline, cancelled, or waits for an absent worker."""
        if self.ended or not self._released:
            return
        now = time.monotonic()
        if now - self._reader.heard > SILENCE_S:
            self._reader.read()
        if self._cancel_at is not None and now > self._cancel_at:
            self._end(Done(finish_reason="cancelled", cited=[], citations=[], usage=Usage(), timings=Timings()))
        elif self.deadline_ms is not None and now_ms() > self.deadline_ms + DEADLINE_GRACE_MS:
            self._end(DEADLINE)
        elif self._absent(now) > no_worker_s:
            assert self._waiting_for is not None
            self._end(no_worker(self._waiting_for.stage).frame(), only_after=self.next_seq - 1)

    async def close(self) -> None:
        """Stop following. The request itself goes on."""
        self.over.set()
        if self._observer is not None:
            self._observer.leave()
        if self._ending is not None:
            self._ending.cancel()
        await self._reader.close()

    def _absent(self, now: float) -> float:
        """Seconds for which the log has been waiting for a worker while none was alive that would take it."""
        if self._waiting_for is None or self._served(self._waiting_for):
            self._absent_since = None
        elif self._absent_since is None:
            self._absent_since = now
        # A gateway that has only just begun to listen cannot tell silence from absence yet.
        return now - self._absent_since if self._absent_since is not None and self._presence.settled else 0.0

    def _served(self, handoff: Handoff) -> bool:
        """Whether a worker is alive for this: one of its variant, or one that takes over what such workers leave."""
        queues = (subjects.queue_name(handoff.stage, handoff.variant), handoff.stage)
        return any(self._presence.live(queue) for queue in queues)

    def _end(self, frame: Done | Error, only_after: int | None = None) -> None:
        if self._ending is None or self._ending.done():
            self._ending = asyncio.create_task(self._end_log(frame, only_after), name=f"end {self.at.key}")

    async def _end_log(self, frame: Done | Error, only_after: int | None) -> None:
        try:
            with request_context(self.request_id):
                await end_log(self._bus, self.at, self.request_id, frame, only_after=only_after)
        except Full:
            self._give_up(FULL)  # there is no room for the log's last frame: nobody can write it
        except (Unconfirmed, codec.WireError) as error:
            log.warning("could not end the log: %s", error)
        else:
            self._reader.read()

    # --- what the log tells -------------------------------------------------------------------------------------------

    def _learn(self, entry: LogEntry) -> None:
        # Only an entry's last frame may hand over. That of `accepted` counts too: it waits for its first worker.
        handoff = self._waiting_for = entry.frames[-1].handoff
        if handoff is not None and handoff.item is not None:
            self._learn_item(handoff.item)

    def _learn_item(self, item: dict[str, Any]) -> None:
        if self.deadline_ms is None and isinstance(deadline_ms := item.get("deadline_ms"), int):
            self.deadline_ms = deadline_ms
        if isinstance(choice := item.get("on_disconnect"), str):
            self.on_disconnect = choice

    def _shown(self, frame: LogFrame) -> None:
        if self._observer is not None:
            self._observer.see(frame)
        if isinstance(frame, Done | Error):
            self.over.set()

    def _broken(self, error: Exception) -> None:
        if isinstance(error, Lost):
            log.warning("%s: %s", self.at.key, error)
            self._give_up(_error("log_lost", "The log of this request is gone; ask the question again."))
        else:
            log.error("an entry of the log cannot be read: %s", error)
            self._give_up(_error("internal", "A worker wrote something into this answer that cannot be read."))

    def _give_up(self, error: Error) -> None:
        """Tell the client what no frame of the log will tell it."""
        if not self.ended:
            if self._observer is not None:
                self._observer.see(error)
            self._reader.show(error)
            self.over.set()


def _error(code: ErrorCode, message: str) -> Error:
    return Error(code=code, message=message, retryable=True)
