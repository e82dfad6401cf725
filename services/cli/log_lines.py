"""A request's log as lines for people, and as maps for programs. No I/O: entries in, text out.

Without `content` nothing is shown that a user or a document has said: no question, answer, passage, tool argument or
tool result, only how long they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from baton_proto.messages import (
    Accepted,
    AnswerChunk,
    AnswerReset,
    Done,
    Error,
    LogFrame,
    Sources,
    Status,
    ToolCalled,
    ToolResult,
)
from baton_proto.subjects import queue_name
from services.common.clock import from_rfc3339
from services.common.log import StoredEntry

from .display import printable

MAX_SHOWN_CHARS = 200
FOLD_PAUSE_MS = 1_000
"""Chunks with a longer pause between them are not folded into one line: the pause is what one looks for."""
HEADING = f"{'seq':>11}  {'+seconds':>9}  {'UTC':<12}  {'writer':<26}  {'entry':>5}  {'frame':<12}  what"


@dataclass(frozen=True, slots=True)
class Placed:
    """A frame, with what its entry says: by whom, and that it is frame `at` of `of`."""

    frame: LogFrame
    at_ms: int
    writer: str
    at: int
    of: int


def placed(entry: StoredEntry) -> list[Placed]:
    frames = entry.entry.frames
    return [
        Placed(frame, from_rfc3339(frame.timestamp), entry.entry.writer, number, len(frames))
        for number, frame in enumerate(frames, 1)
    ]


class LogLines:
    """Lines as entries come.

    Args:
        content: show what was said, too.
        fold: put consecutive chunks of one writer into one line.
    """

    def __init__(self, *, content: bool, fold: bool) -> None:
        self._content = content
        self._fold = fold
        self._began_ms: int | None = None
        self._chunks: list[Placed] = []

    def entry(self, entry: StoredEntry) -> list[str]:
        """The lines that can be shown now; chunks that may be folded wait for `flush` or for another frame."""
        lines: list[str] = []
        for one in placed(entry):
            if self._began_ms is None:
                self._began_ms = one.at_ms
            if not self._joins(one):
                lines += self.flush()
            if self._fold and _foldable(one.frame):
                self._chunks.append(one)
            else:
                lines.append(self._line([one]))
        return lines

    def flush(self) -> list[str]:
        """The line of the chunks that wait."""
        chunks, self._chunks = self._chunks, []
        return [self._line(chunks)] if chunks else []

    def _joins(self, one: Placed) -> bool:
        if not self._chunks:
            return True
        last = self._chunks[-1]
        near = one.at_ms - last.at_ms <= FOLD_PAUSE_MS
        return _foldable(one.frame) and one.writer == last.writer and near

    def _line(self, some: Sequence[Placed]) -> str:
        first, last = some[0], some[-1]
        kind = frame_type(first.frame)
        if len(some) == 1:
            seq, entry = str(first.frame.seq), f"{first.at}/{first.of}"
            what = describe(first.frame, content=self._content)
        else:
            entries = 1 + sum(one.at == 1 for one in some[1:])
            seq, entry = f"{first.frame.seq}-{last.frame.seq}", ""
            what = f"{len(some)} chunks in {entries} {'entry' if entries == 1 else 'entries'}, "
            what += describe_text("".join(_text(one.frame) for one in some), content=self._content)
            what += f", over {(last.at_ms - first.at_ms) / 1000:.3f} s"
        began = self._began_ms if self._began_ms is not None else first.at_ms
        line = f"{seq:>11}  {(first.at_ms - began) / 1000:>9.3f}  {clock(first.at_ms)}  {first.writer:<26}  "
        return f"{line}{entry:>5}  {kind:<12}  {what}".rstrip()


def _foldable(frame: LogFrame) -> bool:
    return isinstance(frame, AnswerChunk) and frame.handoff is None


def _text(frame: LogFrame) -> str:
    return frame.content if isinstance(frame, AnswerChunk) else ""


def frame_type(frame: LogFrame) -> str:
    return str(frame.__struct_config__.tag)


def clock(at_ms: int) -> str:
    """`18:00:25.123`, UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]


def describe(frame: LogFrame, *, content: bool) -> str:
    """What a frame says, in one line."""
    parts = [part for part in _parts(frame, content) if part]
    if frame.handoff is not None:
        where = f" (item in object {frame.handoff.object})" if frame.handoff.object else ""
        parts.append(f"-> {queue_name(frame.handoff.stage, frame.handoff.variant)}{where}")
    return one_line(", ".join(parts))


def _parts(frame: LogFrame, content: bool) -> list[str]:
    match frame:
        case Accepted():
            item = (frame.handoff.item if frame.handoff else None) or {}
            return [f"{item.get('owner')} asks: {shorten(str(item.get('query')))}" if content and item else ""]
        case Status():
            count = f"{frame.count} found" if frame.count is not None and frame.stage == "retrieving" else ""
            took = f"{frame.elapsed_ms} ms" if frame.elapsed_ms is not None else ""
            return [frame.stage, frame.call_id or "", count, took, shorten(frame.content) if content else ""]
        case Sources():
            titles = "; ".join(f"[{source.n}] {source.title}" for source in frame.sources)
            return [counted(len(frame.sources), "source"), shorten(titles) if content else ""]
        case AnswerChunk():
            return [describe_text(frame.content, content=content)]
        case ToolCalled():
            arguments = json.dumps(frame.arguments, ensure_ascii=False)
            return [frame.name, frame.call_id, shorten(arguments) if content else ""]
        case ToolResult():
            how = "ok" if frame.ok else "failed"
            said = describe_text(frame.content, content=content)
            return [frame.name, frame.call_id, how, f"{frame.elapsed_ms} ms", said]
        case AnswerReset():
            return ["the text before is void"]
        case Done():
            cited = f"cites {len(frame.cited)}" if frame.cited else ""
            tokens = f"{frame.usage.completion_tokens} tokens" if frame.usage.completion_tokens else ""
            return [frame.finish_reason, cited, tokens]
        case Error():
            return [f"{frame.code}: {frame.message}", "retryable" if frame.retryable else ""]
    return []


def describe_text(text: str, *, content: bool) -> str:
    return json.dumps(shorten(text), ensure_ascii=False) if content else counted(len(text), "character")


def counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def seconds(ms: int) -> str:
    """`0.412 s`, `3 min 20 s`, `2 h 5 min`; a negative time, by clocks that differ, is 0."""
    ms = max(0, ms)
    if ms < 60_000:
        return f"{ms / 1000:.3f} s" if ms < 10_000 else f"{ms / 1000:.1f} s"
    minutes, rest = divmod(ms // 1000, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def shorten(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[: MAX_SHOWN_CHARS - 1]}…"


def one_line(text: str) -> str:
    return " ".join(printable(text).split())


# --- for programs -----------------------------------------------------------------------------------------------------


def frame_map(entry: StoredEntry, frame: LogFrame, *, content: bool) -> dict[str, Any]:
    """A frame with its entry. Without `content` texts are replaced by their length, and a hand-off by its stage."""
    fields: dict[str, Any] = msgspec.to_builtins(frame)
    if not content:
        fields = _without_content(fields)
    about = entry.entry
    return {
        **fields,
        "request_id": about.request_id,
        "writer": about.writer,
        "append_id": about.append_id,
        "entry_frames": len(about.frames),
        "stream_seq": entry.stream_seq,
    }


def _without_content(fields: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in fields.items() if name not in ("content", "arguments", "sources", "handoff")}
    if "content" in fields:
        kept["content_chars"] = len(fields["content"])
    if "sources" in fields:
        kept["sources"] = [
            {name: each.get(name) for name in ("n", "document_id", "score")} for each in fields["sources"]
        ]
    if handoff := fields.get("handoff"):
        kept["handoff"] = {name: value for name, value in handoff.items() if name != "item"}
    return kept
