"""The frames of an answer: its text, and whether two are the same, frame by frame and byte for byte; no I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Frame = dict[str, Any]

OWN_TO_A_RUN = frozenset({"request_id", "conversation_id", "call_id", "timestamp", "elapsed_ms", "timings", "cache"})
"""Ids, times, measured durations, and where the answer came from: what may differ between two runs."""
_MOST_SHOWN = 120


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place at which two answers differ: in which frame, where in it, and what stands there."""

    frame: int
    where: str
    first: str
    second: str

    def __str__(self) -> str:
        return f"frame {self.frame}, {self.where}: {self.first} / {self.second}"


def answer_text(frames: Sequence[Frame]) -> str:
    """The answer as a client puts it together."""
    text = ""
    for frame in frames:
        if frame["type"] == "answer_chunk":
            text += frame["content"]
        elif frame["type"] == "answer_reset":
            text = ""
    return text


def comparable(frames: Sequence[Frame]) -> list[bytes]:
    """Each frame as bytes without what is a run's own, its fields in the order in which they came."""
    return [json.dumps(_stripped(frame), ensure_ascii=False).encode() for frame in frames]


def first_difference(one: Sequence[Frame], other: Sequence[Frame]) -> Difference | None:
    """Where two answers begin to differ; None where they are equal.

    A server joins pieces of an answer for a client that reads too slowly. Where it has, all pieces that follow each
    other are compared as one.
    """
    if joined(one) or joined(other):
        one, other = _joining(one), _joining(other)
    for at, (first, second) in enumerate(zip(comparable(one), comparable(other), strict=False)):
        if first != second:
            where, left, right = _inside(json.loads(first), json.loads(second))
            return Difference(at, where, left, right)
    if len(one) != len(other):
        at = min(len(one), len(other))
        return Difference(at, "type", _type(one, at), _type(other, at))
    return None


def joined(frames: Sequence[Frame]) -> bool:
    return any("from_seq" in frame for frame in frames)


def _stripped(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _stripped(inner) for name, inner in value.items() if name not in OWN_TO_A_RUN}
    return [_stripped(inner) for inner in value] if isinstance(value, list) else value


def _joining(frames: Sequence[Frame]) -> list[Frame]:
    whole: list[Frame] = []
    for frame in frames:
        frame = {name: value for name, value in frame.items() if name not in ("seq", "from_seq")}
        if whole and frame["type"] == whole[-1]["type"] == "answer_chunk":
            whole[-1] = {**whole[-1], "content": whole[-1]["content"] + frame["content"]}
        else:
            whole.append(frame)
    return whole


def _inside(one: Any, other: Any, where: str = "") -> tuple[str, str, str]:
    """The first difference inside a frame: its place, and both values."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in [*one, *(name for name in other if name not in one)]:
            if name not in one or name not in other or one[name] != other[name]:
                return _inside(one.get(name), other.get(name), f"{where}.{name}" if where else name)
        return where or "order of fields", ",".join(one), ",".join(other)
    if isinstance(one, list) and isinstance(other, list):
        for at, (first, second) in enumerate(zip(one, other, strict=False)):
            if first != second:
                return _inside(first, second, f"{where}[{at}]")
        return f"length of {where}", str(len(one)), str(len(other))
    return where, _shown(one), _shown(other)


def _type(frames: Sequence[Frame], at: int) -> str:
    return str(frames[at]["type"]) if at < len(frames) else "nothing"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 1] + "…"
