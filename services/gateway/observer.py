"""Turns the frames of a request into metrics, once, where they pass the gateway that accepted it."""

from __future__ import annotations

import time

from baton_proto.messages import Accepted, AnswerChunk, Done, Error, LogFrame, Status, ToolResult
from services.common import metrics


class Observer:
    """Watches one request from its arrival (now) to its end."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._first_frame = True
        self._first_chunk = True

    def see(self, frame: LogFrame) -> None:
        if self._first_frame and not isinstance(frame, Accepted):
            self._first_frame = False
            metrics.TTFB.observe(self._elapsed())
        if isinstance(frame, AnswerChunk):
            if self._first_chunk:
                self._first_chunk = False
                metrics.TTFT.observe(self._elapsed())
        elif isinstance(frame, Status):
            if frame.stage == "retrieving" and frame.elapsed_ms is not None:
                metrics.RETRIEVAL.observe(frame.elapsed_ms / 1000)
        elif isinstance(frame, ToolResult):
            metrics.TOOL_CALLS.labels("true" if frame.ok else "false").inc()
        elif isinstance(frame, Done):
            self._done(frame)
        elif isinstance(frame, Error):
            self._ended(frame.code)

    def _done(self, frame: Done) -> None:
        self._ended(frame.finish_reason)
        metrics.QUEUE.observe(frame.timings.queue_ms / 1000)
        if frame.cache != "hit":  # its usage is that of the answer that was kept; nobody has spent it again
            metrics.TOKENS.labels("prompt").inc(frame.usage.prompt_tokens)
            metrics.TOKENS.labels("completion").inc(frame.usage.completion_tokens)
        if frame.timings.tokens_per_second is not None:
            metrics.TOKENS_PER_SECOND.observe(frame.timings.tokens_per_second)

    def _ended(self, outcome: str) -> None:
        metrics.REQUESTS.labels(outcome).inc()
        metrics.ANSWER.observe(self._elapsed())

    def _elapsed(self) -> float:
        return time.monotonic() - self._started
