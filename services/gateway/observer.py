"""Turns the frames of a request into metrics and its trace's first span, once, where they pass the gateway that
accepted it."""

from __future__ import annotations

import time
from typing import get_args

from baton_proto.messages import (
    Accepted,
    AnswerChunk,
    Done,
    Error,
    ErrorCode,
    FinishReason,
    LogFrame,
    Status,
    ToolResult,
)
from services.common import metrics, tracing


def begin_series() -> None:
    """Let every outcome begin at 0."""
    metrics.begin(metrics.REQUESTS, *get_args(FinishReason), *get_args(ErrorCode))
    metrics.begin(metrics.REFUSED, *get_args(ErrorCode))
    metrics.begin(metrics.TOOL_CALLS, "true", "false")
    metrics.begin(metrics.TOKENS, "prompt", "completion")
    metrics.begin(metrics.RESUMES, "followed", "kept", "gone")


class Observer:
    """Watches one request from its arrival (now) to its end.

    `span` lasts as long; those of the workers are below it. Of a query that becomes no request nothing is told.
    """

    def __init__(self, request_id: str = "") -> None:
        self._started = time.monotonic()
        self._first_frame = True
        self._first_chunk = True
        self._over = False
        self.span = tracing.begin("baton.request", kind="server", attributes={"baton.request_id": request_id})
        self._exemplar = tracing.exemplar(self.span.traceparent)

    def see(self, frame: LogFrame) -> None:
        if self._first_frame and not isinstance(frame, Accepted):
            self._first_frame = False
            metrics.TTFB.observe(self._elapsed(), self._exemplar)
        if isinstance(frame, AnswerChunk):
            if self._first_chunk:
                self._first_chunk = False
                metrics.TTFT.observe(self._elapsed(), self._exemplar)
        elif isinstance(frame, Accepted):
            self.span.set("gen_ai.conversation.id", frame.conversation_id or None)
        elif isinstance(frame, Status):
            if frame.stage == "retrieving" and frame.elapsed_ms is not None:
                metrics.RETRIEVAL.observe(frame.elapsed_ms / 1000, self._exemplar)
        elif isinstance(frame, ToolResult):
            metrics.TOOL_CALLS.labels("true" if frame.ok else "false").inc()
        elif isinstance(frame, Done):
            self._done(frame)
        elif isinstance(frame, Error):
            self.span.fail(frame.code)
            self._ended(frame.code)

    def leave(self) -> None:
        """Nobody watches it here any more; it goes on, or another gateway tells its client."""
        if not self._over:
            self._end_span("left")

    def _done(self, frame: Done) -> None:
        self._ended(frame.finish_reason)
        metrics.QUEUE.observe(frame.timings.queue_ms / 1000, self._exemplar)
        if frame.cache != "hit":  # its usage is that of the answer that was kept; nobody has spent it again
            metrics.TOKENS.labels("prompt").inc(frame.usage.prompt_tokens)
            metrics.TOKENS.labels("completion").inc(frame.usage.completion_tokens)
        if frame.timings.tokens_per_second is not None:
            metrics.TOKENS_PER_SECOND.observe(frame.timings.tokens_per_second, self._exemplar)

    def _ended(self, outcome: str) -> None:
        metrics.REQUESTS.labels(outcome).inc()
        metrics.ANSWER.observe(self._elapsed(), self._exemplar)
        self._end_span(outcome)

    def _end_span(self, outcome: str) -> None:
        self._over = True
        self.span.set("baton.outcome", outcome)
        self.span.end()

    def _elapsed(self) -> float:
        return time.monotonic() - self._started
