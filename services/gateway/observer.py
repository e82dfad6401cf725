"""Turns the frames of a request into metrics and its trace's first span, once, where they pass the gateway that
accepted it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import get_args

from baton_proto import subjects
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
from services.common.shares import Share

MEASURES = {
    "ttfb": metrics.TTFB,
    "ttft": metrics.TTFT,
    "retrieval": metrics.RETRIEVAL,
    "answer": metrics.ANSWER,
}


def begin_series(shares: Sequence[Share] = ()) -> None:
    """Let every outcome begin at 0, also those of each variant that has a share."""
    outcomes = (*get_args(FinishReason), *get_args(ErrorCode))
    metrics.begin(metrics.REQUESTS, *outcomes)
    for variant in (*(share.variant for share in shares), metrics.NO_VARIANT) if shares else ():
        for outcome in outcomes:
            metrics.VARIANT_REQUESTS.labels(variant, outcome)
        for measure in MEASURES:
            metrics.VARIANT_SECONDS.labels(variant, measure)
    for share in shares:
        metrics.VARIANT_SHARE.labels(share.variant).set(share.percent / 100)
        for stage in subjects.VARIED_STAGES:
            metrics.MOVED.labels(stage, share.variant)
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
        self._variant: str | None = None

    def tries(self, variant: str) -> None:
        """Variants are compared, and it tries this one, or none; that counts, whoever serves it in the end."""
        self._variant = variant or metrics.NO_VARIANT
        self.span.set("baton.variant", variant or None)

    def see(self, frame: LogFrame) -> None:
        if self._first_frame and not isinstance(frame, Accepted):
            self._first_frame = False
            self._measure("ttfb", self._elapsed())
        if isinstance(frame, AnswerChunk):
            if self._first_chunk:
                self._first_chunk = False
                self._measure("ttft", self._elapsed())
        elif isinstance(frame, Accepted):
            self.span.set("gen_ai.conversation.id", frame.conversation_id or None)
        elif isinstance(frame, Status):
            if frame.stage == "retrieving" and frame.elapsed_ms is not None:
                self._measure("retrieval", frame.elapsed_ms / 1000)
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
        if self._variant is not None:
            metrics.VARIANT_REQUESTS.labels(self._variant, outcome).inc()
        self._measure("answer", self._elapsed())
        self._end_span(outcome)

    def _measure(self, measure: str, seconds: float) -> None:
        MEASURES[measure].observe(seconds, self._exemplar)
        if self._variant is not None:
            metrics.VARIANT_SECONDS.labels(self._variant, measure).observe(seconds, self._exemplar)

    def _end_span(self, outcome: str) -> None:
        self._over = True
        self.span.set("baton.outcome", outcome)
        self.span.end()

    def _elapsed(self) -> float:
        return time.monotonic() - self._started
