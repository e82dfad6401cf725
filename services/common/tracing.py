"""Traces: one per query, one span per stage. Off unless the standard `OTEL_*` variables name a receiver."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

from opentelemetry import trace
from opentelemetry.propagate import extract, inject
from opentelemetry.trace import SpanKind

_enabled = False


def set_up_tracing(service: str, environ: Mapping[str, str] | None = None) -> None:
    """Export spans by OTLP over HTTP if `OTEL_EXPORTER_OTLP_ENDPOINT` (or its traces variant) is set."""
    global _enabled
    environ = os.environ if environ is None else environ
    if not (environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
        return
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": f"baton-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    _enabled = True


def shut_down_tracing() -> None:
    """Send what waits; called once, at the end."""
    provider = trace.get_tracer_provider()
    if _enabled and hasattr(provider, "shutdown"):
        provider.shutdown()


@contextlib.contextmanager
def span(name: str, traceparent: str = "", **attributes: str | int | float) -> Iterator[str]:
    """A span under the one that `traceparent` names; gives its own traceparent for the next hop. Free when off."""
    if not _enabled:
        yield traceparent
        return
    parent = extract({"traceparent": traceparent}) if traceparent else None
    tracer = trace.get_tracer("baton")
    with tracer.start_as_current_span(name, context=parent, kind=SpanKind.CONSUMER, attributes=attributes):
        carrier: dict[str, str] = {}
        inject(carrier)
        yield carrier.get("traceparent", "")
