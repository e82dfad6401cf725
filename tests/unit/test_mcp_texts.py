"""What MCP servers send, as text; and the names under which their tools are offered."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import types

from services.tools.mcp.entry import McpEntry
from services.tools.mcp.listing import MAX_NAME_CHARS, listing
from services.tools.mcp.results import MAX_TEXT_CHARS, progress_text, result_text

ENTRY = McpEntry(name="srv")


def result(*content: Any, structured: Any = None) -> types.CallToolResult:
    return types.CallToolResult(content=list(content), structured_content=structured)


def text(value: str) -> types.TextContent:
    return types.TextContent(text=value)


@pytest.mark.parametrize(
    ("given", "en", "zh"),
    [
        (result(text("a"), text("b")), "a\nb", "a\nb"),
        (result(text("a"), structured={"x": 1}), "a", "a"),
        (result(structured={"名": "值"}), '{"名": "值"}', '{"名": "值"}'),
        (result(text(""), structured=[1]), "[1]", "[1]"),
        (result(), "(no content)", "（没有内容）"),
        (
            result(types.ImageContent(data="A" * 4096, mime_type="image/png")),
            "[image image/png, 3 KB]",
            "[图片 image/png, 3 KB]",
        ),
        (
            result(types.AudioContent(data="", mime_type="audio/wav")),
            "[audio audio/wav, 1 KB]",
            "[音频 audio/wav, 1 KB]",
        ),
        (
            result(types.ResourceLink(name="n", uri="file:///a\nb", title="Two\nlines")),
            "[Two lines: file:///a b]",
            "[Two lines: file:///a b]",
        ),
    ],
)
def test_a_result_becomes_text(given: types.CallToolResult, en: str, zh: str) -> None:
    assert (result_text(given, "en"), result_text(given, "zh")) == (en, zh)


def test_much_text_is_bounded() -> None:
    assert len(result_text(result(*[text("x" * 50_000)] * 100), "en")) <= MAX_TEXT_CHARS + 4
    assert len(result_text(result(structured=["x" * 1_000_000]), "en")) == MAX_TEXT_CHARS


@pytest.mark.parametrize(
    ("progress", "total", "message", "shown"),
    [
        (1, 3, None, "1/3"),
        (1, 3, "half way", "half way"),
        (1, 3, "  ", "1/3"),
        (0.25, 1, None, "25 %"),
        (1, 1, None, "100 %"),
        (5_000, 20_000, None, "25 %"),
        (7, 5, None, "7/5"),
        (7.5, 5, None, "100 %"),
        (-1.5, 5, None, "0 %"),
        (42, None, None, "42"),
        (1, 0, None, "1"),
        (float("nan"), 3, None, None),
        (1, float("inf"), None, "1"),
    ],
)
def test_progress_becomes_a_line(progress: float, total: float | None, message: str | None, shown: str | None) -> None:
    assert progress_text(float(progress), None if total is None else float(total), message) == shown


@given(st.lists(st.text(max_size=90), unique=True, max_size=12), st.sampled_from(["", "p_", "a-b-"]))
def test_every_tool_has_a_name_of_its_own_that_fits(remote: list[str], prefix: str) -> None:
    tools = [types.Tool(name=name, input_schema={"type": "object"}) for name in remote]
    entry = McpEntry(name="srv", prefix=prefix)
    offered = listing(tools, entry).offered
    names = [one.spec.name for one in offered]
    assert [one.remote_name for one in offered] == remote
    assert len(set(names)) == len(names)
    assert all(name.startswith(prefix) and len(name) <= MAX_NAME_CHARS for name in names)
    again = listing(tools[::-1], entry).offered
    assert {one.remote_name: one.spec.name for one in again} == {one.remote_name: one.spec.name for one in offered}


def test_what_is_injected_is_not_in_the_schema() -> None:
    schema = {"type": "object", "properties": {"who": {}, "what": {}}, "required": ["who", "what"]}
    entry = McpEntry(name="srv", inject={"who": "user.sub", "other": "user.sub"})
    (one,) = listing([types.Tool(name="t", input_schema=schema)], entry).offered
    assert one.spec.parameters == {"type": "object", "properties": {"what": {}}, "required": ["what"]}
    assert one.injected == {"who"}
    assert schema["required"] == ["who", "what"]


@pytest.mark.parametrize(
    ("trusted", "hints", "idempotent"),
    [
        (False, {"read_only_hint": True, "idempotent_hint": True}, False),
        (True, {"read_only_hint": True}, True),
        (True, {"idempotent_hint": True}, True),
        (True, {}, False),
    ],
)
def test_a_server_s_own_word_counts_only_where_it_is_trusted(
    trusted: bool, hints: dict[str, bool], idempotent: bool
) -> None:
    tool = types.Tool(name="t", input_schema={"type": "object"}, annotations=types.ToolAnnotations(**hints))
    (one,) = listing([tool], McpEntry(name="srv", trust_annotations=trusted)).offered
    assert one.spec.idempotent is idempotent
