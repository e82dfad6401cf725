"""Tool calls of one turn and their frames, for whoever runs them."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence

import msgspec

from baton_proto.messages import ToolCall, ToolOutcome, ToolResult

from . import metrics, tracing

log = logging.getLogger(__name__)

_names = metrics.Names()


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


class Observed:
    """What is told of a call that runs: whether it went well, once that is known."""

    def __init__(self, span: tracing.Span) -> None:
        self._span = span
        self.ok: bool | None = None

    def ended(self, *, ok: bool, result: str) -> None:
        self.ok = ok
        if not ok:
            self._span.fail("tool_failed")
        self._span.content("gen_ai.tool.call.result", lambda: result)


@contextlib.contextmanager
def observing(call: ToolCall, *, known: bool = True) -> Iterator[Observed]:
    """Around the running of a call: its duration and its span. One that is cut off counts as neither good nor bad.

    Args:
        known: whether there is such a tool here; a model may ask for any name.
    """
    started = time.perf_counter()
    about = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": call.name,
        "gen_ai.tool.call.id": call.call_id,
        "gen_ai.tool.type": "function",
    }
    with tracing.span(f"execute_tool {call.name}", attributes=about) as span:
        span.content("gen_ai.tool.call.arguments", lambda: msgspec.json.encode(call.arguments).decode())
        observed = Observed(span)
        yield observed
    if observed.ok is not None:
        name = _names.of(call.name) if known else "unknown"
        seconds = metrics.TOOL_SECONDS.labels(name, "true" if observed.ok else "false")
        seconds.observe(time.perf_counter() - started, tracing.exemplar(span.traceparent))
