"""Spans: which belong to which, what they tell, and what they cost when nobody wants them."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.schemas import Schemas

from baton_proto.messages import ToolCall
from services.common import tracing
from services.common.calls import observing
from services.common.errors import ServiceError
from services.common.logs import request_context, set_up_logging
from tests.servers.processes import ROOT

Spans = InMemorySpanExporter
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def spans() -> Iterator[Spans]:
    """Tracing that is on; what has ended is found here."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use_provider(provider)
    yield exporter
    tracing.use_provider(None)


def named(spans: Spans, name: str) -> ReadableSpan:
    (one,) = [span for span in spans.get_finished_spans() if span.name == name]
    return one


def test_a_span_names_its_parent_and_the_next_hop_is_below_it(spans: Spans) -> None:
    with tracing.span("here", PARENT, "consumer") as here:
        pass
    with tracing.span("there", here.traceparent):
        pass
    first, second = named(spans, "here"), named(spans, "there")
    assert first.parent is not None
    assert f"{first.parent.trace_id:032x}-{first.parent.span_id:016x}" == PARENT[3:52]
    assert second.parent is not None
    assert second.parent.span_id == first.context.span_id


def test_a_span_inside_of_another_is_below_it_without_being_told(spans: Spans) -> None:
    with tracing.span("outer"), tracing.span("inner"):
        pass
    assert named(spans, "inner").parent == named(spans, "outer").context


def test_a_failure_is_told_by_its_code_and_never_by_its_message(spans: Spans) -> None:
    with pytest.raises(ServiceError), tracing.span("served"):
        raise ServiceError("model_failed", "the secret")
    with pytest.raises(ValueError, match="secret"), tracing.span("broken"):
        raise ValueError("the secret")
    assert dict(named(spans, "served").attributes or {}) == {"error.type": "model_failed"}
    assert dict(named(spans, "broken").attributes or {}) == {"error.type": "ValueError"}
    assert "secret" not in "".join(span.to_json() for span in spans.get_finished_spans())


@pytest.mark.parametrize("asked_for", [False, True])
def test_contents_are_left_out_unless_they_are_asked_for(spans: Spans, asked_for: bool) -> None:
    provider = tracing._providers[0]
    tracing.use_provider(provider, contents=asked_for)
    with observing(ToolCall(call_id="call_1", name="pay", arguments={"to": "secret"})) as observed:
        observed.ended(ok=False, result="secret too")
    told = dict(named(spans, "execute_tool pay").attributes or {})
    assert told["gen_ai.tool.name"] == "pay"
    assert told["error.type"] == "tool_failed"
    assert ("secret" in json.dumps(told)) is asked_for
    assert ("gen_ai.tool.call.result" in told) is asked_for


def test_log_lines_carry_the_ids_of_request_and_trace(spans: Spans, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    set_up_logging("generator", "json", "info")
    try:
        with request_context("req_1"), tracing.span("here"):
            logging.getLogger("some.module").info("inside")
        logging.getLogger("some.module").info("outside")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    inside, outside = map(json.loads, capsys.readouterr().err.splitlines())
    where = named(spans, "here").context
    assert (inside["request_id"], inside["trace_id"]) == ("req_1", f"{where.trace_id:032x}")
    assert inside["span_id"] == f"{where.span_id:016x}"
    assert "trace_id" not in outside


def test_only_a_trace_that_is_kept_is_an_example() -> None:
    assert tracing.exemplar(PARENT) == {"trace_id": PARENT[3:35]}
    assert tracing.exemplar(PARENT[:-2] + "00") is None
    assert tracing.exemplar("") is None
    assert tracing.exemplar('"} 1\nbaton_evil 1') is None


def test_a_trace_that_is_not_sampled_stays_so_over_all_hops(spans: Spans) -> None:
    tracing.use_provider(TracerProvider(sampler=ALWAYS_OFF))
    with tracing.span("here") as here:
        assert here.traceparent
        assert tracing.exemplar(here.traceparent) is None
    assert not spans.get_finished_spans()


def test_a_receiver_that_does_not_answer_holds_up_no_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        script = (
            "from services.common import tracing\n"
            "tracing.set_up_tracing('tools')\n"
            "with tracing.span('x'): pass\n"
            "tracing.shut_down_tracing(0.1)\n"
        )
        env = {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "90",  # so long the exporter waits by itself
        }
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=env, check=True, timeout=60)


def test_without_a_receiver_nothing_of_opentelemetry_is_loaded_and_the_parent_is_passed_on() -> None:
    script = (
        "import sys\n"
        "from services.common import tracing, process\n"
        "tracing.set_up_tracing('tools', environ={})\n"
        f"with tracing.span('x', {PARENT!r}) as span: print(span.traceparent)\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, env=env, check=True)
    assert run.stdout.splitlines() == [PARENT, "[]"]


def test_the_names_are_those_of_the_conventions_that_the_spans_declare() -> None:
    assert Schemas.V1_44_0.value == tracing.SCHEMA_URL
    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    used = set()
    for path in (ROOT / "services").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        used |= {part for part in text.split('"') if part.startswith("gen_ai.")}
    assert used
    assert used <= known, used - known
