"""What may be said of a log's frames without I/O: who may write which, and in which form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from baton_proto import codec
from baton_proto.messages import (
    TERMINAL,
    AnswerChunk,
    AnswerReset,
    Done,
    Error,
    LogEntry,
    LogFrame,
    Sources,
    Status,
    ToolCalled,
    ToolResult,
)
from services.common.shown import text_and_sources

from .promise import Broken, Kind

WRITES: dict[Kind, tuple[type, ...]] = {
    "retriever": (Status, Sources, ToolCalled, ToolResult, Done, Error),
    "generator": (Status, AnswerChunk, AnswerReset, Done, Error),
    "tools": (Status, ToolCalled, ToolResult, Done, Error),
}
STATUS_STAGES: dict[Kind, tuple[str, ...]] = {
    "retriever": ("understanding", "retrieving", "tool"),
    "generator": ("generating", "tool"),
    "tools": ("tool",),
}
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def tag(frame: LogFrame) -> str:
    """The frame's `type`."""
    return str(frame.__struct_config__.tag)


def ends(frame: LogFrame) -> bool:
    """Whether nothing of its writer may follow: a terminal frame or a hand-off."""
    return isinstance(frame, TERMINAL) or frame.handoff is not None


def text_of(frames: Iterable[LogFrame]) -> str:
    """The answer's text that these frames amount to."""
    return text_and_sources(frames)[0]


def read_entry(data: bytes) -> LogEntry:
    """An entry as a strict reader takes it.

    Raises:
        Broken: it does not.
    """
    try:
        return codec.decode(data, LogEntry)
    except codec.WireError as error:
        raise Broken(f"an entry of {len(data)} bytes in the log that a reader must refuse: {error}", "4") from None


def check_follows(entries: Sequence[LogEntry]) -> None:
    """`seq` counts from 0 without gap or duplicate, nothing follows a terminal frame, each `append_id` is new.

    Raises:
        Broken
    """
    expected, ended, append_ids = 0, "", set[str]()
    for entry in entries:
        if entry.append_id in append_ids:
            raise Broken(
                f"frame {entry.frames[0].seq} came with the `append_id` {entry.append_id!r} of an earlier append", "2.4"
            )
        append_ids.add(entry.append_id)
        for frame in entry.frames:
            if ended:
                raise Broken(f"frame {frame.seq} (`{tag(frame)}`) after the log had ended with `{ended}`", "1")
            if frame.seq != expected:
                what = "twice" if frame.seq < expected else f"where {expected} was due"
                raise Broken(f"`seq` {frame.seq} (`{tag(frame)}`) {what}", "1")
            expected += 1
            ended = tag(frame) if isinstance(frame, TERMINAL) else ""


def check_written(kind: Kind, frames: Sequence[LogFrame]) -> None:
    """A worker of this kind may have written these frames.

    Raises:
        Broken
    """
    who = "tools worker" if kind == "tools" else kind
    for frame in frames:
        if not isinstance(frame, WRITES[kind]):
            raise Broken(f"a {who} wrote `{tag(frame)}` (frame {frame.seq}), which is not its to write", "5")
        if not _TIMESTAMP.fullmatch(frame.timestamp):
            raise Broken(
                f"the timestamp {frame.timestamp!r} in frame {frame.seq} is not RFC 3339 in UTC with milliseconds", "4"
            )
        if isinstance(frame, Status) and frame.stage not in STATUS_STAGES[kind]:
            raise Broken(f"a {who} wrote a `status` with the stage {frame.stage!r} (frame {frame.seq})", "5")
        if isinstance(frame, Done) and kind != "generator" and frame.finish_reason != "cancelled":
            raise Broken(f"a {who} ended the answer with `{frame.finish_reason}`; it may only when cancelled", "5")


def told(frames: Sequence[LogFrame]) -> str:
    """Frames in a few words, for people: `status 2, answer_chunk 3-9, done 10`."""
    runs: list[list[Any]] = []
    for frame in frames:
        if runs and runs[-1][0] == tag(frame):
            runs[-1][2] = frame.seq
        else:
            runs.append([tag(frame), frame.seq, frame.seq])
    return ", ".join(f"{name} {a}" if a == b else f"{name} {a}-{b}" for name, a, b in runs) or "nothing"


def ending(frame: LogFrame) -> str:
    """How a log ended, for people."""
    if isinstance(frame, Done):
        return f"`done` with `{frame.finish_reason}`"
    if isinstance(frame, Error):
        return f"`error` with `{frame.code}`"
    return f"`{tag(frame)}`" + (f" with a hand-off to {frame.handoff.stage}" if frame.handoff else "")
