"""What a client has sent, checked: bytes in, a `ClientMessage` or a `BadMessage` out.

Every refusal names the field and says how to put it right. It quotes little of the input, and never a token.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from typing import Any, Literal

import msgspec

from .messages import (
    MAX_FILTERS_BYTES,
    MAX_FILTERS_DEPTH,
    MAX_FILTERS_VALUES,
    MAX_MESSAGE_BYTES,
    MAX_QUERY_BYTES,
    REQUEST_ID_PATTERN,
    Auth,
    Cancel,
    ClientMessage,
    Ping,
    Query,
    Resume,
)

BadMessageCode = Literal["bad_json", "bad_message", "unknown_type", "bad_request_id", "too_large"]

_KINDS: dict[str, type[ClientMessage]] = {
    str(kind.__struct_config__.tag): kind for kind in (Query, Resume, Cancel, Auth, Ping)
}
_FIELDS = {kind: frozenset(f.encode_name for f in msgspec.structs.fields(kind)) for kind in _KINDS.values()}
_ID_FORM = "1 to 64 of the characters A-Z a-z 0-9 _ -"
_ID = re.compile(REQUEST_ID_PATTERN)
_MOST_QUOTED = 100
_MOST_REPARSED = 256 * 1024


class BadMessage(ValueError):
    """A client message that cannot be served.

    `code` is an error code of the protocol, `message` is for the person who writes the client, and `request_id` is that
    of the message where it had a well-formed one.
    """

    def __init__(self, code: BadMessageCode, message: str, request_id: str | None = None) -> None:
        super().__init__(message)
        self.code: BadMessageCode = code
        self.message = message
        self.request_id = request_id


def parse_client_message(data: bytes, binary: bool) -> ClientMessage:
    """The message in one WebSocket message: UTF-8 JSON, or msgpack where `binary`.

    Raises:
        BadMessage: with the code and text of the `error` frame to answer.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise BadMessage("too_large", f"the message has {len(data)} bytes; the limit is {MAX_MESSAGE_BYTES}")
    raw = _unpack(data) if binary else _parse_json(data)
    if not isinstance(raw, dict):
        raise BadMessage("bad_message", f'a message is an object such as {{"query": "…"}}, not {_json_type(raw)}')
    given = raw.get("request_id")
    request_id = given if isinstance(given, str) and _ID.search(given) else None
    try:
        return _checked(raw)
    except BadMessage as error:
        error.request_id = request_id
        raise


def _parse_json(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except RecursionError:
        raise BadMessage("bad_json", "the message is nested too deeply") from None
    except UnicodeDecodeError:
        raise BadMessage("bad_json", "the message is not UTF-8 text; send JSON encoded as UTF-8") from None
    except msgspec.MsgspecError as error:
        # Half a surrogate pair, or a number beyond all bounds, is JSON by the letter: read it with the lenient parser
        # to be able to name the field. Only a small message is worth the time.
        if len(data) <= _MOST_REPARSED:
            try:
                return json.loads(data, parse_constant=_refuse_constant)
            except (ValueError, RecursionError):
                pass
        raise BadMessage("bad_json", f"the message is not JSON: {error}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _unpack(data: bytes) -> Any:
    try:
        return msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage(
            "bad_json", f"the message is not one whole msgpack value: {str(error)[:_MOST_QUOTED]}"
        ) from None


def _checked(raw: dict[Any, Any]) -> ClientMessage:
    kind = _kind(raw)
    if "request_id" in _FIELDS[kind]:
        _check_request_id(raw, required=kind is not Query)
    fields = {name: raw[name] for name in _FIELDS[kind] if name in raw}
    for name, value in fields.items():
        _check_scalar(name, value)
    if kind is Query:
        _check_query(fields)
    try:
        return msgspec.convert({**fields, "type": kind.__struct_config__.tag}, kind)
    except msgspec.ValidationError as error:
        raise BadMessage("bad_message", _explain(error, kind)) from None


def _kind(raw: dict[Any, Any]) -> type[ClientMessage]:
    name = raw.get("type", "query" if "query" in raw else None)
    known = ", ".join(_KINDS)
    if name is None and "type" not in raw:
        raise BadMessage("bad_message", f"the message has neither `type` nor `query`; `type` is one of {known}")
    if not isinstance(name, str):
        raise BadMessage("bad_message", f"`type` must be a string, one of {known}, not {_json_type(name)}")
    if name not in _KINDS:
        raise BadMessage("unknown_type", f"there is no message type {_quoted(name)}; `type` is one of {known}")
    return _KINDS[name]


def _check_request_id(raw: dict[Any, Any], *, required: bool) -> None:
    value = raw.get("request_id")
    if value is None:
        if required:
            raise BadMessage("bad_request_id", f"`request_id` is missing: name the request ({_ID_FORM})")
    elif not isinstance(value, str):
        raise BadMessage("bad_request_id", f"`request_id` must be a string of {_ID_FORM}, not {_json_type(value)}")
    elif not _ID.search(value):
        raise BadMessage("bad_request_id", f"`request_id` must be {_ID_FORM}, not {_quoted(value)}")


def _check_query(fields: dict[str, Any]) -> None:
    query = fields.get("query")
    if not isinstance(query, str):
        return  # the conversion says what is wrong with it
    size = len(query.encode())
    if size > MAX_QUERY_BYTES:
        raise BadMessage("too_large", f"`query` has {size} bytes in UTF-8; the limit is {MAX_QUERY_BYTES}: shorten it")
    if not any(map(_is_visible, query)):
        raise BadMessage("bad_message", "`query` is empty: put the question there")
    if isinstance(fields.get("filters"), dict):
        _Filters().check(fields["filters"], depth=1)


def _is_visible(char: str) -> bool:
    return unicodedata.category(char) not in ("Zs", "Zl", "Zp", "Cc", "Cf")


def _check_scalar(name: str, value: Any) -> None:
    """Refuse what JSON and msgpack parsers let through but a log entry cannot carry."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            text = f"`{name}` holds half a surrogate pair (\\ud800 to \\udfff alone): send whole characters"
            raise BadMessage("bad_message", text) from None
    elif isinstance(value, float) and not math.isfinite(value):
        raise BadMessage("bad_message", f"`{name}` must be a finite number")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise BadMessage("bad_message", f"`{name}` holds a whole number that does not fit into 64 bits")


class _Filters:
    """Walks `filters` and stops at the first bound that is crossed, so a hostile one costs no more than another."""

    def __init__(self) -> None:
        self._values = 0
        self._bytes = 0

    def check(self, value: Any, depth: int) -> None:
        if depth > MAX_FILTERS_DEPTH + 1 or (depth > MAX_FILTERS_DEPTH and isinstance(value, dict | list)):
            raise BadMessage("bad_message", f"`filters` may be nested {MAX_FILTERS_DEPTH} levels deep at most")
        _check_scalar("filters", value)
        self._count(value)
        if isinstance(value, dict):
            for key, inner in value.items():
                if not isinstance(key, str):
                    raise BadMessage("bad_message", "`filters` must have strings as keys")
                _check_scalar("filters", key)
                self._count(key)
                self.check(inner, depth + 1)
        elif isinstance(value, list):
            for inner in value:
                self.check(inner, depth + 1)
        elif not isinstance(value, str | int | float | None):
            raise BadMessage("bad_message", f"`filters` must hold JSON values only, not {_json_type(value)}")

    def _count(self, value: Any) -> None:
        self._values += 1
        self._bytes += len(value.encode()) if isinstance(value, str) else 8
        if self._values > MAX_FILTERS_VALUES or self._bytes > MAX_FILTERS_BYTES:
            raise BadMessage(
                "too_large",
                f"`filters` is too large: at most {MAX_FILTERS_VALUES} keys and values, {MAX_FILTERS_BYTES} bytes",
            )


def _explain(error: msgspec.ValidationError, kind: type[ClientMessage]) -> str:
    """msgspec's finding in terms of the field and what belongs there."""
    text = str(error)
    missing = re.search(r"missing required field `(\w+)`", text)
    at = missing or re.search(r"`\$\.(\w+)", text)
    if at is None:
        return f"not a {kind.__struct_config__.tag}: {text[:_MOST_QUOTED]}"
    name = at.group(1)
    return f"`{name}` {'is missing: send' if missing else 'must be'} {_wanted(kind, name)}"


def _wanted(kind: type[ClientMessage], name: str) -> str:
    """What the field holds, in words made from its type."""
    _, schemas = msgspec.json.schema_components([kind])
    schema = schemas[kind.__name__]["properties"][name]
    optional = "anyOf" in schema
    schema = schema["anyOf"][0] if optional else schema
    if "enum" in schema:
        words = "one of " + ", ".join(json.dumps(choice) for choice in schema["enum"])
    elif schema.get("pattern") == REQUEST_ID_PATTERN:
        words = f"a string of {_ID_FORM}"
    else:
        kinds = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "object": "an object"}
        words = kinds.get(schema["type"], f"a {schema['type']}")
        low, high = schema.get("minimum"), schema.get("maximum")
        words += f" from {low} to {high}" if high is not None else f" of at least {low}" if low is not None else ""
    return words + ("; or leave it out" if optional or "default" in schema else "")


def _quoted(value: str) -> str:
    text = value if len(value) <= _MOST_QUOTED else value[: _MOST_QUOTED - 1] + "…"
    return json.dumps(text, ensure_ascii=False).encode("utf-8", "replace").decode()


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    names = {dict: "an object", list: "an array", str: "a string", bool: "true or false", int: "a number"}
    return names.get(type(value), "a number" if isinstance(value, float) else "binary data")
