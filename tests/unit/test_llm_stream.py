"""Server-sent events, and the chunks of a chat completion as different servers send them."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton_proto.messages import ToolCall, Usage
from services.common.errors import ServiceError
from services.common.llm.errors import (
    ContentFiltered,
    ContextOverflow,
    http_failure,
    overflow,
    refused_field,
    stream_failure,
)
from services.common.llm.sse import EventTooLarge, SseParser
from services.common.llm.stream import BadStream, ChatTurn, ServerError, parse_arguments
from services.common.llm.tokens import estimate_tokens
from services.common.retry_after import retry_after_ms

# --- server-sent events -----------------------------------------------------------------------------------------------


def sse(body: bytes, *cuts: int) -> list[str]:
    parser = SseParser()
    ends = sorted({0, *(min(cut, len(body)) for cut in cuts), len(body)})
    events = [data for start, end in itertools.pairwise(ends) for data in parser.feed(body[start:end])]
    return [*events, *parser.finish()]


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"data: a\n\ndata: b\n\n", ["a", "b"]),
        (b"data:a\r\n\r\ndata: b\r\rdata:  c\n\n", ["a", "b", " c"]),
        (b": comment\n\nevent: x\nid: 1\nretry: 5\ndata: a\n\n", ["a"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
        (b"data: \xff\xe5\xb9\n\n", ["��"]),
        (b"data: last", ["last"]),
        (b"data: [DONE]\n", ["[DONE]"]),
        (b"database: a\n\nda: b\n\n\n\n", []),
        (b"", []),
    ],
)
def test_events_are_read_as_the_format_says(body: bytes, events: list[str]) -> None:
    assert sse(body) == events
    assert sse(body, *range(len(body))) == events


@given(st.lists(st.sampled_from([b"data: a\n", b"\r\n", b"\n", b"\r", b"data", b": x", b"\xef\xbb\xbf", b"\xe5"])))
def test_the_cut_of_the_body_makes_no_difference(parts: list[bytes]) -> None:
    body = b"".join(parts)
    assert sse(body, *range(len(body))) == sse(body)


def test_an_endless_event_is_refused() -> None:
    parser = SseParser(max_bytes=100)
    with pytest.raises(EventTooLarge):
        list(parser.feed(b"data: " + b"x" * 200))
    parser = SseParser(max_bytes=100)
    with pytest.raises(EventTooLarge):
        list(parser.feed(b"data: 1234567\n" * 100))


# --- chunks -----------------------------------------------------------------------------------------------------------


def turn_of(*deltas: dict[str, Any], finish: str | None = "stop") -> tuple[str, ChatTurn]:
    turn = ChatTurn()
    text = "".join(turn.feed({"choices": [{"delta": delta}]}) for delta in deltas)
    text += turn.feed({"choices": [{"delta": {}, "finish_reason": finish}]})
    return text + turn.flush(), turn


def fragment(arguments: str | None = None, **fields: Any) -> dict[str, Any]:
    function = {key: fields.pop(key) for key in ("name",) if key in fields}
    if arguments is not None:
        function["arguments"] = arguments
    return {**fields, "function": function}


def calls_of(*fragments: dict[str, Any], used: frozenset[str] = frozenset()) -> list[ToolCall]:
    _, turn = turn_of(*({"tool_calls": [one]} for one in fragments))
    parsed = turn.calls(0, used)
    assert not any(one.problem for one in parsed)
    return [one.call for one in parsed]


EXPECTED = [
    ToolCall(call_id="a", name="leave", arguments={"type": "年"}),
    ToolCall(call_id="b", name="clock", arguments={}),
]


def test_fragments_by_index_only_are_put_together() -> None:
    parts = [
        fragment('{"ty', index=0, id="a", name="leave"),
        fragment("", index=1, id="b", name="clock"),
        fragment('pe": "年', index=0),
        fragment("{}", index=1),
        fragment('"}', index=0),
    ]
    assert calls_of(*parts) == EXPECTED


def test_fragments_that_repeat_id_and_name_are_put_together() -> None:
    parts = [fragment(piece, index=0, id="a", name="leave") for piece in '{"type": "年"}']
    assert calls_of(*parts, fragment("", index=1, id="b", name="clock")) == EXPECTED


def test_whole_calls_without_an_index_stay_apart() -> None:
    parts = [fragment('{"type": "年"}', id="a", name="leave"), fragment(id="b", name="clock")]
    assert calls_of(*parts) == EXPECTED
    reused = [fragment('{"type": "年"}', index=0, id="a", name="leave"), fragment(index=0, id="b", name="clock")]
    assert calls_of(*reused) == EXPECTED


def test_fragments_without_index_or_id_belong_to_the_call_before() -> None:
    parts = [fragment('{"type"', id="a", name="leave"), fragment(': "年"}'), fragment("", id="b", name="clock")]
    assert calls_of(*parts) == EXPECTED


def test_calls_without_an_id_get_one_and_ids_are_never_used_twice() -> None:
    parts = [fragment("{}", index=0, name="x"), fragment("{}", index=1, name="y")]
    assert [call.call_id for call in calls_of(*parts)] == ["call_0_0", "call_0_1"]
    again = calls_of(fragment("{}", index=0, id="a", name="x"), used=frozenset({"a"}))
    assert again[0].call_id not in ("", "a")


def test_arguments_as_an_object_are_taken() -> None:
    _, turn = turn_of({"tool_calls": [{"id": "a", "function": {"name": "x", "arguments": {"n": 1}}}]})
    assert turn.calls(0, frozenset())[0].call.arguments == {"n": 1}


@pytest.mark.parametrize(
    ("raw", "arguments"), [("", {}), ("  ", {}), ("null", {}), ('{"a": 1}', {"a": 1}), ('"{\\"a\\": 1}"', {"a": 1})]
)
def test_arguments_that_can_be_read(raw: str, arguments: dict[str, Any]) -> None:
    assert parse_arguments(raw) == (arguments, "")


@pytest.mark.parametrize(
    "raw",
    [
        "{",
        "[1]",
        "3",
        "nonsense",
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": 99999999999999999999}',
        '{"a": "\\ud83d"}',
        '{"a":' * 40 + "1" + "}" * 40,
        "[" * 100_000,
    ],
)
def test_arguments_that_cannot_travel_on_are_a_problem(raw: str) -> None:
    arguments, problem = parse_arguments(raw)
    assert arguments == {}
    assert problem


def test_too_many_or_too_large_calls_are_refused() -> None:
    with pytest.raises(BadStream):
        turn_of({"tool_calls": [fragment("{}", id=str(n), name="x") for n in range(100)]})
    with pytest.raises(BadStream):
        turn_of(*({"tool_calls": [fragment("x" * 10_000, index=0)]} for _ in range(10)))


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["<think>", "a [1] b", "</think>", "\n\nHello"], "Hello"),
        (["<th", "ink>x</thi", "nk>Hello"], "Hello"),
        (["  \n<think>never closed"], ""),
        (["<thin air> is", " text"], "<thin air> is text"),
        (["Hello <think>x</think>"], "Hello <think>x</think>"),
        (["<"], "<"),
        (["\ud83d", "\ude00!"], "😀!"),
        (["a\ud83d", "b"], "a�b"),
        (["a\ud83d"], "a�"),
        (["\ude00"], "�"),
    ],
)
def test_thoughts_and_half_characters_stay_out_of_the_text(pieces: list[str], text: str) -> None:
    assert turn_of(*({"content": piece} for piece in pieces))[0] == text


@pytest.mark.parametrize(
    ("deltas", "thinks"),
    [
        ([{"reasoning_content": "hm"}], True),
        ([{"reasoning": "hm"}], True),
        ([{"content": "<thi"}, {"content": "nk>hm"}], True),
        ([{"content": "<thin"}], False),
        ([{"content": "<think>\n\n</think>\n\nHi"}], False),
        ([{"content": "<think>"}, {"content": "\n"}, {"content": "</th"}, {"content": "ink>Hi"}], False),
        ([{"content": "<think>\nhm</think>Hi"}], True),
        ([{"reasoning_content": "\n"}], False),
        ([{"reasoning_content": ""}, {"reasoning": None}, {"content": "Hi <think>"}], False),
    ],
)
def test_a_model_that_reasons_is_noticed(deltas: list[dict[str, Any]], thinks: bool) -> None:
    turn = ChatTurn()
    for one in deltas:
        turn.feed({"choices": [{"delta": one}]})
    assert turn.thinking is thinks


def test_reasoning_fields_are_progress_but_no_text() -> None:
    text, turn = turn_of({"reasoning_content": "hm"}, {"reasoning": "hm"}, {"content": None}, {"content": "Hi"})
    assert (text, turn.progress) == ("Hi", 3)


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("eos", "stop"),
        ("tool_calls", "stop"),
    ],
)
def test_finish_reasons_are_mapped(finish: str, reason: str) -> None:
    assert turn_of(finish=finish)[1].reason == reason


def test_usage_is_the_last_that_was_sent() -> None:
    turn = ChatTurn()
    for usage in ({"prompt_tokens": 5}, None, {"prompt_tokens": 5, "completion_tokens": 7}, {}, "x"):
        turn.feed({"choices": [], "usage": usage})
    assert turn.usage == Usage(prompt_tokens=5, completion_tokens=7)


@pytest.mark.parametrize("chunk", [{}, {"choices": []}, {"choices": None}, {"choices": [{}]}, {"choices": ["x"]}])
def test_chunks_without_a_choice_say_nothing(chunk: dict[str, Any]) -> None:
    assert ChatTurn().feed(chunk) == ""


def test_an_error_object_is_an_error() -> None:
    with pytest.raises(ServerError):
        ChatTurn().feed({"error": {"message": "no"}})
    with pytest.raises(BadStream):
        ChatTurn().feed([])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "content", "tool_calls", "function", "index", "id", "name", "arguments"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_no_chunk_breaks_the_reader(chunk: Any) -> None:
    turn = ChatTurn()
    try:
        turn.feed(json.loads(json.dumps(chunk)))
    except (BadStream, ServerError):
        return
    turn.flush()
    turn.calls(0, frozenset())


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "retryable", "says"),
    [
        (401, "Incorrect API key sk-1", False, "BATON_LLM_API_KEY"),
        (404, "model not found", False, "BATON_LLM_MODEL"),
        (400, "maximum context length is 4096", False, "longer"),
        (429, "insufficient_quota", False, "quota"),
        (429, "slow down", True, "429"),
        (400, "The reasoning_content in the thinking mode must be passed back to the API.", False, "BATON_LLM_PRESET"),
        (500, "oops", True, "500"),
        (400, "oops", False, "400"),
    ],
)
def test_a_status_becomes_a_failure(status: int, body: str, retryable: bool, says: str) -> None:
    error = http_failure(status, body, None)
    assert isinstance(error, ServiceError)
    assert (error.code, error.retryable) == ("model_failed", retryable)
    assert says in error.message
    assert "sk-1" not in error.message


TOO_LONG = [
    # OpenAI, Azure
    (
        400,
        "This model's maximum context length is 4097 tokens. However, your messages resulted in 5000 tokens.",
        4097,
        5000,
    ),
    (400, '{"code": "context_length_exceeded"}', None, None),
    (
        400,
        "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300000 tokens.",
        272_000,
        300_000,
    ),
    # vLLM, DeepSeek
    (
        400,
        "This model's maximum context length is 131072 tokens. However, you requested 131134 tokens (122942 in the "
        "messages, 8192 in the completion). Please reduce the length of the messages or completion.",
        131_072,
        122_942,
    ),
    (
        400,
        "'max_tokens' or 'max_completion_tokens' is too large: 6048. This model's maximum context length is 6048 "
        "tokens and your request has 568 input tokens (6048 > 6048 - 568).",
        6_048,
        568,
    ),
    (400, "The decoder prompt (length 9000) is longer than the maximum model length of 4096.", 4_096, 9_000),
    (400, "max_tokens must be at least 1, got -186.", None, None),
    # SGLang, TGI
    (400, "The input (9000 tokens) is longer than the model's context length (4096 tokens).", 4_096, 9_000),
    (422, "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens", 4_096, None),
    # llama.cpp, llama-cpp-python
    (
        400,
        '{"error":{"code":400,"message":"the request exceeds the available context size. try increasing the context '
        'size","type":"exceed_context_size_error","n_prompt_tokens":14429,"n_ctx":8192}}',
        8_192,
        14_429,
    ),
    (500, "Requested tokens (2285) exceed context window of 2048", 2_048, 2_285),
    # DashScope
    (400, "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]", 30_720, None),
    # Mistral, Anthropic and Gemini, as LiteLLM passes them on
    (
        400,
        "Prompt contains 33000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
        32_768,
        33_000,
    ),
    (400, "litellm.ContextWindowExceededError: prompt is too long: 204000 tokens > 200000 maximum", 200_000, 204_000),
    (
        400,
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        1_048_576,
        1_200_000,
    ),
    (413, "", None, None),
]


@pytest.mark.parametrize(("status", "body", "limit", "prompt"), TOO_LONG)
def test_a_prompt_that_is_too_long_is_known_in_every_server_s_words(
    status: int, body: str, limit: int | None, prompt: int | None
) -> None:
    found = overflow(status, body)
    assert found is not None
    assert (found.limit, found.prompt, found.retryable) == (limit, prompt, False)
    assert isinstance(http_failure(status, body, None), ContextOverflow)
    if body:
        assert isinstance(stream_failure({"message": body}), ContextOverflow)


@pytest.mark.parametrize(
    "body", ["Unknown parameter: seed", "max_tokens is too large: 32768. This model supports at most 16384", "oops"]
)
def test_other_refusals_are_not_taken_for_a_long_prompt(body: str) -> None:
    assert overflow(400, body) is None
    assert overflow(429, "too many input tokens per minute") is None


@pytest.mark.parametrize(
    "body",
    [
        '{"error": {"code": "data_inspection_failed", "message": "Input data may contain inappropriate content."}}',
        "<400> InternalError.Algo.DataInspectionFailed: Input text data may contain inappropriate content.",
        '{"error": {"code": "content_filter", "message": "triggering Azure OpenAI\'s content management policy"}}',
        '{"error": {"message": "Content Exists Risk", "type": "invalid_request_error"}}',
    ],
)
def test_a_content_filter_is_known_in_every_server_s_words(body: str) -> None:
    assert isinstance(http_failure(400, body, None), ContentFiltered)
    assert isinstance(stream_failure({"message": body}), ContentFiltered)


@pytest.mark.parametrize(
    ("status", "body", "retryable"),
    [
        (402, "Insufficient Balance", False),
        (429, '{"type": "insufficient_quota", "message": "check your plan and billing details"}', False),
        (400, "Arrearage: Access denied, please make sure your account is in good standing.", False),
        # DashScope says so of its limit per minute, too.
        (
            429,
            '{"code": "insufficient_quota", "message": "You exceeded your current quota, see error-code#token-limit"}',
            True,
        ),
        (429, '{"code": "limit_requests"}', True),
    ],
)
def test_no_money_is_not_asked_again_and_a_limit_per_minute_is(status: int, body: str, retryable: bool) -> None:
    assert http_failure(status, body, None).retryable is retryable


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("Unsupported parameter: 'top_p' is not supported with this model.", "top_p"),
        ("Unrecognized request argument supplied: presence_penalty", "presence_penalty"),
        ("Unsupported parameter: 'stop' is not supported with this model.", "stop"),
        ("body.stop: Extra inputs are not permitted: unknown parameter stop", "stop"),
        ("Unknown parameter: 'chat_template_kwargs'.", "chat_template_kwargs"),
        ("parallel_tool_calls is not supported", "parallel_tool_calls"),
        ("tools are not supported, please stop asking", "tools"),
    ],
)
def test_any_field_but_the_needed_ones_can_be_refused(body: str, field: str) -> None:
    sent = dict.fromkeys(
        [
            "model",
            "messages",
            "stream",
            "tools",
            "stop",
            "top_p",
            "presence_penalty",
            "chat_template_kwargs",
            "parallel_tool_calls",
        ]
    )
    assert refused_field(400, body, sent) == field
    assert refused_field(400, "unknown model, the messages are not supported", sent) is None


def test_an_error_in_the_stream_may_name_a_status() -> None:
    assert stream_failure({"code": 429}).retryable is True
    assert stream_failure({"message": "context length exceeded"}).retryable is False
    assert stream_failure("what").code == "model_failed"


def test_only_optional_fields_that_were_sent_can_be_refused() -> None:
    assert refused_field(400, "Unknown parameter: seed", {"seed": 1}) == "seed"
    assert refused_field(400, "Unknown parameter: seed", {}) is None
    assert refused_field(400, "temperature must be at most 1", {"temperature": 2}) is None
    assert refused_field(401, "unknown seed", {"seed": 1}) is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [("2", 2000), ("0.5", 500), ("Thu, 01 Jan 1970 00:01:40 GMT", 40_000), ("-1", None), ("soon", None), (None, None)],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, expected: int | None) -> None:
    assert retry_after_ms({} if header is None else {"retry-after": header}, now_s=60.0) == expected


def test_a_wait_in_milliseconds_wins_over_one_in_seconds() -> None:
    assert retry_after_ms({"retry-after-ms": "1500", "retry-after": "2"}, now_s=0) == 1500


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("年假有十天", 5), ("Ten days", 2), ("a", 1), ("年 leave", 3), ("internationalization", 5)],
)
def test_tokens_are_estimated(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens
