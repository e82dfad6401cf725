"""What one client has received of one request, checked as it comes and put together by `seq`. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

Frame = dict[str, Any]


class Transcript:
    """The frames from `start` on.

    Each time the client asks (`query` or `resume`) a new *following* begins, and the server says or the protocol
    implies with which frame. Within one following `seq` goes up by one; what comes otherwise is noted in `repeated`,
    `reordered` or, if it never comes, found by `missing`.
    """

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.frames: list[Frame] = []
        self.repeated: list[str] = []
        self.reordered: list[str] = []
        self.wrong: list[str] = []
        self._expected = start
        self._passed_over: set[int] = set()
        self._restarts = 0
        self._resumes: deque[int] = deque()
        self.end: Frame | None = None

    @property
    def next_seq(self) -> int:
        """The first frame that it does not have."""
        have = self._have()
        return next(seq for seq in range(self.start, len(have) + self.start + 1) if seq not in have)

    def connected(self) -> None:
        """A new connection: what was asked on an earlier one is not answered any more."""
        self._restarts = 0
        self._resumes.clear()

    def asked_after(self, seq: int) -> None:
        """A `resume` has been sent; each is answered, in the order in which they were sent."""
        self._resumes.append(seq)

    def resumed(self, next_seq: int) -> None:
        """The server has answered a `resume`."""
        after = self._resumes.popleft() if self._resumes else None
        if after is None or next_seq != after + 1:
            self.wrong.append(f"asked for what follows {after}, and was told that {next_seq} follows")
        self._expected = next_seq

    def asked(self) -> None:
        """The query has been sent; unlike a `resume` it is not answered: the log just starts again at 0, once for each
        query."""
        self._restarts += 1

    def take(self, frame: Frame) -> None:
        first, last = frame.get("from_seq", frame["seq"]), frame["seq"]
        if first == 0 and self._restarts:
            self._expected, self._restarts = 0, self._restarts - 1
        if first > self._expected:
            self._passed_over.update(range(self._expected, first))
        elif first < self._expected:
            late = first in self._passed_over
            (self.reordered if late else self.repeated).append(f"{first} came where {self._expected} was due")
        self._passed_over.difference_update(range(first, last + 1))
        self._expected = max(self._expected, last + 1)
        self.frames.append(frame)
        if frame["type"] in ("done", "error"):
            self.end = frame

    def missing(self, log: Sequence[Frame]) -> list[int]:
        """The frames of the log, up to its end, that never came although a later one did, or the end was told."""
        have = self._have()
        top = len(log) if self.end is not None else max(have, default=self.start - 1) + 1
        return [seq for seq in range(self.start, top) if seq not in have]

    def differing(self, log: Sequence[Frame]) -> list[str]:
        """What was received otherwise than it stands in the log."""
        return [f"{self._name(frame)} is not what the log says" for frame in self.frames if not _same(frame, log)]

    def _have(self) -> set[int]:
        return {seq for frame in self.frames for seq in range(frame.get("from_seq", frame["seq"]), frame["seq"] + 1)}

    @staticmethod
    def _name(frame: Frame) -> str:
        return f"{frame['type']} {frame.get('from_seq', frame['seq'])}-{frame['seq']}"


def _same(frame: Frame, log: Sequence[Frame]) -> bool:
    """Whether a frame is that of the log, or, joined, the texts of a range of it."""
    first, last = frame.get("from_seq", frame["seq"]), frame["seq"]
    if last >= len(log):
        return False
    if "from_seq" not in frame:
        return frame == log[last]
    joined = log[first : last + 1]
    if any(one["type"] != "answer_chunk" for one in joined):
        return False
    text = "".join(one["content"] for one in joined)
    return frame == {**log[last], "content": text, "from_seq": first}
