"""A `Job` in memory for tests of the tools service: what a handler wrote, and what it handed over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from baton_proto.messages import LogFrame, Status, ToolCall, ToolCalled, ToolResult, WorkItem


class MemoryJob:
    """`on_write` sees every frame as it is written; what it raises, the log raises."""

    def __init__(
        self,
        item: WorkItem,
        written: Sequence[LogFrame] = (),
        on_write: Callable[[LogFrame], None] = lambda frame: None,
    ) -> None:
        self.item = item
        self.written = tuple(written)
        self.frames: list[LogFrame] = []
        self.flushed: int | None = None
        self.handed_over: WorkItem | None = None
        self._on_write = on_write

    async def write(self, frame: LogFrame) -> None:
        assert self.handed_over is None, "nothing may follow a hand-off"
        self._on_write(frame)
        self.frames.append(frame)

    async def flush(self) -> None:
        self.flushed = len(self.frames)

    async def hand_over(self, frame: LogFrame, item: WorkItem) -> None:
        await self.write(frame)
        self.handed_over = item

    async def finish(self, frame: LogFrame) -> None:
        raise AssertionError(f"a tools worker never finishes a log: {frame}")

    @property
    def called(self) -> list[str]:
        return [frame.call_id for frame in self.frames if isinstance(frame, ToolCalled)]

    @property
    def results(self) -> dict[str, ToolResult]:
        return {frame.call_id: frame for frame in self.frames if isinstance(frame, ToolResult)}

    @property
    def progress(self) -> list[tuple[str | None, str]]:
        return [(frame.call_id, frame.content) for frame in self.frames if isinstance(frame, Status)]


def call(name: str, call_id: str = "c1", **arguments: Any) -> ToolCall:
    return ToolCall(call_id=call_id, name=name, arguments=arguments)


def tools_item(*calls: ToolCall, **fields: Any) -> WorkItem:
    defaults: dict[str, Any] = {
        "stage": "tools.default",
        "key": "0" * 32,
        "shard": 0,
        "request_id": "r1",
        "owner": "anonymous",
        "query": "?",
        "language": "en",
        "received_ms": 1_000_000,
        "deadline_ms": 1_120_000,
        "queued_ms": 1_000_100,
    }
    return WorkItem(calls=list(calls), **{**defaults, **fields})
