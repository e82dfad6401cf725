"""A question's way through all services is one trace, and metrics and logs name it."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from tests.servers.otlp import ReceivedSpan, Receiver, otlp_receiver
from tests.servers.processes import free_port, wait_until
from tests.system import System, system

QUESTION = "4815162 * 7 等于多少"
SERVER, CLIENT, CONSUMER, INTERNAL = 2, 3, 5, 1


def test_a_question_with_a_tool_call_is_one_trace_through_every_service(tmp_path: Path) -> None:
    with otlp_receiver() as receiver:
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "BATON_LOG": "json",
            # There is no such server: searching goes on without it, and the retriever says so in its log.
            "BATON_EMBEDDER": "openai",
            "BATON_EMBEDDING_URL": f"http://127.0.0.1:{free_port()}/v1",
            "BATON_EMBEDDING_MODEL": "absent",
            "BATON_RETRIEVAL_TIMEOUT_S": "3",
        }
        with system(tmp_path, settings=settings, documents=None) as one:
            frames = one.ask(QUESTION, request_id="traced")
            assert frames[-1]["type"] == "done"
            wait_until(lambda: len(receiver.spans) >= 10, "all spans have arrived")
            openmetrics = _openmetrics(one)
        logs = _lines(one)

    request, retrieve, embed, search, generate, chat, tools, call, generate_again, chat_again = _in_order(receiver)
    assert [span.parent for span in (request, retrieve, generate, tools, generate_again)] == [
        "",
        request.id,
        retrieve.id,
        generate.id,
        tools.id,
    ]
    assert (embed.parent, search.parent) == (retrieve.id, retrieve.id)
    assert (chat.parent, call.parent) == (generate.id, tools.id)
    assert chat_again.parent == generate_again.id
    assert {span.trace for span in receiver.spans} == {request.trace}
    assert [span.service for span in (request, retrieve, generate, tools)] == [
        "baton-gateway",
        "baton-retriever",
        "baton-generator",
        "baton-tools",
    ]
    assert [span.kind for span in (request, retrieve, chat, call)] == [SERVER, CONSUMER, CLIENT, INTERNAL]
    assert {span.attributes["baton.request_id"] for span in (request, retrieve, generate, tools)} == {"traced"}
    assert request.attributes["baton.outcome"] == "stop"
    assert request.attributes["gen_ai.conversation.id"] == frames[0]["conversation_id"]
    assert chat.attributes["gen_ai.response.finish_reasons"] == ["tool_calls"]
    assert chat_again.attributes["gen_ai.usage.output_tokens"] > 0
    assert chat_again.attributes["gen_ai.response.time_to_first_chunk"] >= 0
    assert call.attributes["gen_ai.tool.name"] == "calculator"
    assert search.attributes["gen_ai.operation.name"] == "retrieval"
    assert [span for span in receiver.spans if span.failed] == [embed]
    assert embed.attributes["error.type"] == "TimeoutError"
    assert not [span for span in receiver.spans if span.events]
    # Nothing that was said: not the question, not what the tool was asked or answered.
    assert "4815162" not in json.dumps([span.attributes for span in receiver.spans], ensure_ascii=False)
    # The bucket into which this question fell names its trace, and log lines do.
    assert f'trace_id="{request.trace}"' in openmetrics["baton_ttfb_seconds_bucket"]
    assert f'trace_id="{request.trace}"' in openmetrics["baton_answer_seconds_bucket"]
    assert [(line["service"], line["trace_id"]) for line in logs] == [("retriever", request.trace)]


def _in_order(receiver: Receiver) -> list[ReceivedSpan]:
    """The spans by the way that the question has gone; the second turn of the generator is below the tools."""
    by_id = {span.id: span for span in receiver.spans}

    def depth(span: ReceivedSpan) -> int:
        return 0 if not span.parent else 1 + depth(by_id[span.parent])

    found = sorted(receiver.spans, key=lambda span: (depth(span), span.name))
    expected = [
        (0, "baton.request"),
        (1, "baton.retrieve"),
        (2, "baton.generate"),
        (2, "embeddings absent"),
        (2, "retrieval baton_documents"),
        (3, "baton.tools.default"),
        (3, "chat extractive"),
        (4, "baton.generate"),
        (4, "execute_tool calculator"),
        (5, "chat extractive"),
    ]
    assert [(depth(span), span.name) for span in found] == expected
    request, retrieve, generate, embed, search, tools, chat, generate_again, call, chat_again = found
    return [request, retrieve, embed, search, generate, chat, tools, call, generate_again, chat_again]


def _openmetrics(one: System) -> dict[str, str]:
    """The gateway's metrics with examples: for each name those of its lines that have one."""
    answer = httpx.get(f"{one.url}/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    found: dict[str, str] = {}
    for line in answer.text.splitlines():
        if " # {" in line:
            name = line.partition("{")[0]
            found[name] = f"{found.get(name, '')}{line}\n"
    return found


def _lines(one: System) -> list[dict[str, str]]:
    """The log lines of all services that belong to the request."""
    lines = [
        json.loads(line)
        for path in sorted(one.folder.glob("*-0.log"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("{")
    ]
    return [line for line in lines if line.get("request_id") == "traced"]
