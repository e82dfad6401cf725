"""The tools' port: one method, beside a description that a model reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from baton_proto.messages import Language, ToolSpec

REQUEST_SHARE = 0.9
"""Of a call's time, what a request has that is all of it: it ends first, and its message says what was waited for."""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """Who asks, and how to report. `owner` and `claims` come from the user's token, never from a model; `progress`
    shows a line to the user while the tool runs and never blocks."""

    call_id: str
    owner: str
    language: Language
    progress: Callable[[str], None]
    claims: Mapping[str, Any] = field(default_factory=dict)


class Tool(Protocol):
    """`call` returns the text for the model. Arguments have been checked against `spec.parameters`.

    Any exception becomes the result `ok: false`; a `ToolError`'s text is shown to user and model, other exceptions are
    only logged. The runner bounds time (`timeout_s`, seconds) and size, and cancels the call when the user stops.
    """

    spec: ToolSpec
    timeout_s: float

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> str: ...


class ToolSource(Protocol):
    """Several tools that may come and go while the process runs, as an MCP server's do.

    `tools` gives those that can be called now: it is asked about once a second and before each call, so it must be
    quick. A tool that has gone may still be called by somebody who has not noticed; it then raises `ToolError`.
    """

    def tools(self) -> Sequence[Tool]: ...


class ToolError(Exception):
    """A failure that user and model may read about."""


class RetryableError(ToolError):
    """A failure that may pass by itself. The runner calls again, where the tool's spec says `idempotent` and there is
    time; after the last attempt it is a `ToolError` like any other.

    Args:
        after_s: seconds that the other side asked to be left alone.
    """

    def __init__(self, text: str, after_s: float | None = None) -> None:
        super().__init__(text)
        self.after_s = after_s
