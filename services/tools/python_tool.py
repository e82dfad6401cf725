"""Tools of one's own in Python, the entries `python:` of the YAML file:

    - python: my_company.tools:open_tickets       # a callable: open_tickets(settings) -> Tool or ToolSource
      settings: {url: "https://tickets.example"}  # optional, a mapping

The callable may also return an async context manager that yields it and closes what it had open.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from services.common.config import ToolsSettings
from services.common.settings import SettingsError
from services.common.wording import shorten

from .port import Tool, ToolSource

_KEYS = {"python", "settings"}


@asynccontextmanager
async def open_entry(entry: Mapping[str, Any], place: str, settings: ToolsSettings) -> AsyncIterator[Tool | ToolSource]:
    """Raises SettingsError."""
    options = _options(entry, place)
    name: str = entry["python"]
    async with AsyncExitStack() as stack:
        try:
            opened = _attribute(name)(options)
            if hasattr(opened, "__aenter__"):
                opened = await stack.enter_async_context(opened)
        except Exception as error:  # whatever code of one's own raises, the operator reads it as a line
            problem = f"{place}: {name}: {type(error).__name__}: {shorten(str(error), 300)}"
            raise SettingsError([problem]) from None
        yield opened


def _options(entry: Mapping[str, Any], place: str) -> dict[str, Any]:
    problems = []
    if not isinstance(entry["python"], str):
        problems.append(f"{place}: `python` must be module:attribute")
    if unknown := sorted(map(str, set(entry) - _KEYS)):
        problems.append(f"{place}: unknown {', '.join(unknown)}; known: {', '.join(sorted(_KEYS))}, groups, timeout_s")
    options = entry.get("settings") or {}
    if not isinstance(options, dict):
        problems.append(f"{place}: `settings` must be a mapping")
    if problems:
        raise SettingsError(problems)
    return options


def _attribute(name: str) -> Any:
    module, separator, attribute = name.partition(":")
    if not (module and separator and attribute):
        raise ValueError("expected module:attribute")
    return getattr(importlib.import_module(module), attribute)
