"""Reads one request's log: what is stored joined to what comes live, in order, no faster than its client takes it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from baton_proto import codec
from baton_proto.messages import TERMINAL, LogEntry, LogFrame
from baton_proto.sequencer import Assembler, Gap
from baton_proto.subjects import LogAddress
from services.common import metrics
from services.common.bus import Bus, Stored, Unconfirmed

log = logging.getLogger(__name__)

BATCH_MESSAGES = 128
BATCH_BYTES = 256 * 1024
HELD_MESSAGES = 64
HELD_BYTES = 256 * 1024
LAG_TRIES = 10
READ_TRIES = 3
READ_AGAIN_S = 0.2
LOSS_CONFIRM_S = 1.0


class Lost(Exception):
    """The log is not there any more, or not the one that was read so far."""


class Show(Protocol):
    """Whoever sees a request's frames."""

    def __call__(self, frame: LogFrame) -> None:
        """Show it now."""

    def in_turn(self, frame: LogFrame) -> Awaitable[None] | None:
        """Show it when there is room for what is not urgent: None when that was now, otherwise what to await."""

    def stop(self) -> None:
        """Show nothing more, nor what still waits for its turn."""


class LogReader:
    """One log from `next_seq` on.

    While it reads, live entries are only held, and of those no more than a few: what it lets go of is in the log and
    is read there. So a long log costs no more memory than a short one, however slow its client is.

    Args:
        show: how each frame from `next_seq` on is shown, in order.
        shown: called after each of them.
        learn: called with each entry that is read, also those from before `next_seq`.
        broken: called when an entry is unreadable (WireError) or the log is gone (Lost); nothing follows.
    """

    def __init__(
        self,
        bus: Bus,
        at: LogAddress,
        next_seq: int,
        *,
        show: Show,
        shown: Callable[[LogFrame], None],
        learn: Callable[[LogEntry], None],
        broken: Callable[[Exception], None],
    ) -> None:
        self._bus = bus
        self._at = at
        self._assembler = Assembler(next_seq)
        self.show = show
        self._shown = shown
        self._learn = learn
        self._broken = broken
        self._over = False
        self._stream_seq = 0
        self._append_id = ""
        self._lacks = -1
        self._following: int | None = None  # `seq` with which the log's next message begins; None = not known yet
        self._holding = True
        self._held: deque[Stored] = deque()
        self._held_bytes = 0
        self._again = False
        self._reading: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], Awaitable[None]] | None = None
        self.heard = time.monotonic()
        """When the log last told something new, or a read found that there is nothing."""

    @property
    def next_seq(self) -> int:
        return self._assembler.next_seq

    async def listen(self) -> None:
        """Subscribe to the live path. What comes is held until `start`. Raises Unconfirmed without a connection."""
        self._unsubscribe = await self._bus.follow(self._at, self._on_live)

    def start(self, *, read: bool) -> None:
        """Let frames through. `read`: there are some from before `listen`."""
        if read:
            self.read()
            return
        self._following = self.next_seq
        held, self._held, self._held_bytes, self._holding = self._held, deque(), 0, False
        for stored in held:
            self._on_live(stored)

    def read(self) -> None:
        """Fetch what the live path has not brought."""
        self._again = True
        if not self._over and (self._reading is None or self._reading.done()):
            self._holding = True
            self._reading = asyncio.create_task(self._read(), name=f"read {self._at.key}")

    async def close(self) -> None:
        self._over = True
        self._held.clear()
        if self._reading is not None:
            self._reading.cancel()
        if self._unsubscribe is not None:
            await self._unsubscribe()
            self._unsubscribe = None

    # --- live ---------------------------------------------------------------------------------------------------------

    def _on_live(self, stored: Stored) -> None:
        if self._over:
            return
        if self._holding:
            self._hold(stored)
            if self._reading is not None and self._reading.done():
                self.read()  # the last attempt has failed
        elif stored.stream_seq <= self._stream_seq:
            self.read()  # it has been read already, as a rule; or the stream was lost and counts anew
        else:
            try:
                entry = codec.decode(stored.data, LogEntry)
            except codec.WireError as error:
                self._fail(error)
                return
            if entry.frames[0].seq != self._following:
                metrics.GAPS.inc()
                self._hold(stored)
                self.read()
                return
            self._learn(entry)
            for frame in self._assembler.feed(entry):
                self.show(frame)
                self._passed(frame)
            self._moved(stored, entry)

    def _hold(self, stored: Stored) -> None:
        self._held.append(stored)
        self._held_bytes += len(stored.data)
        while len(self._held) > HELD_MESSAGES or self._held_bytes > HELD_BYTES:
            self._held_bytes -= len(self._held.popleft().data)

    # --- from the log -------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Read to the end, and go over to the live path; once more where it does not join on."""
        failures = 0
        try:
            while self._again and not self._over:
                self._again = False
                try:
                    await self._read_on()
                except Unconfirmed as error:
                    log.info("the log could not be read now: %s", error)
                    await self._check_loss()
                    failures += 1
                    if failures > READ_TRIES:
                        return  # the next live entry, or silence, tries again
                    self._again = True
                    await asyncio.sleep(READ_AGAIN_S)
                    continue
                except Gap as error:
                    self._seen_twice(error)
                    continue
                await self._read_held()
        except Unconfirmed:
            return
        except (Lost, codec.WireError) as error:
            self._fail(error)

    def _seen_twice(self, gap: Gap) -> None:
        """The log itself lacks frames. Look once more: the answer to one question may have lost a message on its way.

        Raises:
            Lost: they are missing again.
        """
        if self._lacks == gap.first:
            raise Lost(f"{gap}, and the log has them no more")
        self._lacks, self._again = gap.first, True

    async def _read_on(self) -> None:
        """What follows the last message that was read, which must still be there: a log may be lost and begun anew."""
        last = self._stream_seq
        batch, more = await self._next_batch(max(0, last - 1))
        for attempt in range(LAG_TRIES):
            if batch:
                break
            await self._check_loss()
            await asyncio.sleep(0.02 * (attempt + 1))  # it is there: the replica that has answered lags behind
            batch, more = await self._next_batch(max(0, last - 1))
        if not batch:
            raise Unconfirmed("no replica has it yet")
        if last and not self._is_last(batch[0]):
            raise Lost("the messages that were read are not there any more")
        while not self._over:
            for stored in batch:
                await self._take(stored)
            if not more:
                break
            batch, more = await self._next_batch(self._stream_seq)
        self.heard = time.monotonic()

    async def _next_batch(self, after: int) -> tuple[list[Stored], bool]:
        return await self._bus.replay_batch(self._at, after, BATCH_MESSAGES, BATCH_BYTES)

    async def _read_held(self) -> None:
        """What came live meanwhile. When nothing is held the next entry goes straight through."""
        while self._held and not self._over:
            stored = self._held.popleft()
            self._held_bytes -= len(stored.data)
            try:
                await self._take(stored)
            except Gap:
                self._again = True
        self._holding = self._again

    async def _take(self, stored: Stored) -> None:
        """Pass an entry's frames on, as there is room for them. Raises Gap, Lost, codec.WireError."""
        if self._over or stored.stream_seq <= self._stream_seq:
            return
        entry = codec.decode(stored.data, LogEntry)
        first = entry.frames[0].seq
        if self._following is not None and first < self._following:
            raise Lost("the log has begun anew")
        if first > (self.next_seq if self._following is None else self._following):
            raise Gap(self.next_seq, first)
        self._learn(entry)
        for frame in self._assembler.feed(entry):
            if (waiting := self.show.in_turn(frame)) is not None:
                await waiting
            if self._over:
                return
            self._passed(frame)
        self._moved(stored, entry)

    def _is_last(self, stored: Stored) -> bool:
        """Whether this is the message that was read last. The number alone could be that of a log begun anew."""
        if stored.stream_seq != self._stream_seq:
            return False
        return codec.decode(stored.data, LogEntry).append_id == self._append_id

    async def _is_there(self) -> bool:
        """Whether the log's leader still has what we know of. Raises Unconfirmed."""
        tail = await self._bus.tail(self._at)
        return tail is not None and tail.stream_seq >= max(1, self._stream_seq)

    async def _check_loss(self) -> None:
        """Looks twice: a stream that is just being restored is not lost.

        Raises:
            Lost: the log is gone.
            Unconfirmed: nobody knows.
        """
        if not await self._is_there():
            await asyncio.sleep(LOSS_CONFIRM_S)
            if not await self._is_there():
                raise Lost("the log is gone")

    def _moved(self, stored: Stored, entry: LogEntry) -> None:
        self._stream_seq = stored.stream_seq
        self._append_id = entry.append_id
        self._following = entry.frames[-1].seq + 1
        self.heard = time.monotonic()

    def _passed(self, frame: LogFrame) -> None:
        self._over = self._over or isinstance(frame, TERMINAL)
        self._shown(frame)

    def _fail(self, error: Exception) -> None:
        if not self._over:
            self._over = True
            self._broken(error)
