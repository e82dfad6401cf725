"""A chat completion put together from its chunks, without I/O. What servers differ in is levelled here.

Seen and accepted: tool calls by index only, or with id and name in every fragment, or whole in one chunk and without an
index; arguments as an object instead of text; usage on the last chunk, on every chunk, or on one without choices; no
finish reason before `[DONE]`; `stop` as the finish reason of tool calls; a surrogate pair cut in two; reasoning beside
the answer or, as `<think>`, in front of it.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from baton_proto.messages import MAX_FREE_FORM_DEPTH, FinishReason, ToolCall, Usage

MAX_CALLS = 32
MAX_ARGUMENT_CHARS = 64 * 1024
MAX_NAME_CHARS = 128

_SURROGATE = re.compile("[\ud800-\udfff]")
_REASONS: dict[str, FinishReason] = {"length": "length", "max_tokens": "length", "content_filter": "content_filter"}


class BadStream(ValueError):
    """The server sent what is no chat completion. The text is for the log."""


class ServerError(ValueError):
    """The server reported an error inside the stream, as `error` says it."""

    def __init__(self, error: Any) -> None:
        super().__init__(str(error)[:500])
        self.error = error


@dataclass(frozen=True, slots=True)
class Thinking:
    """The model has begun to reason; what it thinks is not part of the answer and is not kept."""


@dataclass(slots=True)
class _Fragments:
    """One tool call while it arrives."""

    call_id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    size: int = 0


@dataclass(frozen=True, slots=True)
class ParsedCall:
    """A tool call as the model made it: with its arguments, or with what is wrong with them."""

    call: ToolCall
    raw_arguments: str
    problem: str = ""


class ChatTurn:
    """Feeds on chunks. `finished` is set by a finish reason; `progress` counts what shows that the model works;
    `thinking` says that it reasons or has reasoned beside its answer."""

    def __init__(self) -> None:
        self.finished = ""
        self.usage: Usage | None = None
        self.progress = 0
        self._reasoned = False
        self._calls: list[_Fragments] = []
        self._by_index: dict[int, _Fragments] = {}
        self._half = ""
        self._thoughts = _ThoughtFilter()

    @property
    def thinking(self) -> bool:
        return self._reasoned or self._thoughts.begun

    @property
    def reason(self) -> FinishReason:
        return _REASONS.get(self.finished, "stop")

    def feed(self, chunk: Any) -> str:
        """The answer's text in this chunk.

        Raises:
            BadStream: it is no chunk, or there are too many or too large tool calls.
            ServerError: it is an error object.
        """
        if not isinstance(chunk, dict):
            raise BadStream(f"a chunk is an object, not {type(chunk).__name__}")
        if chunk.get("error"):
            raise ServerError(chunk["error"])
        self.usage = _usage(chunk.get("usage")) or self.usage
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            return ""
        choice = choices[0]
        delta = choice.get("delta") or choice.get("message") or {}
        if not isinstance(delta, dict):
            raise BadStream("a delta is an object")
        for fragment in delta.get("tool_calls") or ():
            self._fragment(fragment)
            self.progress += 1
        if thought := delta.get("reasoning_content") or delta.get("reasoning"):
            self.progress += 1
            self._reasoned = self._reasoned or not isinstance(thought, str) or not thought.isspace()
        text = self._text(delta.get("content"))
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            self.finished = reason
        return text

    def flush(self) -> str:
        """The last of the text, at the end of the stream."""
        half, self._half = self._half, ""
        return self._thoughts.feed("\ufffd" if half else "") + self._thoughts.flush()

    def calls(self, turn: int, used: frozenset[str]) -> list[ParsedCall]:
        """The tool calls of the turn, in order, each with an id that none of `used` and no other has."""
        parsed: list[ParsedCall] = []
        taken = set(used)
        for number, fragments in enumerate(self._calls):
            call_id = fragments.call_id or f"call_{turn}_{number}"
            # Some servers count their calls from 0 in every turn.
            if call_id in taken:
                call_id = f"{call_id}_{turn}_{number}"
            taken.add(call_id)
            raw = _paired("".join(fragments.arguments))
            arguments, problem = parse_arguments(raw)
            if not 0 < len(fragments.name) <= MAX_NAME_CHARS:
                problem = problem or "the call names no tool"
            name = fragments.name[:MAX_NAME_CHARS]
            call = ToolCall(call_id=call_id[:MAX_NAME_CHARS], name=name, arguments=arguments)
            parsed.append(ParsedCall(call, raw, problem))
        return parsed

    def _text(self, content: Any) -> str:
        if isinstance(content, list):
            content = "".join(part.get("text") or "" for part in content if isinstance(part, dict))
        if not isinstance(content, str) or not content:
            return ""
        self.progress += 1
        return self._thoughts.feed(self._whole_characters(content))

    def _whole_characters(self, content: str) -> str:
        """A server that cuts a character outside the basic plane in two sends half a surrogate pair in each chunk."""
        if not self._half and not _SURROGATE.search(content):
            return content
        content = self._half + content
        self._half = ""
        if "\ud800" <= content[-1] <= "\udbff":
            self._half, content = content[-1], content[:-1]
        return _paired(content)

    def _fragment(self, fragment: Any) -> None:
        if not isinstance(fragment, dict):
            raise BadStream("a tool call is an object")
        function = fragment.get("function") or {}
        if not isinstance(function, dict):
            raise BadStream("a tool call's function is an object")
        call_id, name = str(fragment.get("id") or ""), str(function.get("name") or "")
        call = self._call_for(fragment.get("index"), call_id, name)
        call.call_id = call.call_id or call_id
        call.name = call.name or name
        arguments = function.get("arguments")
        if arguments is None:
            return
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        call.arguments.append(text)
        call.size += len(text)
        if call.size > MAX_ARGUMENT_CHARS:
            raise BadStream(f"the arguments of a tool call are over {MAX_ARGUMENT_CHARS} characters")

    def _call_for(self, index: Any, call_id: str, name: str) -> _Fragments:
        """The call that a fragment belongs to: by index; without one, or where it is reused, by id."""
        known = self._by_index.get(index) if isinstance(index, int) else None
        if known is not None and not (call_id and known.call_id and call_id != known.call_id and name):
            return known
        if call_id:
            same = next((call for call in self._calls if call.call_id == call_id), None)
            if same is not None:
                return same
        elif not isinstance(index, int) and not name and self._calls:
            return self._calls[-1]
        if len(self._calls) >= MAX_CALLS:
            raise BadStream(f"more than {MAX_CALLS} tool calls in one turn")
        call = _Fragments()
        self._calls.append(call)
        if isinstance(index, int):
            self._by_index[index] = call
        return call


def parse_arguments(raw: str) -> tuple[dict[str, Any], str]:
    """The arguments, or an empty object and what is wrong. Nothing at all and `null` mean no arguments; text that was
    encoded twice is decoded twice."""
    value: Any = raw.strip() or None
    for _ in range(2):
        if not isinstance(value, str):
            break
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            return {}, f"the arguments are not valid JSON ({str(error)[:120]})"
    if value is None:
        return {}, ""
    if not isinstance(value, dict):
        return {}, f"the arguments are a JSON {type(value).__name__} instead of an object"
    unfit = _unfit(value, MAX_FREE_FORM_DEPTH)
    return ({}, f"the arguments {unfit}") if unfit else (value, "")


def _unfit(value: Any, levels: int) -> str:
    """Why a value cannot travel on, although Python's parser took it; nothing if it can."""
    if isinstance(value, dict | list):
        if levels == 0:
            return f"are nested more than {MAX_FREE_FORM_DEPTH} levels deep"
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        return next(filter(None, (_unfit(one, levels - 1) for one in inner)), "")
    if isinstance(value, float) and not math.isfinite(value):
        return "hold a number that is not finite"
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return "hold a number of more than 64 bits"
    if isinstance(value, str) and _SURROGATE.search(value):
        return "hold half a character"
    return ""


def _paired(text: str) -> str:
    """Surrogate pairs as the characters they stand for, and halves without the other as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _usage(raw: Any) -> Usage | None:
    if not isinstance(raw, dict):
        return None
    prompt, completion = raw.get("prompt_tokens"), raw.get("completion_tokens")
    if not isinstance(prompt, int) and not isinstance(completion, int):
        return None
    return Usage(prompt_tokens=_count(prompt), completion_tokens=_count(completion))


def _count(value: Any) -> int:
    return max(0, value) if isinstance(value, int) else 0


class _ThoughtFilter:
    """Drops `<think>…</think>` at the start of the text, which some servers leave in front of the answer."""

    _OPEN, _CLOSE = "<think>", "</think>"

    def __init__(self) -> None:
        self._state = "start"
        self._held = ""
        self.begun = False

    def feed(self, text: str) -> str:
        if self._state == "text":
            return text
        if self._state == "after":
            text = text.lstrip()
            self._state = "text" if text else "after"
            return text
        self._held += text
        if self._state == "start":
            begun = self._held.lstrip()
            if self._OPEN.startswith(begun[: len(self._OPEN)]) and len(begun) < len(self._OPEN):
                return ""
            if not begun.startswith(self._OPEN):
                return self._give()
            self._state, self._held = "thought", begun[len(self._OPEN) :]
        thought, closed, after = self._held.partition(self._CLOSE)
        # Models that are told not to think leave an empty pair of marks.
        self.begun = self.begun or bool(thought.strip() and not self._CLOSE.startswith(thought.strip()))
        if not closed:
            self._held = self._held[-len(self._CLOSE) :]
            return ""
        self._held, self._state = "", "after"
        return self.feed(after)

    def flush(self) -> str:
        return "" if self._state == "thought" else self._give()

    def _give(self) -> str:
        self._state, held = "text", self._held
        self._held = ""
        return held
