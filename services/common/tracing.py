"""Traces: one per query, a span for each stage and for each call of a model, a store or a tool; none per token.

Off unless the standard `OTEL_*` variables name a receiver; then nothing of OpenTelemetry is even imported. What spans
and attributes are called follows the GenAI semantic conventions of `SCHEMA_URL`, where these have a name for it;
docs/traces.md lists them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from opentelemetry import trace

log = logging.getLogger(__name__)

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
"""The conventions are still in development: the names used here are those of this version, whatever is installed."""

Kind = Literal["internal", "server", "client", "consumer"]
Value = str | bool | int | float | Sequence[str]

SEND_S = 2.0

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]([0-9a-f])")
_tracer: trace.Tracer | None = None
_contents = False


class Span:
    """A span as far as its owner tells of it; while traces are off it does nothing.

    `traceparent` names it for the next hop (W3C Trace Context).
    """

    __slots__ = ("_otel", "traceparent")

    def __init__(self, traceparent: str, otel: trace.Span | None = None) -> None:
        self.traceparent = traceparent
        self._otel = otel

    def set(self, name: str, value: Value | None) -> None:
        """An attribute; None is left out."""
        if self._otel is not None and value is not None:
            self._otel.set_attribute(name, value)

    def content(self, name: str, make: Callable[[], str]) -> None:
        """An attribute that holds what a user, a document, a tool or a model has said: left out unless asked for."""
        if self._otel is not None and _contents:
            self._otel.set_attribute(name, make())

    def fail(self, kind: str) -> None:
        """It failed. `kind` is a code or the name of an exception; messages might quote contents."""
        if self._otel is not None:
            from opentelemetry.trace import StatusCode

            self._otel.set_attribute("error.type", kind)
            self._otel.set_status(StatusCode.ERROR)

    def end(self) -> None:
        """Only for what `begin` has given; once."""
        if self._otel is not None:
            self._otel.end()

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Spans and log lines made inside, and in tasks begun inside, belong to it."""
        if self._otel is None:
            yield
            return
        from opentelemetry.trace import use_span

        with use_span(self._otel, record_exception=False, set_status_on_exception=False):
            yield


def set_up_tracing(
    service: str, version: str = "", *, contents: bool = False, environ: Mapping[str, str] | None = None
) -> None:
    """Export spans by OTLP over HTTP if `OTEL_EXPORTER_OTLP_ENDPOINT` (or its traces variant) is set."""
    global _tracer, _contents
    environ = os.environ if environ is None else environ
    if not (environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
        return
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if (protocol := environ.get(name, "http/protobuf")) != "http/protobuf":
            log.warning("%s=%s: only http/protobuf is spoken here, as a rule on port 4318", name, protocol)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    about = {"service.name": environ.get("OTEL_SERVICE_NAME") or f"baton-{service}"}
    if version:
        about["service.version"] = version
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)  # see `shut_down_tracing`
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    use_provider(provider, contents=contents)


def use_provider(provider: trace.TracerProvider | None, *, contents: bool = False) -> None:
    """Make spans with this provider from now on; None: make none."""
    global _tracer, _contents
    _tracer = None if provider is None else provider.get_tracer("baton", schema_url=SCHEMA_URL)
    _contents = contents
    _providers[:] = [] if provider is None else [provider]


_providers: list[trace.TracerProvider] = []


def shut_down_tracing(within_s: float = SEND_S) -> None:
    """Send what waits; called once, at the end. A receiver that is away holds up nobody's end for longer than this."""
    for provider in _providers:
        if (shut_down := getattr(provider, "shutdown", None)) is not None:
            sending = threading.Thread(target=shut_down, name="traces", daemon=True)
            sending.start()
            sending.join(within_s)


def begin(
    name: str, traceparent: str = "", kind: Kind = "internal", attributes: Mapping[str, Value | None] | None = None
) -> Span:
    """A span under the one that `traceparent` names, or under the current one. Whoever begins it ends it."""
    if _tracer is None:
        return Span(traceparent)
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator = TraceContextTextMapPropagator()
    otel = _tracer.start_span(
        name,
        context=propagator.extract({"traceparent": traceparent}) if traceparent else None,
        kind=SpanKind[kind.upper()],
        attributes={key: value for key, value in (attributes or {}).items() if value is not None},
    )
    where = otel.get_span_context()
    return Span(f"00-{where.trace_id:032x}-{where.span_id:016x}-{where.trace_flags:02x}", otel)


@contextlib.contextmanager
def span(
    name: str, traceparent: str = "", kind: Kind = "internal", attributes: Mapping[str, Value | None] | None = None
) -> Iterator[Span]:
    """A span around a block, current inside of it; not around the `yield` of a generator. Free when off."""
    one = begin(name, traceparent, kind, attributes)
    try:
        with one.current():
            yield one
    except Exception as error:
        code = getattr(error, "code", None)
        one.fail(code if isinstance(code, str) else type(error).__name__)
        raise
    finally:
        one.end()


def current_ids() -> tuple[str, str]:
    """Trace and span id of where we are, for log lines; empty where there is no trace."""
    if _tracer is None:
        return "", ""
    from opentelemetry.trace import get_current_span

    where = get_current_span().get_span_context()
    return (f"{where.trace_id:032x}", f"{where.span_id:016x}") if where.is_valid else ("", "")


def exemplar(traceparent: str) -> dict[str, str] | None:
    """What a metric's sample says of the trace that it is an example of; None where there is none, or nobody keeps
    it."""
    if not traceparent or (found := _TRACEPARENT.fullmatch(traceparent)) is None or not int(found[2], 16) & 1:
        return None
    return {"trace_id": found[1]}
