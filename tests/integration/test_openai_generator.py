"""The generator for OpenAI-compatible servers, against a real one and against one that misbehaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from baton_proto.messages import PastTurn, Sampling, ToolCall, ToolOutcome, ToolSpec, ToolTurn, Usage
from services.common.config import GeneratorSettings
from services.common.errors import ServiceError
from services.common.llm import server as llm_server
from services.common.settings import SettingsError
from services.generator.budget import prompt_tokens
from services.generator.openai_chat import open_generator
from services.generator.port import (
    Calls,
    Continued,
    Event,
    Finish,
    Generator,
    Offered,
    Prompt,
    Text,
    Thinking,
)
from tests.answer_job import passage
from tests.servers.llm import CUT, DONE, HANG, ScriptedLLM, aimock, continuing_llm, delta, event, head, scripted_llm
from tests.servers.processes import eventually, free_port

LEAVE = ToolSpec(name="leave_balance", description="Days left", parameters={"type": "object", "properties": {}})
CLOCK = ToolSpec(name="date_time", description="Now", parameters={"type": "object", "properties": {}})

FIXTURES: list[dict[str, Any]] = [
    {"match": {"userMessage": "carry over"}, "response": {"content": "At most 5 days 😀. [1]"}},
    {
        "match": {"userMessage": "left", "hasToolResult": False},
        "response": {"toolCalls": [{"id": "call_a", "name": "leave_balance", "arguments": {"leave_type": "annual"}}]},
    },
    {"match": {"userMessage": "left", "toolResultContains": "8.5"}, "response": {"content": "You have 8.5 days left."}},
    {
        "match": {"userMessage": "both"},
        "response": {
            "content": "Let me look.",
            "toolCalls": [
                {"id": "call_a", "name": "leave_balance", "arguments": {"leave_type": "annual", "why": "x" * 60}},
                {"id": "call_b", "name": "date_time", "arguments": {}},
            ],
        },
    },
    {
        "match": {"userMessage": "overloaded"},
        "response": {"error": {"message": "overloaded sk-secret", "type": "server_error"}, "status": 503},
    },
    {
        "match": {"userMessage": "forbidden"},
        "response": {"error": {"message": "Incorrect API key sk-secret", "type": "auth"}, "status": 401},
    },
    {
        "match": {"userMessage": "too long"},
        "response": {
            "error": {
                "message": "This model's maximum context length is 4096 tokens",
                "code": "context_length_exceeded",
            },
            "status": 400,
        },
    },
    {
        "match": {"userMessage": "cut"},
        "response": {"content": "This answer breaks off somewhere in the middle of it all."},
        "truncateAfterChunks": 3,
        "streamingProfile": {"ttft": 20, "tps": 50},
    },
    {
        "match": {"userMessage": "slow"},
        "response": {"content": "word " * 40},
        "streamingProfile": {"ttft": 50, "tps": 20},
    },
    {"match": {"userMessage": "stall"}, "response": {"content": "never"}, "streamingProfile": {"ttft": 20_000}},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with aimock(tmp_path_factory.mktemp("aimock"), FIXTURES, "-c", "7") as url:
        yield url


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between attempts: a machine that stands still does not turn what is to fail into what takes too long."""
    monkeypatch.setattr(llm_server, "_FIRST_PAUSE_S", 0.01)


@asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[Generator]:
    values = {"llm_url": url, "llm_model": "gpt-4o-mini", "llm_api_key": "sk-secret", **settings}
    async with open_generator(GeneratorSettings(**values)) as generator:
        yield generator


async def events_of(generator: Generator, prompt: Prompt) -> list[Event]:
    return [event async for event in generator.generate(prompt)]


def ask(url: str, question: str, *, prompt: dict[str, Any] | None = None, **settings: Any) -> list[Event]:
    async def scenario() -> list[Event]:
        async with opened(url, **settings) as generator:
            return await events_of(generator, Prompt(question, "en", [passage(1, "5 days")], **(prompt or {})))

    return asyncio.run(scenario())


def failure(url: str, question: str, **settings: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        ask(url, question, **settings)
    assert "sk-secret" not in caught.value.message
    return caught.value


def text(events: list[Event]) -> str:
    return "".join(event.content for event in events if isinstance(event, Text))


def end(events: list[Event]) -> Calls | Finish:
    assert isinstance(events[-1], Calls | Finish)
    return events[-1]


# --- against the real server ------------------------------------------------------------------------------------------


def test_an_answer_streams_in_pieces_with_the_usage_that_the_server_counted(server: str) -> None:
    events = ask(server, "How many days can I carry over?")
    assert text(events) == "At most 5 days 😀. [1]"
    assert len(events) > 3
    finish = end(events)
    assert isinstance(finish, Finish)
    assert finish.reason == "stop"
    assert finish.usage.completion_tokens > 0


def test_a_tool_call_and_its_result_lead_to_an_answer(server: str) -> None:
    tools = {"tools": [LEAVE]}
    asked = end(ask(server, "What is left?", prompt=tools))
    assert isinstance(asked, Calls)
    assert asked.calls == [ToolCall(call_id="call_a", name="leave_balance", arguments={"leave_type": "annual"})]
    result = ToolOutcome(call_id="call_a", name="leave_balance", ok=True, content="8.5 days")
    turn = ToolTurn(calls=list(asked.calls), results=[result])
    assert text(ask(server, "What is left?", prompt={**tools, "turns": [turn]})) == "You have 8.5 days left."


def test_parallel_calls_are_put_together_from_their_fragments(server: str) -> None:
    events = ask(server, "both", prompt={"tools": [LEAVE, CLOCK]})
    calls = end(events)
    assert isinstance(calls, Calls)
    assert text(events) == "Let me look."
    assert [(call.call_id, call.name) for call in calls.calls] == [("call_a", "leave_balance"), ("call_b", "date_time")]
    assert calls.calls[0].arguments == {"leave_type": "annual", "why": "x" * 60}
    assert calls.calls[1].arguments == {}


@pytest.mark.parametrize(
    ("question", "retryable", "says"),
    [
        ("overloaded", True, "503"),
        ("forbidden", False, "BATON_LLM_API_KEY"),
        ("too long", False, "longer than"),
        ("something without a fixture", True, "503"),
    ],
)
def test_refusals_become_failures_that_name_no_secret(server: str, question: str, retryable: bool, says: str) -> None:
    error = failure(server, question)
    assert (error.code, error.retryable) == ("model_failed", retryable)
    assert says in error.message


def test_a_stream_that_is_cut_off_is_a_failure_after_its_text(server: str) -> None:
    said = ""

    async def scenario() -> None:
        nonlocal said
        async with opened(server) as generator:
            async for event in generator.generate(Prompt("cut", "en")):
                said += event.content if isinstance(event, Text) else ""

    with pytest.raises(ServiceError) as caught:
        asyncio.run(scenario())
    assert (caught.value.code, caught.value.retryable) == ("model_failed", True)
    assert said.startswith("This")


def test_a_slow_stream_is_waited_for(server: str) -> None:
    assert text(ask(server, "slow", token_timeout_s=20.0)).split() == ["word"] * 40


def test_a_model_that_does_not_begin_has_stalled(server: str) -> None:
    error = failure(server, "stall", first_token_timeout_s=0.3)
    assert (error.code, error.retryable) == ("model_stalled", True)


def test_a_server_that_is_down_is_a_retryable_failure() -> None:
    error = failure(f"http://127.0.0.1:{free_port()}/v1", "hello")
    assert (error.code, error.retryable) == ("model_failed", True)


# --- against a server that misbehaves ---------------------------------------------------------------------------------


def run_script(*scripts: list[Any], prompt: dict[str, Any] | None = None, **settings: Any) -> tuple[Any, ScriptedLLM]:
    """What the generator made of the scripts, events or the failure, and what the server saw."""

    async def scenario() -> tuple[Any, ScriptedLLM]:
        async with scripted_llm(*scripts) as llm, opened(llm.url, **settings) as generator:
            try:
                return await events_of(generator, Prompt("q", "en", **(prompt or {}))), llm
            except ServiceError as error:
                return error, llm

    return asyncio.run(scenario())


PLAIN = [head(), delta("Fine."), delta(finish="stop"), DONE]


def test_a_stream_without_done_or_usage_is_complete_with_its_finish_reason() -> None:
    events, _ = run_script([head(), delta("Fine."), delta(finish="length")])
    assert text(events) == "Fine."
    assert end(events).reason == "length"
    assert end(events).usage.completion_tokens > 0


def test_usage_is_taken_from_the_last_chunk_also_without_choices() -> None:
    usage = event({"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 3}})
    events, _ = run_script([head(), delta("Fine.", role="assistant"), delta(finish="stop"), usage, DONE])
    assert end(events).usage == Usage(prompt_tokens=12, completion_tokens=3)


def test_a_finished_stream_that_stays_open_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_server, "_AFTER_FINISH_S", 0.1)
    # A server that has not finished might take longer than this test may.
    events, llm = run_script([head(), delta("Fine."), delta(finish="stop"), HANG], token_timeout_s=600.0)
    assert text(events) == "Fine."
    assert len(llm.requests) == 1


def test_reasoning_broken_characters_and_comments_stay_out_of_the_answer() -> None:
    script = [
        head(),
        b": PROCESSING\n\n",
        delta(reasoning_content="hmm"),
        delta("<thi"),
        delta("nk>secret</think>\n\nGr"),
        b'data: {"choices":[{"delta":{"content":"\xe5\xb9"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\r\n\r\n',
        b'data: {"choices":[{"delta":{"content":"\\ude00"}}]}\n\n',
        delta(finish="stop"),
        DONE,
    ]
    events, _ = run_script(script)
    assert text(events) == "Gr�😀"


def test_an_error_object_in_the_stream_is_a_failure() -> None:
    error, _ = run_script([head(), delta("Half"), event({"error": {"message": "out of memory", "code": 500}})])
    assert (error.code, error.retryable) == ("model_failed", True)
    assert "memory" not in error.message


@pytest.mark.parametrize("body", [b"<html>", b"data: nonsense\n\n", b"data: 3\n\n", b"", b"data: " + b"x" * 2_000_000])
def test_what_is_no_completion_is_a_failure_and_bounded(body: bytes) -> None:
    error, _ = run_script([head(), body])
    assert error.code == "model_failed"


def test_a_failure_before_the_first_token_is_tried_again() -> None:
    busy = [head("503 Service Unavailable", "application/json"), b'{"error":{"message":"busy"}}']
    events, llm = run_script(busy, [head(), CUT], PLAIN)
    assert text(events) == "Fine."
    assert len(llm.requests) == 3


def test_a_failure_after_the_first_token_is_not_tried_again() -> None:
    error, llm = run_script([head(), delta("Half"), CUT])
    assert (error.code, error.retryable, len(llm.requests)) == ("model_failed", True, 1)


def test_a_rate_limit_is_waited_for_only_within_the_time_for_the_first_token() -> None:
    limited = [head("429 Too Many Requests", "application/json", Retry_After="60"), b"{}"]
    error, llm = run_script(limited, PLAIN, first_token_timeout_s=20.0)
    assert (error.code, error.retryable, error.retry_after_ms) == ("model_failed", True, 60_000)
    assert len(llm.requests) == 1
    soon = [head("429 Too Many Requests", "application/json", Retry_After="0"), b"{}"]
    assert text(run_script(soon, PLAIN)[0]) == "Fine."


def test_a_stream_that_stops_between_tokens_has_stalled() -> None:
    error, llm = run_script([head(), delta("Half"), HANG], token_timeout_s=0.2)
    assert (error.code, len(llm.requests)) == ("model_stalled", 1)


def test_keep_alive_comments_are_no_progress() -> None:
    error, _ = run_script([head(), *[b": still here\n\n"] * 20, HANG], first_token_timeout_s=0.3)
    assert error.code == "model_stalled"


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("stream_options", "Unrecognized request argument supplied: stream_options"),
        ("max_tokens", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
        ("temperature", "Unsupported value: 'temperature' does not support 0.1 with this model."),
        ("tools", "registry/model does not support tools"),
    ],
)
def test_an_optional_field_that_the_server_refuses_is_left_out_from_then_on(field: str, message: str) -> None:
    refused = [head("400 Bad Request", "application/json"), json.dumps({"error": {"message": message}}).encode()]
    sampling = Sampling(temperature=0.1, max_tokens=77, seed=5)

    async def scenario() -> list[dict[str, Any]]:
        async with scripted_llm(refused, PLAIN) as llm, opened(llm.url) as generator:
            for _ in range(2):
                prompt = Prompt("q", "en", tools=[LEAVE], sampling=sampling)
                assert text(await events_of(generator, prompt)) == "Fine."
            return llm.requests

    first, second, third = asyncio.run(scenario())
    assert field in first
    assert field not in second
    assert field not in third
    if field == "max_tokens":
        assert second["max_completion_tokens"] == third["max_completion_tokens"] == 77


def test_arguments_that_are_no_json_are_given_back_to_the_model() -> None:
    bad = [head(), delta(tool_calls=[{"index": 0, "id": "x", "function": {"name": "date_time", "arguments": "{'a"}}])]
    good = [head(), delta(tool_calls=[{"index": 0, "id": "x", "function": {"name": "date_time", "arguments": ""}}])]
    last = [delta(finish="tool_calls"), DONE]
    events, llm = run_script([*bad, *last], [*good, *last], prompt={"tools": [CLOCK]})
    assert end(events).calls == [ToolCall(call_id="x", name="date_time", arguments={})]
    repair = llm.requests[1]["messages"]
    assert repair[-2]["tool_calls"][0]["function"]["arguments"] == "{}"
    assert "not valid JSON" in repair[-1]["content"]
    error, llm = run_script([*bad, *last], prompt={"tools": [CLOCK]})
    assert (error.code, error.retryable, len(llm.requests)) == ("model_failed", True, 3)


def test_a_call_id_that_was_used_before_is_made_new() -> None:
    call = ToolCall(call_id="x", name="date_time", arguments={})
    turn = ToolTurn(calls=[call], results=[ToolOutcome(call_id="x", name="date_time", ok=True, content="now")])
    script = [
        head(),
        delta(tool_calls=[{"index": 0, "id": "x", "function": {"name": "date_time"}}], finish="tool_calls"),
    ]
    events, _ = run_script(script, prompt={"tools": [CLOCK], "turns": [turn]})
    assert end(events).calls[0].call_id != "x"


def test_a_server_that_does_not_stream_is_understood() -> None:
    whole = {"choices": [{"message": {"content": "All at once."}, "finish_reason": "stop"}]}
    events, _ = run_script([head(kind="application/json"), json.dumps(whole).encode()])
    assert text(events) == "All at once."


def test_closing_the_iterator_closes_the_connection_at_once() -> None:
    async def scenario() -> None:
        async with scripted_llm([head(), delta("On"), HANG]) as llm, opened(llm.url) as generator:
            events = generator.generate(Prompt("q", "en"))
            assert await anext(events) == Text("On")
            await events.aclose()
            await eventually(lambda: llm.hung_up == 1, "the server sees its client go")

    asyncio.run(scenario())


@pytest.mark.parametrize("script", [[HANG], [head(), HANG], [head(), delta("On"), HANG]])
def test_a_cancelled_task_closes_the_connection_whatever_it_waits_for(script: list[Any]) -> None:
    async def scenario() -> None:
        async with scripted_llm(script) as llm, opened(llm.url) as generator:
            task = asyncio.create_task(events_of(generator, Prompt("q", "en")))
            await eventually(lambda: llm.requests, "the server is asked")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await eventually(lambda: llm.hung_up == 1, "the server sees its client go")

    asyncio.run(scenario())


def test_the_key_is_sent_and_nothing_else_of_the_settings() -> None:
    _, llm = run_script(PLAIN)
    assert llm.headers[0]["authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in json.dumps(llm.requests)


def test_settings_that_cannot_work_are_refused_at_start(tmp_path: Path) -> None:
    async def scenario(**settings: Any) -> None:
        async with open_generator(GeneratorSettings(**settings)):
            pass

    with pytest.raises(SettingsError, match="BATON_LLM_URL") as caught:
        asyncio.run(scenario())
    assert len(caught.value.problems) == 2
    with pytest.raises(SettingsError, match="BATON_PROMPTS"):
        asyncio.run(scenario(llm_url="http://x/v1", llm_model="m", prompts=str(tmp_path)))


# --- prompts: history, budget, overflow -------------------------------------------------------------------------------

HISTORY = [
    PastTurn(query="How many days of annual leave?", answer="Ten days."),
    PastTurn(query="第二个问题", answer="好。"),
]
LONG = [passage(n, f"Passage {n}. " + "word " * 900) for n in range(1, 6)]


def refusal(message: str, status: str = "400 Bad Request", **further: Any) -> list[bytes]:
    return [head(status, "application/json"), json.dumps({"error": {"message": message, **further}}).encode()]


def sent(request: dict[str, Any]) -> int:
    return prompt_tokens(request["messages"], request.get("tools", ()))


def test_earlier_turns_stand_between_the_instructions_and_the_question() -> None:
    _, llm = run_script(PLAIN, prompt={"history": HISTORY, "passages": [passage(1, "5 days")]})
    messages = llm.requests[0]["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert [message["content"] for message in messages[1:3]] == ["How many days of annual leave?", "Ten days."]
    assert "5 days" in messages[-1]["content"]


def test_a_prompt_is_never_larger_than_its_budget_and_says_which_passages_are_in_it() -> None:
    events, llm = run_script(PLAIN, prompt={"passages": LONG, "history": HISTORY}, prompt_tokens=4_000)
    assert sent(llm.requests[0]) <= 4_000
    assert events[0] == Offered(frozenset({1, 2, 3, 4}))
    assert "Passage 2." in llm.requests[0]["messages"][-1]["content"]
    assert "Passage 5." not in llm.requests[0]["messages"][-1]["content"]


def test_what_is_said_about_bad_calls_fits_the_budget_too() -> None:
    bad = delta(tool_calls=[{"index": 0, "id": "x", "function": {"name": "n" * 100, "arguments": "{'a"}}])
    prompt = {"passages": LONG, "tools": [CLOCK]}
    _, llm = run_script(
        [head(), delta("y " * 500), bad, delta(finish="tool_calls"), DONE], PLAIN, prompt=prompt, prompt_tokens=4_000
    )
    assert [sent(request) <= 4_000 for request in llm.requests] == [True, True]


def test_a_question_that_is_too_long_by_itself_is_refused_without_asking_the_server() -> None:
    async def scenario() -> tuple[ServiceError, int]:
        async with scripted_llm(PLAIN) as llm, opened(llm.url, prompt_tokens=1_500) as generator:
            with pytest.raises(ServiceError) as caught:
                await events_of(generator, Prompt("很长的问题" * 2_000, "zh"))
            return caught.value, len(llm.requests)

    error, requests = asyncio.run(scenario())
    assert (error.code, error.retryable, requests) == ("model_failed", False, 0)
    assert "BATON_PROMPT_TOKENS" in error.message


def test_a_server_that_says_too_long_is_asked_again_with_less_at_most_twice() -> None:
    too_long = refusal("context_length_exceeded")
    prompt = {"passages": LONG, "history": HISTORY}
    events, llm = run_script(too_long, too_long, PLAIN, prompt=prompt)
    assert text(events) == "Fine."
    first, second, third = map(sent, llm.requests)
    assert second <= first * 2 // 3
    assert third <= second * 2 // 3
    assert [event for event in events if isinstance(event, Offered)][-1] == Offered(frozenset({1, 2}))
    error, llm = run_script(too_long, prompt=prompt)
    assert (error.code, error.retryable, len(llm.requests)) == ("model_failed", False, 3)
    assert "longer than the language model can read" in error.message


def test_the_limit_that_a_server_tells_is_kept_for_the_next_question() -> None:
    told = refusal(
        "the request exceeds the available context size",
        type="exceed_context_size_error",
        n_prompt_tokens=5_000,
        n_ctx=2_048,
    )

    async def scenario() -> list[dict[str, Any]]:
        async with scripted_llm(told, PLAIN) as llm, opened(llm.url) as generator:
            for _ in range(2):
                prompt = Prompt("q", "en", LONG, sampling=Sampling(max_tokens=300))
                assert text(await events_of(generator, prompt)) == "Fine."
            return llm.requests

    requests = asyncio.run(scenario())
    assert len(requests) == 3
    # The server counts less than we do; what it takes is 2048 tokens of its own, 300 of them for the answer.
    least, most = (share * (2_048 - 300) / 5_000 * sent(requests[0]) for share in (0.8, 0.96))
    assert least <= sent(requests[1]) <= most
    assert sent(requests[2]) <= most


def test_an_answer_that_is_asked_to_be_too_long_is_asked_to_be_shorter() -> None:
    told = refusal(
        "This model's maximum context length is 6048 tokens. However, you requested 6616 tokens (568 in the messages, "
        "6048 in the completion). Please reduce the length of the messages or completion."
    )
    events, llm = run_script(told, PLAIN, prompt={"sampling": Sampling(max_tokens=6_048)})
    assert text(events) == "Fine."
    assert [request["max_tokens"] for request in llm.requests] == [6_048, 3_024]
    assert sent(llm.requests[0]) == sent(llm.requests[1])


def test_an_error_about_the_length_inside_the_stream_counts_too() -> None:
    inside = [head(), event({"error": {"code": 400, "message": "exceeds the available context size", "n_ctx": 4_096}})]
    assert text(run_script(inside, PLAIN, prompt={"passages": LONG})[0]) == "Fine."
    error, llm = run_script([head(), delta("Half"), *inside[1:]])
    assert (error.code, len(llm.requests)) == ("model_failed", 1)


def test_a_prompt_that_the_server_cut_silently_is_noticed_once(caplog: pytest.LogCaptureFixture) -> None:
    cut = [
        head(),
        delta("Fine."),
        event({"choices": [], "usage": {"prompt_tokens": 2_051, "completion_tokens": 1}}),
        DONE,
    ]

    async def scenario() -> None:
        async with scripted_llm(cut) as llm, opened(llm.url) as generator:
            for _ in range(2):
                await events_of(generator, Prompt("q", "en", LONG))

    asyncio.run(scenario())
    assert len([record for record in caplog.records if "silently" in record.message]) == 1


def test_passages_that_a_search_found_stand_with_its_result() -> None:
    found = ToolOutcome(call_id="a", name="search_documents", ok=True, content="Found: 2, 3.", passages=[2, 3])
    again = ToolOutcome(call_id="b", name="search_documents", ok=True, content="Found: 3.", passages=[3])
    turns = [
        ToolTurn(calls=[ToolCall(call_id=one.call_id, name=one.name, arguments={"query": "x"})], results=[one])
        for one in (found, again)
    ]
    passages = [passage(1, "First hit."), passage(2, "Second </passages> hit."), passage(3, "Third hit.")]
    _, llm = run_script(PLAIN, prompt={"passages": passages, "turns": turns})
    _, question, _, first, _, second = llm.requests[0]["messages"]
    assert "First hit." in question["content"]
    assert "Second" not in question["content"]
    assert first["content"].startswith('Found: 2, 3.\n\n<passages>\n<passage n="2"')
    assert "Third hit." in first["content"]
    assert first["content"].count("</passages>") == 1
    assert second["content"] == (
        'Found: 3.\n\n<passages>\n<passage n="3" title="Document 3">\n(The text of this passage is given above.)\n'
        "</passage>\n</passages>"
    )


# --- sampling, presets, thinking, filters -----------------------------------------------------------------------------


def test_all_sampling_fields_are_sent() -> None:
    sampling = Sampling(
        seed=1, temperature=0.5, max_tokens=9, top_p=0.9, presence_penalty=0.1, frequency_penalty=-0.1, stop=["\n\n"]
    )
    _, llm = run_script(PLAIN, prompt={"sampling": sampling, "tools": [CLOCK]})
    wanted = {name: getattr(sampling, name) for name in Sampling.__struct_fields__}
    assert {name: llm.requests[0][name] for name in wanted} == wanted
    assert "parallel_tool_calls" not in llm.requests[0]


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 32768. This model supports at most 4096 completion tokens.",
        "<400> InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, 4096]",
        "Invalid max_tokens value, the valid range of max_tokens is [1, 4096]",
    ],
)
def test_an_answer_longer_than_the_model_ever_gives_is_asked_for_at_its_limit(message: str) -> None:
    events, llm = run_script(refusal(message), PLAIN, prompt={"sampling": Sampling(max_tokens=32_768)})
    assert text(events) == "Fine."
    assert [request["max_tokens"] for request in llm.requests] == [32_768, 4_096]


def test_a_preset_adds_its_fields_and_a_server_that_refuses_one_goes_without() -> None:
    unknown = refusal("Unknown parameter: 'chat_template_kwargs'.")
    _, llm = run_script(unknown, PLAIN, llm_preset="qwen", llm_body='{"top_k": 20}')
    first, second = llm.requests
    assert (first["chat_template_kwargs"], first["top_k"]) == ({"enable_thinking": False}, 20)
    assert "chat_template_kwargs" not in second
    assert second["top_k"] == 20
    _, llm = run_script(PLAIN, prompt={"tools": [CLOCK]}, llm_preset="llama3")
    assert llm.requests[0]["parallel_tool_calls"] is False


@pytest.mark.parametrize(
    "thoughts",
    [
        [delta(reasoning_content="h"), delta(reasoning_content="m")],
        [delta(reasoning="h"), delta(reasoning="m")],
        [delta("<think>h"), delta("m</think>")],
    ],
)
def test_the_model_s_thoughts_are_told_of_once_and_kept_out(thoughts: list[bytes]) -> None:
    events, _ = run_script([head(), *thoughts, delta("Fine."), delta(finish="stop"), DONE])
    assert events[:2] == [Thinking(), Text("Fine.")]
    assert Thinking() not in events[1:]


def test_thinking_is_told_before_the_model_has_ended_it() -> None:
    async def scenario() -> None:
        async with scripted_llm([head(), delta(reasoning_content="hm"), HANG]) as llm, opened(llm.url) as generator:
            events = generator.generate(Prompt("q", "en"))
            assert await anext(events) == Thinking()
            await events.aclose()

    asyncio.run(scenario())


def test_a_filter_ends_the_answer_wherever_it_strikes() -> None:
    asked = refusal("Input data may contain inappropriate content.", code="data_inspection_failed")
    events, llm = run_script(asked)
    assert (end(events).reason, text(events), len(llm.requests)) == ("content_filter", "", 1)
    answered = [head(), delta("Half"), event({"error": {"code": "data_inspection_failed", "message": "no"}})]
    events, _ = run_script(answered)
    assert (end(events).reason, text(events)) == ("content_filter", "Half")
    assert end(events).usage.completion_tokens > 0


def test_a_throttle_that_calls_itself_a_quota_is_waited_for() -> None:
    throttled = [
        head("429 Too Many Requests", "application/json", retry_after_ms="1"),
        b'{"error":{"code":"insufficient_quota","message":"You exceeded your quota, see error-code#token-limit"}}',
    ]
    events, llm = run_script(throttled, PLAIN)
    assert (text(events), len(llm.requests)) == ("Fine.", 2)


# --- going on from what a lost holder has stored ----------------------------------------------------------------------

WHOLE = "You can carry over at most 5 days of it. [1]"
BEGUN = "You can carry over"
WAYS = ["vllm", "prefix", "partial", "plain"]


def go_on(url: str, written: str = BEGUN, *, way: str = "vllm", **prompt: Any) -> list[Event]:
    return ask(url, "q", prompt={"written": written, **prompt}, llm_continue=way)


@pytest.mark.parametrize("way", WAYS)
def test_a_server_is_asked_to_continue_in_its_own_way(way: str) -> None:
    with continuing_llm(WHOLE, way=way) as llm:
        events = go_on(llm.url, way=way)
        assert events[0] == Continued()
        assert BEGUN + text(events) == WHOLE
        assert llm.begun == 0


@pytest.mark.parametrize("way", [*WAYS, "off"])
def test_a_server_that_refuses_to_continue_is_asked_from_the_start_and_not_again(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(url: str) -> None:
        async with opened(url, llm_continue=way) as generator:
            for _ in range(2):
                events = await events_of(generator, Prompt("q", "en", written=BEGUN))
                assert Continued() not in events
                assert text(events) == WHOLE

    other = "partial" if way == "prefix" else "prefix"
    with continuing_llm(WHOLE, way="off" if way in ("plain", "off") else other) as llm:
        asyncio.run(scenario(llm.url))
        assert len(llm.requests) == (2 if way == "off" else 3)
    warnings = [record for record in caplog.records if "BATON_LLM_CONTINUE" in record.message]
    assert len(warnings) == (0 if way == "off" else 1)


@pytest.mark.parametrize("status", ["400 Bad Request", "500 Internal Server Error"])
def test_a_refusal_that_does_not_say_why_is_not_remembered(status: str) -> None:
    bad = [head(status, "application/json"), b"{}"]
    going_on = [head(), delta(" on."), delta(finish="stop"), DONE]

    async def scenario() -> None:
        async with scripted_llm(bad, PLAIN, going_on) as llm, opened(llm.url, llm_continue="plain") as generator:
            assert text(await events_of(generator, Prompt("q", "en", written=BEGUN))) == "Fine."
            events = await events_of(generator, Prompt("q", "en", written=BEGUN))
            assert events[:2] == [Continued(), Text(" on.")]

    asyncio.run(scenario())


def test_white_space_at_the_end_is_not_sent_and_not_doubled() -> None:
    with continuing_llm("There are two:\n\n- five days\n- ten days") as llm:
        written = "There are two:\n\n"
        assert written + text(go_on(llm.url, written)) == "There are two:\n\n- five days\n- ten days"
        assert llm.requests[0]["messages"][-1]["content"] == "There are two:"


def test_a_server_that_repeats_the_message_first_is_understood() -> None:
    with continuing_llm(WHOLE, echo=True) as llm:
        events = go_on(llm.url)
        assert (events[0], BEGUN + text(events)) == (Continued(), WHOLE)


def test_a_server_that_starts_over_is_asked_from_the_start() -> None:
    with continuing_llm("You can carry over what is left.", WHOLE, starts_over=True) as llm:
        events = go_on(llm.url, "You can carry over at most")
        assert Continued() not in events
        assert text(events) == WHOLE
        assert [request["messages"][-1]["role"] for request in llm.requests] == ["assistant", "user"]


def test_a_few_characters_are_said_again() -> None:
    with continuing_llm(WHOLE) as llm:
        assert text(go_on(llm.url, "You")) == WHOLE
        assert llm.begun == 1


def test_an_answer_that_was_complete_only_ends() -> None:
    with continuing_llm(WHOLE) as llm:
        continued, finish = go_on(llm.url, WHOLE)
        assert continued == Continued()
        assert isinstance(finish, Finish)


@pytest.mark.parametrize("counts", [True, False])
def test_tokens_of_the_text_that_is_continued_are_estimated(counts: bool) -> None:
    with continuing_llm(WHOLE, counts=counts) as llm:
        events = go_on(llm.url, sampling=Sampling(max_tokens=50))
        # 5 for what is there; the server counts the 7 words that it adds.
        assert llm.requests[0]["max_tokens"] == 50 - 5
        usage = end(events).usage
        assert usage.completion_tokens == 5 + 7 if counts else usage.completion_tokens >= 12
        assert usage.prompt_tokens == 100 if counts else usage.prompt_tokens > 100


def test_turns_with_tools_stand_before_the_text_that_is_continued() -> None:
    call = ToolCall(call_id="x", name="date_time", arguments={})
    turn = ToolTurn(calls=[call], results=[ToolOutcome(call_id="x", name="date_time", ok=True, content="now")])
    with continuing_llm(WHOLE) as llm:
        events = go_on(llm.url, turns=[turn], tools=[CLOCK])
        assert BEGUN + text(events) == WHOLE
        roles = [message["role"] for message in llm.requests[0]["messages"]]
        assert roles == ["system", "user", "assistant", "tool", "assistant"]


def test_bad_calls_behind_continued_text_are_given_back_with_all_of_it() -> None:
    bad = [
        head(),
        delta(" on"),
        delta(tool_calls=[{"index": 0, "id": "x", "function": {"name": "n", "arguments": "{"}}]),
    ]
    last = [delta(finish="tool_calls"), DONE]
    prompt = {"written": BEGUN, "tools": [CLOCK]}
    events, llm = run_script([*bad, *last], PLAIN, prompt=prompt, llm_continue="plain")
    assert events[:2] == [Continued(), Text(" on")]
    assert llm.requests[1]["messages"][-2]["content"] == f"{BEGUN} on"
    assert llm.requests[1]["messages"][-1]["role"] == "tool"
