"""The baton rule without I/O: who may append, what is appended next, and in which order frames are shown.

`Sequencer` is the writer's side, `Assembler` the reader's. Neither awaits nor knows NATS; their callers carry bytes.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from .codec import check_frame
from .messages import MAX_ENTRY_FRAMES, MAX_FRAME_BYTES, TERMINAL, LogEntry, LogFrame


class Replaced(Exception):
    """Somebody else has appended to this log: the caller no longer holds the baton and must stop."""


class Closed(Exception):
    """The log already has its terminal frame, or a hand-off is on its way: nothing may follow from this writer."""


def utc_now() -> str:
    """RFC 3339, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Append:
    """One append to be made: `entry` under the condition that the subject's last stream sequence is `expected`."""

    entry: LogEntry
    expected: int


class Sequencer:
    """The writer of one request's log.

    Frames are queued with `add` and leave in batches through `next_append`; at most one append is in flight. Its
    outcome is told with `stored`, or, after a refusal or no answer, with `tail`, the log's last entry.

    Args:
        next_seq: `seq` of the first frame to be written.
        last: stream sequence of the log's last message, 0 where there is none yet.
        max_frames: most frames in one append.
    """

    def __init__(
        self,
        request_id: str,
        writer: str,
        *,
        next_seq: int = 0,
        last: int = 0,
        max_frames: int = MAX_ENTRY_FRAMES,
        clock: Callable[[], str] = utc_now,
    ) -> None:
        self.request_id = request_id
        self.writer = writer
        self.next_seq = next_seq
        self.last = last
        self.closed = False
        self._max_frames = max_frames
        self._clock = clock
        self._waiting: deque[tuple[LogFrame, int]] = deque()
        self._in_flight: Append | None = None

    @property
    def pending(self) -> int:
        """Frames that are not known to be stored."""
        return len(self._waiting) + (len(self._in_flight.entry.frames) if self._in_flight else 0)

    @property
    def idle(self) -> bool:
        return not self._waiting and self._in_flight is None

    def add(self, frame: LogFrame) -> LogFrame:
        """Queue a frame and give it back with its `seq` and `timestamp`. A terminal frame or a hand-off is the last.

        Raises:
            Closed: the last frame has been queued before.
            WireError: the frame cannot be stored (see `check_frame`); nothing has changed, another may be queued.
        """
        if self.closed:
            raise Closed(f"{self.request_id}: nothing may follow the last frame of this writer")
        stamped = msgspec.structs.replace(frame, seq=self.next_seq, timestamp=self._clock())
        size = check_frame(stamped)
        self.next_seq += 1
        self.closed = isinstance(frame, TERMINAL) or frame.handoff is not None
        self._waiting.append((stamped, size))
        return stamped

    def next_append(self) -> Append | None:
        """The append to make now, or None while one is in flight or nothing waits."""
        if self._in_flight is not None or not self._waiting:
            return None
        frames = self._take()
        entry = LogEntry(request_id=self.request_id, append_id=secrets.token_hex(8), writer=self.writer, frames=frames)
        self._in_flight = Append(entry, self.last)
        return self._in_flight

    def _take(self) -> list[LogFrame]:
        """As many of the waiting frames as one entry carries, by number and by size."""
        frames: list[LogFrame] = []
        room = MAX_FRAME_BYTES
        while self._waiting and len(frames) < self._max_frames and self._waiting[0][1] <= room:
            frame, size = self._waiting.popleft()
            frames.append(frame)
            room -= size
        return frames

    def stored(self, stream_seq: int) -> None:
        """The append in flight is stored under `stream_seq`."""
        if self._in_flight is None:
            raise RuntimeError("no append is in flight")
        self.last = stream_seq
        self._in_flight = None

    def tail(self, entry: LogEntry | None, stream_seq: int) -> Append | None:
        """The log's last entry, read after an append was refused or not answered.

        Returns the append to repeat, when the log still ends where it did before; None when the tail is our own append
        after all.

        Raises:
            Replaced: somebody else's entry is there.
        """
        if self._in_flight is None:
            raise RuntimeError("no append is in flight")
        if entry is not None and entry.append_id == self._in_flight.entry.append_id:
            self.stored(stream_seq)
            return None
        if stream_seq == self._in_flight.expected:
            return self._in_flight
        raise Replaced(f"{self.request_id}: {entry.writer if entry else 'nobody'} has appended meanwhile")


class Assembler:
    """Puts a log's entries, however they arrive, into the order of `seq`: nothing twice, nothing missing.

    Args:
        next_seq: the first frame wanted.
    """

    def __init__(self, next_seq: int = 0) -> None:
        self.next_seq = next_seq
        self.ended = False

    def feed(self, entry: LogEntry) -> Iterator[LogFrame]:
        """The frames of `entry` that follow what was shown. Entries from before are passed over.

        Raises:
            Gap: frames before this entry have not been seen; read the log from `next_seq` and feed that first.
        """
        if entry.frames[0].seq > self.next_seq:
            raise Gap(self.next_seq, entry.frames[0].seq)
        return self._follow(entry)

    def _follow(self, entry: LogEntry) -> Iterator[LogFrame]:
        for frame in entry.frames:
            if frame.seq == self.next_seq and not self.ended:
                self.next_seq += 1
                self.ended = isinstance(frame, TERMINAL)
                yield frame


class Gap(Exception):
    """Frames `first` up to before `until` are missing."""

    def __init__(self, first: int, until: int) -> None:
        super().__init__(f"frames {first} to {until - 1} have not arrived")
        self.first = first
        self.until = until
