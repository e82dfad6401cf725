"""A `Job` in memory: what a handler wrote, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from baton_proto.messages import AnswerChunk, AnswerReset, LogFrame, Passage, Status, WorkItem


class MemoryJob:
    def __init__(self, item: WorkItem, written: Sequence[LogFrame] = ()) -> None:
        self.item = item
        self.written = tuple(written)
        self.frames: list[LogFrame] = []
        self.next_item: WorkItem | None = None
        self.ended = False

    async def write(self, frame: LogFrame) -> None:
        assert not self.ended
        self.frames.append(frame)

    async def hand_over(self, frame: LogFrame, item: WorkItem) -> None:
        await self.write(frame)
        self.next_item, self.ended = item, True

    async def finish(self, frame: LogFrame) -> None:
        await self.write(frame)
        self.ended = True

    @property
    def last(self) -> LogFrame:
        return self.frames[-1]

    @property
    def answer(self) -> str:
        """The text a client has that saw every frame, those of the earlier holder included."""
        return answer_of([*self.written, *self.frames])

    def stages(self) -> list[str]:
        return [frame.stage for frame in self.frames if isinstance(frame, Status)]


def answer_of(frames: Sequence[LogFrame]) -> str:
    text = ""
    for frame in frames:
        if isinstance(frame, AnswerReset):
            text = ""
        elif isinstance(frame, AnswerChunk):
            text += frame.content
    return text


def passage(n: int, text: str, **fields: Any) -> Passage:
    defaults = {
        "id": f"p{n}",
        "document_id": f"d{n}",
        "title": f"Document {n}",
        "url": f"/documents/d{n}",
        "score": 1 / n,
    }
    return Passage(n=n, text=text, **{**defaults, **fields})


def work_item(query: str = "How many days?", **fields: Any) -> WorkItem:
    defaults: dict[str, Any] = {
        "stage": "generate",
        "key": "0" * 32,
        "shard": 0,
        "request_id": "r1",
        "owner": "me",
        "language": "en",
        "received_ms": 1_000_000,
        "deadline_ms": 1_120_000,
        "queued_ms": 1_000_100,
    }
    return WorkItem(query=query, **{**defaults, **fields})
