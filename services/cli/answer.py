"""An answer as it comes together from frames. No I/O: frames in, what is new out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


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
    end: dict[str, Any] | None = None

    def take(self, frame: dict[str, Any]) -> bool:
        """Apply a frame; whether it is about this request and new."""
        if self.end is not None or frame.get("request_id") not in (self.request_id, None):
            return False
        kind, seq = frame.get("type"), frame.get("seq")
        if isinstance(seq, int):
            if seq < self.next_seq:
                return False
            self.next_seq = seq + 1
        if kind == "answer_chunk":
            self.text += frame["content"]
        elif kind == "answer_reset":
            self.text = ""
        elif kind == "sources":
            self.sources += frame["sources"]
        elif kind == "resumed" and not frame["recovered"]:
            return self._take_stored(frame)
        elif kind in ("done", "error"):
            self.end = frame
        return True

    def _take_stored(self, frame: dict[str, Any]) -> bool:
        """The log is gone, but its final answer may have been kept; without one an `error` follows."""
        if frame.get("answer") is not None:
            self.text = frame["answer"]
            self.sources = frame.get("sources") or []
            self.end = {"type": "done", "finish_reason": frame.get("finish_reason", "stop")}
        return True

    @property
    def cited(self) -> set[int]:
        return set((self.end or {}).get("cited", ()))
