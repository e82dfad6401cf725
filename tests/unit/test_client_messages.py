"""What a client sends is checked without trust: any bytes give a message or a reason, and the reason helps."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton_proto.client import BadMessage, parse_client_message

FIELDS = ["type", "query", "request_id", "after_seq", "token", "language", "top_k", "filters", "temperature", "cache"]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.sampled_from(["query", "auth"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


def refused(data: bytes | str, *, binary: bool = False) -> BadMessage:
    with pytest.raises(BadMessage) as caught:
        parse_client_message(data.encode() if isinstance(data, str) else data, binary=binary)
    return caught.value


@given(st.binary(max_size=100), st.booleans())
def test_arbitrary_bytes_raise_nothing_but_a_bad_message(data: bytes, binary: bool) -> None:
    with contextlib.suppress(BadMessage):
        parse_client_message(data, binary=binary)


@given(st.dictionaries(st.sampled_from(FIELDS), values))
def test_arbitrary_objects_raise_nothing_but_a_bad_message(message: dict) -> None:
    with contextlib.suppress(BadMessage):
        parse_client_message(json.dumps(message).encode(), binary=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"query": "hi", "top_k": 99}', ["`top_k`", "1 to 50", "leave it out"]),
        ('{"query": "hi", "language": "fr"}', ["`language`", '"en", "zh"']),
        ('{"query": "hi", "conversation_id": "a.b"}', ["`conversation_id`", "A-Z"]),
        ('{"query": "hi", "cache": 1}', ["`cache`", "true or false"]),
        ('{"type": "ask"}', ['"ask"', "query, resume, cancel, auth, ping"]),
        ('{"type": "query"}', ["`query` is missing"]),
        ('{"type": "resume", "request_id": "r 1"}', ["`request_id`", '"r 1"', "1 to 64"]),
        ('{"query": "hi", "filters": {"a": [[[[1]]]]}}', ["`filters`", "4 levels"]),
        ('{"query": "hi", "filters": {"a": 1e999}}', ["`filters`", "finite"]),
        ('{"query": "hi", "filters": {"\\udc00": 1}}', ["`filters`", "surrogate"]),
    ],
)
def test_a_refusal_names_the_field_and_what_belongs_there(text: str, words: list[str]) -> None:
    message = refused(text).message
    assert all(word in message for word in words), message


@pytest.mark.parametrize("field", ["type", "request_id"])
def test_a_refusal_quotes_little_of_the_input(field: str) -> None:
    message = refused(json.dumps({"query": "hi", field: "x" * 5000})).message
    assert "x" * 50 in message
    assert "x" * 101 not in message


def test_a_token_is_never_quoted() -> None:
    assert "secret" not in refused('{"type": "auth", "token": ["secret"]}').message


def test_a_binary_message_on_a_text_connection_is_no_json() -> None:
    assert refused(b"\x81\xa5query\xa2hi").code == "bad_json"
