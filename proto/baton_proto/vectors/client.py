"""Golden vectors of what a client sends: what it means, or with which error code it is refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from baton_proto.client import BadMessageCode, parse_client_message
from baton_proto.messages import MAX_FILTERS_BYTES, MAX_MESSAGE_BYTES, MAX_QUERY_BYTES

from .samples import Case, pack, plain

_FULL_QUERY = {
    "type": "query",
    "query": "我有几天年假？",
    "request_id": "r-1",
    "conversation_id": "conv_1",
    "language": "zh",
    "top_k": 8,
    "filters": {"department": ["hr", "it"], "year": 2026, "draft": False, "by": None},
    "seed": 7,
    "temperature": 0.2,
    "max_tokens": 512,
    "deadline_ms": 30000,
    "cache": False,
    "on_disconnect": "cancel",
    "if_busy": "enqueue",
}

_ACCEPTED: dict[str, Any] = {
    "query without a type": {"query": "How many days of leave?"},
    "query": {"type": "query", "query": "How many days of leave?"},
    "query in full": _FULL_QUERY,
    "query with an unknown field": {"query": "hi", "mood": "curious", "nested": {"a": [1]}},
    "query with null where a field may be left out": {"query": "hi", "request_id": None, "top_k": None},
    "query with a line feed and an emoji": {"query": "one\ntwo 😀"},
    "query with the longest request id": {"query": "hi", "request_id": "Az09_-" + "x" * 58},
    "query with every setting of sampling": {
        "query": "hi",
        "seed": 0,
        "temperature": 0,
        "max_tokens": 1,
        "top_p": 1,
        "presence_penalty": -2,
        "frequency_penalty": 2,
        "stop": ["\n", "。"],
    },
    "resume from the start": {"type": "resume", "request_id": "r-1"},
    "resume": {"type": "resume", "request_id": "r-1", "after_seq": 41},
    "cancel": {"type": "cancel", "request_id": "r-1"},
    "auth": {"type": "auth", "token": "a.b.c"},
    "ping": {"type": "ping"},
}


def accepted_client_cases() -> list[Case]:
    cases: list[Case] = []
    for name, message in _ACCEPTED.items():
        text = json.dumps(message, ensure_ascii=False)
        meaning = plain(parse_client_message(text.encode(), binary=False))
        cases.append({"name": name, "json": text, "msgpack": pack(message).hex(), "meaning": meaning})
    return cases


def _json(**fields: Any) -> str:
    return json.dumps(fields, ensure_ascii=False)


_REJECTED: list[tuple[str, str, BadMessageCode, str | None]] = [
    ("empty message", "", "bad_json", None),
    ("not JSON", "hello", "bad_json", None),
    ("cut off", '{"query": "hi"', "bad_json", None),
    ("two values", '{"query": "hi"} {}', "bad_json", None),
    ("NaN", '{"query": "hi", "temperature": NaN}', "bad_json", None),
    ("array", "[]", "bad_message", None),
    ("text", '"hi"', "bad_message", None),
    ("null", "null", "bad_message", None),
    ("neither type nor query", "{}", "bad_message", None),
    ("type is a number", '{"type": 5, "query": "hi"}', "bad_message", None),
    ("type is null", '{"type": null, "query": "hi"}', "bad_message", None),
    ("unknown type", '{"type": "ask", "query": "hi", "request_id": "r-1"}', "unknown_type", "r-1"),
    ("type of a server frame", '{"type": "done"}', "unknown_type", None),
    ("type in capitals", '{"type": "PING"}', "unknown_type", None),
    ("query missing", '{"type": "query", "request_id": "r-1"}', "bad_message", "r-1"),
    ("query is a number", '{"query": 5}', "bad_message", None),
    ("query is empty", '{"query": ""}', "bad_message", None),
    ("query is white space", _json(query=" \t\n\u3000\u200b"), "bad_message", None),
    ("half a surrogate pair", '{"query": "\\ud800 hi", "request_id": "r-1"}', "bad_message", "r-1"),
    ("request_id is empty", _json(query="hi", request_id=""), "bad_request_id", None),
    ("request_id with a space", _json(query="hi", request_id="r 1"), "bad_request_id", None),
    ("request_id with a line feed", _json(query="hi", request_id="r-1\n"), "bad_request_id", None),
    ("request_id too long", _json(query="hi", request_id="r" * 65), "bad_request_id", None),
    ("request_id is a number", _json(query="hi", request_id=5), "bad_request_id", None),
    ("request_id in Chinese", _json(query="hi", request_id="请求"), "bad_request_id", None),
    ("resume without request_id", '{"type": "resume"}', "bad_request_id", None),
    ("cancel with null as request_id", '{"type": "cancel", "request_id": null}', "bad_request_id", None),
    ("after_seq too small", _json(type="resume", request_id="r-1", after_seq=-2), "bad_message", "r-1"),
    ("after_seq is a fraction", _json(type="resume", request_id="r-1", after_seq=1.5), "bad_message", "r-1"),
    ("after_seq beyond 64 bits", _json(type="resume", request_id="r-1", after_seq=10**30), "bad_message", "r-1"),
    ("conversation_id with a dot", _json(query="hi", conversation_id="a.b"), "bad_message", None),
    ("language it does not know", _json(query="hi", language="fr", request_id="r-1"), "bad_message", "r-1"),
    ("top_k is 0", _json(query="hi", top_k=0), "bad_message", None),
    ("top_k is 51", _json(query="hi", top_k=51), "bad_message", None),
    ("top_k is text", _json(query="hi", top_k="5"), "bad_message", None),
    ("temperature too high", _json(query="hi", temperature=2.1), "bad_message", None),
    ("temperature beyond all numbers", '{"query": "hi", "temperature": 1e999}', "bad_message", None),
    ("top_p is 0", _json(query="hi", top_p=0), "bad_message", None),
    ("presence_penalty too low", _json(query="hi", presence_penalty=-2.5), "bad_message", None),
    ("stop is text", _json(query="hi", stop="x"), "bad_message", None),
    ("stop with five texts", _json(query="hi", stop=["a", "b", "c", "d", "e"]), "bad_message", None),
    ("stop with an empty text", _json(query="hi", stop=[""]), "bad_message", None),
    ("deadline too short", _json(query="hi", deadline_ms=999), "bad_message", None),
    ("cache is text", _json(query="hi", cache="yes"), "bad_message", None),
    ("if_busy unknown", _json(query="hi", if_busy="wait"), "bad_message", None),
    ("filters is a list", _json(query="hi", filters=[1]), "bad_message", None),
    ("filters nested too deeply", _json(query="hi", filters={"a": [[[[1]]]]}), "bad_message", None),
    ("filters with too many values", _json(query="hi", filters={"a": [1] * 300}), "too_large", None),
    ("token is missing", '{"type": "auth"}', "bad_message", None),
    ("token is a number", '{"type": "auth", "token": 5}', "bad_message", None),
]

_REJECTED_MSGPACK: list[tuple[str, bytes, BadMessageCode, str | None]] = [
    ("msgpack: empty message", b"", "bad_json", None),
    ("msgpack: cut off", pack({"query": "hi"})[:-1], "bad_json", None),
    ("msgpack: trailing byte", pack({"query": "hi"}) + b"\x00", "bad_json", None),
    ("msgpack: JSON on a msgpack connection", b'{"query": "hi"}', "bad_json", None),
    ("msgpack: invalid UTF-8", b"\x81\xa5query\xa2\xff\xfe", "bad_json", None),
    ("msgpack: array", b"\x90", "bad_message", None),
    ("msgpack: query is binary", pack({"query": b"hi", "request_id": "r-1"}), "bad_message", "r-1"),
    ("msgpack: temperature is NaN", pack({"query": "hi", "temperature": float("nan")}), "bad_message", None),
    ("msgpack: filters with binary", pack({"query": "hi", "filters": {"a": b"x"}}), "bad_message", None),
    ("msgpack: filters with a number as key", pack({"query": "hi", "filters": {5: 1}}), "bad_message", None),
    (
        "msgpack: filters with an extension type",
        pack({"query": "hi", "filters": {"a": msgspec.msgpack.Ext(7, b"x")}}),
        "bad_message",
        None,
    ),
]


def _built(prefix: str, repeat: str, times: int, suffix: str) -> dict[str, Any]:
    """A large message as a recipe, in hex: `prefix`, then `repeat` as often as `times` says, then `suffix`."""
    return {
        "prefix": prefix.encode().hex(),
        "repeat": repeat.encode().hex(),
        "times": times,
        "suffix": suffix.encode().hex(),
    }


def rejected_client_cases() -> list[Case]:
    """Messages to answer with an `error` of `code`, with the `request_id` where the message had a good one."""
    cases: list[Case] = []
    for name, text, code, request_id in _REJECTED:
        cases.append({"name": name, "binary": False, "text": text, "code": code, "request_id": request_id})
    for name, data, code, request_id in _REJECTED_MSGPACK:
        cases.append({"name": name, "binary": True, "hex": data.hex(), "code": code, "request_id": request_id})
    broken = b'{"query": "\xff"}'.hex()
    cases.append({"name": "not UTF-8", "binary": False, "hex": broken, "code": "bad_json", "request_id": None})
    head, tail = '{"request_id": "r-1", "query": "', '"}'
    filters = '{"query": "hi", "filters": {"a": "'
    large = [
        ("100,000 levels", _built("", "[", 100_000, ""), "bad_json", None),
        ("query one byte too long", _built(head, "x", MAX_QUERY_BYTES + 1, tail), "too_large", "r-1"),
        ("query too long in UTF-8", _built(head, "问", MAX_QUERY_BYTES // 3 + 1, tail), "too_large", "r-1"),
        ("filters too large", _built(filters, "x", MAX_FILTERS_BYTES, '"}}'), "too_large", None),
        ("message too large", _built(head, "x", MAX_MESSAGE_BYTES, tail), "too_large", None),
    ]
    for name, build, refusal, request_id in large:
        cases.append({"name": name, "binary": False, "build": build, "code": refusal, "request_id": request_id})
    return cases
