"""Which of a server's tools are offered, and how: names that fit, bounded texts, schemas without what is injected."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from mcp import types

from baton_proto.messages import ToolSpec
from services.common.wording import clean, shorten

from .entry import McpEntry

MAX_TOOLS = 200
MAX_DESCRIPTION_CHARS = 2_000
MAX_NAME_CHARS = 64
_HASH_CHARS = 8
_MAX_DEPTH = 100
"""Levels of a schema that are looked at; what may be announced is far less deep."""


@dataclass(frozen=True, slots=True)
class Offered:
    """A tool as Baton announces it, and as its server calls it. `injected` are those of its arguments that the user's
    token fills."""

    remote_name: str
    spec: ToolSpec
    injected: frozenset[str]


@dataclass(slots=True)
class Listing:
    offered: list[Offered] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def listing(tools: Sequence[types.Tool], entry: McpEntry) -> Listing:
    """The tools of a server that `entry` wants, with what is wrong with the others."""
    result = Listing()
    wanted = [tool for tool in tools if entry.tools is None or tool.name in entry.tools]
    missing = sorted((entry.tools or frozenset()) - {tool.name for tool in tools})
    missing += sorted(entry.idempotent - {tool.name for tool in tools} - set(missing))
    if missing:
        result.problems.append(f"it has no {shorten(', '.join(missing), 200)}")
    if len(wanted) > MAX_TOOLS:
        result.problems.append(f"it has {len(wanted)} tools; those after the first {MAX_TOOLS} are left out")
        wanted = wanted[:MAX_TOOLS]
    names = _names([tool.name for tool in wanted], entry.prefix)
    for tool in wanted:
        name = names[tool.name]
        if name != entry.prefix + tool.name:
            result.problems.append(f"{shorten(tool.name, 80)} is called {name}")
        if (problem := _why_not(tool)) is not None:
            result.problems.append(f"{shorten(tool.name, 80)} is left out: {problem}")
        else:
            result.offered.append(_offered(tool, name, entry))
    return result


def _why_not(tool: types.Tool) -> str | None:
    """What only MCP can get wrong; the rest is checked where every tool is."""
    if tool.execution is not None and tool.execution.task_support == "required":
        return "it can only be called as a task, which is not supported"
    try:
        foreign = _foreign_reference(tool.input_schema)
    except RecursionError:
        return "its schema is too deep"
    return None if foreign is None else f"its schema refers to {shorten(foreign, 80)}, and nothing is fetched"


def _offered(tool: types.Tool, name: str, entry: McpEntry) -> Offered:
    parameters = {key: value for key, value in tool.input_schema.items() if key != "$schema"}
    properties = parameters.get("properties")
    known = set(properties) if isinstance(properties, dict) else set()
    injected = frozenset(entry.inject) & known
    spec = ToolSpec(
        name=name,
        description=_description(tool),
        parameters=_without(parameters, injected) if injected else parameters,
        idempotent=_idempotent(tool, entry),
    )
    return Offered(tool.name, spec, injected)


def _description(tool: types.Tool) -> str:
    hinted = tool.annotations.title if tool.annotations else None
    for text in (tool.description, tool.title, hinted):
        if text and text.strip():
            text = clean(text.strip())
            return text if len(text) <= MAX_DESCRIPTION_CHARS else text[: MAX_DESCRIPTION_CHARS - 1] + "…"
    return clean(tool.name)


def _idempotent(tool: types.Tool, entry: McpEntry) -> bool:
    """A server's own word counts only where it is trusted: what says so is repeated when it was cut off."""
    if tool.name in entry.idempotent:
        return True
    hints = tool.annotations
    return entry.trust_annotations and hints is not None and bool(hints.read_only_hint or hints.idempotent_hint)


def _without(parameters: dict[str, Any], injected: Iterable[str]) -> dict[str, Any]:
    """The schema for the model, which must not even know of these arguments."""
    parameters = deepcopy(parameters)
    for name in injected:
        del parameters["properties"][name]
    required = parameters.get("required")
    if isinstance(required, list):
        parameters["required"] = [name for name in required if name not in injected]
    return parameters


def _names(remote: Sequence[str], prefix: str) -> dict[str, str]:
    """The name under which each tool is offered: its own where that fits, otherwise one made of it that is the same
    each time and nobody else's."""
    made = {name: re.sub(r"[^A-Za-z0-9_-]", "_", prefix + name) for name in remote}
    taken = Counter(made.values())
    for name, short in made.items():
        own = short == prefix + name
        if len(short) > MAX_NAME_CHARS or (not own and taken[short] > 1):
            digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:_HASH_CHARS]
            made[name] = f"{short[: MAX_NAME_CHARS - _HASH_CHARS - 1]}_{digest}"
    return made


def _foreign_reference(value: Any, depth: int = 0) -> str | None:
    """A reference out of the schema; None where there is none. Raises RecursionError."""
    if depth > _MAX_DEPTH:
        raise RecursionError
    if isinstance(value, dict):
        for key in ("$ref", "$dynamicRef"):
            target = value.get(key)
            if isinstance(target, str) and not target.startswith("#"):
                return target
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            if (found := _foreign_reference(part, depth + 1)) is not None:
                return found
    return None
