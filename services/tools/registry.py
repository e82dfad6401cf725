"""Which tools a worker offers: those that ship with Baton and are configured, and those of one's own.

Tools of one's own stand in the YAML file that `BATON_TOOLS` names:

    tools:
      - python: my_company.tools:open_tickets     # a callable: open_tickets(settings) -> Tool
        settings: {url: "https://tickets.example"}  # optional, a mapping

The callable may also return an async context manager that yields the tool and closes what it had open.
"""

from __future__ import annotations

import importlib
import inspect
import math
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from baton_proto import codec
from baton_proto.messages import Announcement, ToolSpec
from baton_proto.subjects import tools_stage
from services.common.config import ToolsSettings
from services.common.settings import SettingsError
from services.common.wording import shorten

from .calculator import Calculator
from .clock import DateTime
from .leave_balance import LeaveBalance
from .port import Tool

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ENTRY_KEYS = {"python", "settings"}


@asynccontextmanager
async def open_tools(settings: ToolsSettings) -> AsyncIterator[list[Tool]]:
    """The tools that `settings` ask for, open until the context ends.

    Raises:
        SettingsError: a setting or the YAML file is wrong; with all that is, not only the first.
    """
    async with AsyncExitStack() as stack:
        problems: list[str] = []
        tools = await _built_in(settings, stack, problems)
        for place, entry in _entries(settings.tools, problems):
            tool = await _open_entry(entry, place, stack, problems)
            if tool is None:
                continue
            if any(tool.spec.name == other.spec.name for other in tools):
                problems.append(f"{place}: there is already a tool named {tool.spec.name}")
            tools.append(tool)
        if problems:
            raise SettingsError(problems)
        yield tools


async def _built_in(settings: ToolsSettings, stack: AsyncExitStack, problems: list[str]) -> list[Tool]:
    tools: list[Tool] = [Calculator()]
    try:
        tools.append(DateTime(settings.timezone))
    except ValueError as error:
        problems.append(f"BATON_TIMEZONE={settings.timezone!r}: {error}")
    if settings.leave_url:
        if not _is_http(settings.leave_url):
            problems.append(
                f"BATON_LEAVE_URL={settings.leave_url!r}: expected an address such as http://hr.example:8100"
            )
        else:
            # Without the environment's proxies: an HR system is inside, and settings come from BATON_ names only.
            client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
            tools.append(LeaveBalance(client, settings.leave_url, min(10.0, 0.9 * settings.timeout_s)))
    return tools


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _entries(path: str, problems: list[str]) -> list[tuple[str, Mapping[str, Any]]]:
    """The entries of the YAML file, each with its place for messages."""
    if not path:
        return []
    where = f"BATON_TOOLS={path}"
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"{where}: cannot be read: {error.strerror or error}")
        return []
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problems.append(f"{where}: is not YAML: {shorten(str(error), 200)}")
        return []
    entries = content.get("tools") if isinstance(content, dict) else None
    if not isinstance(entries, list) or set(content) != {"tools"}:
        problems.append(f"{where}: expected one key `tools` with a list of tools, and nothing else")
        return []
    return [(f"{where}: tools[{index}]", entry) for index, entry in enumerate(entries)]


async def _open_entry(entry: Any, place: str, stack: AsyncExitStack, problems: list[str]) -> Tool | None:
    """The tool of one entry, or None with a problem noted."""
    found = len(problems)
    if not isinstance(entry, dict) or not isinstance(entry.get("python"), str):
        problems.append(f"{place}: expected a mapping with `python: module:attribute`")
        return None
    if unknown := sorted(map(str, set(entry) - _ENTRY_KEYS)):
        problems.append(f"{place}: unknown {', '.join(unknown)}; known: {', '.join(sorted(_ENTRY_KEYS))}")
    options = entry.get("settings") or {}
    if not isinstance(options, dict):
        problems.append(f"{place}: `settings` must be a mapping")
    if len(problems) > found:
        return None
    try:
        tool = _attribute(entry["python"])(options)
        if hasattr(tool, "__aenter__"):
            tool = await stack.enter_async_context(tool)
        wrong = what_is_wrong(tool)
    except Exception as error:  # whatever code of one's own raises, the operator reads it as a line
        wrong = f"{type(error).__name__}: {shorten(str(error), 300)}"
    if wrong is not None:
        problems.append(f"{place}: {entry['python']}: {wrong}")
        return None
    return cast(Tool, tool)


def _attribute(name: str) -> Any:
    module, separator, attribute = name.partition(":")
    if not (module and separator and attribute):
        raise ValueError("expected module:attribute")
    return getattr(importlib.import_module(module), attribute)


def what_is_wrong(tool: object) -> str | None:
    """Why `tool` does not fit the port, None where it does."""
    spec, timeout_s = getattr(tool, "spec", None), getattr(tool, "timeout_s", None)
    if not isinstance(spec, ToolSpec):
        return f"gave {type(tool).__name__}, which has no `spec` that is a ToolSpec"
    if not _NAME.fullmatch(spec.name):
        return f"the name {spec.name!r} must be letters, digits, _ and -, at most 64"
    if not spec.description.strip():
        return "the tool has no description"
    try:
        codec.encode(Announcement(worker="w", stage=tools_stage("w"), slots=0, running=0, tools=[spec]))
    except codec.WireError as error:
        return f"the spec cannot be announced: {shorten(str(error), 200)}"
    try:
        Draft202012Validator.check_schema(spec.parameters)
    except SchemaError as error:
        return f"the parameters are no JSON Schema: {shorten(error.message, 200)}"
    if spec.parameters.get("type") != "object":
        return "the parameters must be a JSON Schema of type object"
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s < math.inf:
        return "`timeout_s` must be a number of seconds above 0"
    if not inspect.iscoroutinefunction(getattr(tool, "call", None)):
        return "`call` must be an `async def`"
    return None
