"""An answer as it comes together from frames. No I/O: frames in, what is new out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

MARK = re.compile(r"\[(\d{1,3})\]")
"""A citation in the text; a generator lets no other such mark through."""


class Outcome(Enum):
    """What became of a frame."""

    NEW = "new"
    DUPLICATE = "duplicate"
    """All of it is known already."""
    GAP = "gap"
    """It does not join on to what is known: resume after `next_seq - 1`. Nothing has changed."""
    UNRELATED = "unrelated"
    """It is about another request, or comes after the end."""


class Taken(NamedTuple):
    """`frame` is the frame to show: without the start that is known already, where chunks were joined."""

    outcome: Outcome
    frame: dict[str, Any]

    @property
    def new(self) -> bool:
        return self.outcome is Outcome.NEW


@dataclass(slots=True)
class Answer:
    """Everything that the frames of one request have told so far.

    `next_seq` is the frame expected next; frames that came before (after a reconnection) change nothing. `end` is the
    `done` or `error` that ended it.
    """

    request_id: str
    next_seq: int = 0
    text: str = ""
    sources: list[dict[str, Any]] = field(default_factory=list)
    conversation_id: str | None = None
    end: dict[str, Any] | None = None
    _ends: dict[int, int] = field(default_factory=lambda: {-1: 0})
    """Length of the text after each frame that came by itself or as a joined chunk's last: where one may be cut."""

    def take(self, frame: dict[str, Any]) -> Taken:
        """Apply a frame of this request, or one about the connection, which has no `seq` and changes no text."""
        if self.end is not None or frame.get("request_id") not in (self.request_id, None):
            return Taken(Outcome.UNRELATED, frame)
        seq = frame.get("seq")
        if isinstance(seq, int):
            taken = self._join_on(frame, seq)
            if not taken.new:
                return taken
            frame = taken.frame
        self._apply(frame)
        if isinstance(seq, int):
            self.next_seq = seq + 1
            self._ends[seq] = len(self.text)
        return Taken(Outcome.NEW, frame)

    def _join_on(self, frame: dict[str, Any], seq: int) -> Taken:
        """The part of a frame that follows what is known."""
        first = frame.get("from_seq", seq)
        if seq < self.next_seq:
            return Taken(Outcome.DUPLICATE, frame)
        if first > self.next_seq:
            return Taken(Outcome.GAP, frame)
        if first == self.next_seq:
            return Taken(Outcome.NEW, frame)
        start = self._ends.get(first - 1)
        if start is None:  # it begins inside of a joined chunk that came before: nobody knows where to cut
            return Taken(Outcome.GAP, frame)
        rest = frame["content"][self._ends[self.next_seq - 1] - start :]
        return Taken(Outcome.NEW, {**frame, "from_seq": self.next_seq, "content": rest})

    def _apply(self, frame: dict[str, Any]) -> None:
        kind = frame.get("type")
        if kind == "accepted":
            self.conversation_id = frame.get("conversation_id") or None
        elif kind == "answer_chunk":
            self.text += frame["content"]
        elif kind == "answer_reset":
            self.text = ""
        elif kind == "sources":
            self.sources += frame["sources"]
        elif kind == "resumed" and not frame["recovered"]:
            self._take_stored(frame)
        elif kind in ("done", "error"):
            self.end = frame

    def _take_stored(self, frame: dict[str, Any]) -> None:
        """The log is gone, but its final answer may have been kept; without one an `error` follows."""
        if frame.get("answer") is not None:
            self.text = frame["answer"]
            self.sources = frame.get("sources") or []
            cited = sorted({int(mark) for mark in MARK.findall(self.text)})
            self.end = {"type": "done", "finish_reason": frame.get("finish_reason", "stop"), "cited": cited}

    @property
    def cited(self) -> set[int]:
        return set((self.end or {}).get("cited", ()))
