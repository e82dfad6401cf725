"""Tools that a tools worker loads from its YAML file, each bad in its own way."""

from __future__ import annotations

from typing import Any

from services.tools.port import Tool
from tests.sample_tools import SampleTool, hang, returning
from tests.sample_tools import raising as raising_body


def raising(_: dict[str, Any]) -> Tool:
    return SampleTool("raise", raising_body(RuntimeError("a secret detail")))


def hanging(_: dict[str, Any]) -> Tool:
    return SampleTool("hang", hang)


def huge(_: dict[str, Any]) -> Tool:
    return SampleTool("huge", returning("x" * 10_000_000))
