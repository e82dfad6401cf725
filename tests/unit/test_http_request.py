"""What arguments can and cannot do to a declared request; the same for whatever a model invents."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, unquote

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.common.config import ToolsSettings
from services.tools.http.entry import open_entry
from services.tools.http.request import Asked
from services.tools.http.result import Missing, Selection, at
from services.tools.http.template import Placeholder, Template, Values, parse
from services.tools.port import ToolContext, ToolError

ODD = st.one_of(
    st.text(max_size=30),
    st.text("./\\%?#&=@:;{}[] \n\r\t\0é2eF", max_size=12),
    st.sampled_from(
        ["..", ".", "%2e%2e", "..%2f", "//evil.example", "@evil.example", "?x=1", "#f", "\\..\\", "\u2024\u2024"]
    ),
)


def context(owner: str = "lin", **claims: Any) -> ToolContext:
    return ToolContext(call_id="c", owner=owner, language="en", progress=lambda text: None, claims=claims)


def request_template(**fields: Any):
    http = {"name": "t", "description": "t", "hosts": ["api.example"], "private": True, **fields}

    async def opened():
        async with open_entry({"http": http}, "here", ToolsSettings()) as tool:
            return tool._declared.request  # type: ignore[attr-defined]

    return asyncio.run(opened())


ANY = {"properties": {"a": {}, "b": {}, "q": {}}, "required": ["a", "b"]}
TEMPLATE = request_template(
    url="https://api.example/v1/{a}/items/x-{b}.{a}?fixed=1&q={q}",
    query={"again": "<{q}>"},
    parameters=ANY,
)


def filled(template, arguments: dict[str, Any], who: ToolContext | None = None) -> Asked:
    asked: Asked = template.fill(Values(arguments, {}, who or context()))
    return asked


@given(a=ODD, b=ODD, q=ODD)
@example(a=".", b="x", q="")
@example(a="a", b="..", q="\ud800")
def test_no_argument_changes_where_a_request_goes(a: str, b: str, q: str) -> None:
    try:
        url = filled(TEMPLATE, {"a": a, "b": b, "q": q}).url
    except ToolError:
        return
    request = httpx.Request("GET", url)
    assert (request.url.scheme, request.url.host, request.url.port) == ("https", "api.example", None)
    assert request.headers["host"] == "api.example"
    path, _, query = request.url.raw_path.decode("ascii").partition("?")
    segments = path.split("/")
    assert len(segments) == 5
    assert segments[:2] == ["", "v1"]
    assert segments[3] == "items"
    assert unquote(segments[2]) == a
    assert unquote(segments[4]) == f"x-{b}.{a}"
    assert not any(part in (".", "..", "") or "/" in unquote(unquote(part)) for part in segments[1:])
    assert parse_qsl(query, keep_blank_values=True) == [("fixed", "1"), ("q", q), ("again", f"<{q}>")]
    assert "#" not in str(request.url)


@given(owner=ODD)
def test_no_owner_changes_where_a_request_goes(owner: str) -> None:
    template = request_template(url="https://api.example/people/{user.sub}/leave")
    with suppress(ToolError):
        path = filled(template, {}, context(owner)).url.raw_path.decode("ascii")
        assert path.startswith("/people/")
        assert path.endswith("/leave")
        assert path.count("/") == 3


JSON_BODY = request_template(
    url="https://api.example/",
    method="POST",
    body={"json": {"who": "{user.sub}", "text": "say {a}", "b": "{b}", "list": ["{q}", 1]}},
    parameters=ANY,
)


@given(
    a=st.text(max_size=20), b=st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists)
)
def test_no_argument_changes_the_shape_of_a_json_body(a: str, b: Any) -> None:
    content = filled(JSON_BODY, {"a": a, "b": b}).content
    assert content is not None
    expected = {"who": "lin", "text": f"say {a}", "b": b, "list": [1]}
    assert json.loads(content) == {key: value for key, value in expected.items() if value is not None}


FORM = request_template(
    url="https://api.example/",
    method="POST",
    body={"form": {"a": "{a}", "b": "x{b}"}},
    parameters={"properties": {"a": {}, "b": {}}},
)


@given(a=ODD, b=ODD)
def test_no_argument_adds_a_field_to_a_form(a: str, b: str) -> None:
    with suppress(ToolError):
        content = filled(FORM, {"a": a, "b": b}).content
        assert content is not None
        assert parse_qsl(content.decode("ascii"), keep_blank_values=True) == [("a", a), ("b", "x" + b)]


@given(value=st.text(max_size=20))
def test_no_claim_adds_a_header(value: str) -> None:
    template = request_template(url="https://api.example/", headers={"X-Who": "<{claims.who}>"})
    with suppress(ToolError):
        ((name, text),) = filled(template, {}, context(who=value)).headers
        assert (name, text) == ("X-Who", f"<{value}>")
        assert text.isascii()
        assert text.isprintable()


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3.0, "3"), (2.5, "2.5"), (True, "true"), (10**20, "1" + "0" * 20), ("", ""), (1e300, "1e+300")],
)
def test_values_stand_in_a_query_as_people_write_them(value: Any, expected: str) -> None:
    url = filled(TEMPLATE, {"a": "1", "b": "2", "q": value}).url
    assert dict(parse_qsl(url.query.decode(), keep_blank_values=True))["q"] == expected


def test_what_is_absent_is_left_out() -> None:
    assert filled(TEMPLATE, {"a": 1, "b": 2}).url.query == b"fixed=1"
    template = request_template(url="https://api.example/?q={q}", parameters={"properties": {"q": {}}})
    assert filled(template, {"q": ["x", None, 2]}).url.raw_path == b"/?q=x&q=2"
    assert filled(template, {"q": []}).url.raw_path == b"/"


def test_what_is_too_long_is_refused() -> None:
    with pytest.raises(ToolError, match="too long"):
        filled(TEMPLATE, {"a": "x" * 9_000, "b": "1"})
    with pytest.raises(ToolError, match="too long"):
        filled(JSON_BODY, {"a": "x" * 1_100_000, "b": "1"})


# --- templates --------------------------------------------------------------------------------------------------------


def test_a_template_is_text_and_placeholders() -> None:
    assert parse("a{b}c{d.e-f_1}").parts == ("a", Placeholder("b"), "c", Placeholder("d.e-f_1"))
    assert parse("{{{x}}}").parts == ("{", Placeholder("x"), "}")
    assert parse("") == Template(())
    assert (parse("{x}").only, parse("{x} ").only, parse("x").only) == ("x", None, None)


@pytest.mark.parametrize(
    "text", ["{", "}", "a{b", "a}b", "{}", "{a b}", "{a.}", "{.a}", "{a:>5}", "{a!r}", "{a[0]}", "{{a}"]
)
def test_a_text_that_is_no_template_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"brace|placeholder"):
        parse(text)


# --- selections -------------------------------------------------------------------------------------------------------

DOCUMENT = {"a": [{"b": None}, "x"], "": 1, "m~n": 2, "o/p": 3, "0": 4}


@pytest.mark.parametrize(
    ("pointer", "value"),
    [("", DOCUMENT), ("/a/0/b", None), ("/a/1", "x"), ("/", 1), ("/m~0n", 2), ("/o~1p", 3), ("/0", 4)],
)
def test_a_json_pointer_finds_its_place(pointer: str, value: Any) -> None:
    assert at(DOCUMENT, pointer) == value


@pytest.mark.parametrize("pointer", ["/b", "/a/2", "/a/-1", "/a/-", "/a/01", "/a/x", "/a/1/0", "/a/9999999999", "/¹"])
def test_a_json_pointer_to_nothing_is_told(pointer: str) -> None:
    with pytest.raises(Missing):
        at(DOCUMENT, pointer)


@pytest.mark.parametrize("text", ["name", "{name}", "/a~2", "{/a~}"])
def test_what_is_no_selection_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="pointer"):
        Selection.parse(text)
