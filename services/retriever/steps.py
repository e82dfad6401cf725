"""The steps of a search, each measured and a span of the question's trace."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Literal

from services.common import metrics, tracing

Step = Literal["rewrite", "embed", "search", "rerank"]
STEPS: tuple[Step, ...] = ("rewrite", "embed", "search", "rerank")

_SECONDS = {step: metrics.RETRIEVAL_STEPS.labels(step) for step in STEPS}
_CALLS_A_MODEL = frozenset({"embed", "rerank"})


@contextlib.contextmanager
def step(name: Step, called: str = "", attributes: Mapping[str, tracing.Value | None] | None = None) -> Iterator[None]:
    """Around one step, however it ends.

    Args:
        called: the name of its span; that of the step, if there is none.
    """
    started = time.perf_counter()
    kind: tracing.Kind = "client" if name in _CALLS_A_MODEL else "internal"
    with tracing.span(called or name, kind=kind, attributes=attributes) as span:
        try:
            yield
        finally:
            _SECONDS[name].observe(time.perf_counter() - started, tracing.exemplar(span.traceparent))
