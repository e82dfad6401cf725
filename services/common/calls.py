"""Tool calls of one turn and their frames, for whoever runs them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from baton_proto.messages import ToolCall, ToolOutcome, ToolResult

log = logging.getLogger(__name__)


def unique_calls(calls: Sequence[ToolCall]) -> list[ToolCall]:
    """The calls without those that repeat an earlier one's id: their results could not be told apart."""
    unique: dict[str, ToolCall] = {}
    for call in calls:
        unique.setdefault(call.call_id, call)
    if len(unique) < len(calls):
        log.warning("%d calls with the id of another call are left out", len(calls) - len(unique))
    return list(unique.values())


def outcome_of(frame: ToolResult) -> ToolOutcome:
    """The outcome that an earlier holder has told."""
    return ToolOutcome(
        call_id=frame.call_id, name=frame.name, ok=frame.ok, content=frame.content, elapsed_ms=frame.elapsed_ms
    )


def result_frame(outcome: ToolOutcome) -> ToolResult:
    return ToolResult(
        call_id=outcome.call_id,
        name=outcome.name,
        ok=outcome.ok,
        elapsed_ms=outcome.elapsed_ms,
        content=outcome.content,
    )
