"""The YAML file that `BATON_TOOLS` names: which tools a worker serves besides those that ship with Baton.

    builtin: [calculator, date_time]   # optional: which of Baton's own tools; all of them where it is absent
    tools:
      - python: my_company.tools:open_tickets
        groups: [support]              # optional, in every entry: whose users may call its tools
        timeout_s: 5                   # optional, in every entry: seconds that one call may take

An entry's kind is its one key out of `KINDS`. Each kind has a function

    open_entry(entry: Mapping[str, Any], place: str, settings: ToolsSettings)

which returns an async context manager that yields a `Tool` or a `ToolSource`. `entry` comes without `groups` and
`timeout_s`, which are dealt with here; `settings.timeout_s` is what a call of this entry may take. `place` is where the
entry stands, the beginning of each line that says what is wrong with it: all of them in one `SettingsError`, or a
`ValueError` where there is only one. Everything that the file is wrong in is told at once.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
from collections.abc import Hashable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from services.common.config import ToolsSettings
from services.common.settings import SettingsError
from services.common.wording import shorten

from .adjusted import Adjustment, is_source
from .conformance import what_is_wrong
from .port import Tool, ToolSource

log = logging.getLogger(__name__)

KINDS: Mapping[str, str] = {
    "python": "services.tools.python_tool:open_entry",
    "http": "services.tools.http:open_entry",
    "mcp": "services.tools.mcp:open_entry",
}
"""By an entry's key: what opens it. Imported when a file has such an entry."""
_COMMON = ("groups", "timeout_s")
MAX_FILE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ToolsFile:
    """What the file says. `builtin` is None where it leaves that open."""

    builtin: list[str] | None = None
    entries: tuple[tuple[str, Any], ...] = ()
    """Each with its place."""


def read_tools_file(path: str, problems: list[str]) -> ToolsFile:
    """The file at `path`, empty where there is none to read; what is wrong is added to `problems`."""
    if not path:
        return ToolsFile()
    where = f"BATON_TOOLS={path}"
    try:
        text = Path(path).read_bytes()
        if len(text) > MAX_FILE_BYTES:
            raise ValueError(f"has more than {MAX_FILE_BYTES} bytes")
        content = yaml.load(text.decode("utf-8-sig"), _Loader)
    except OSError as error:
        problems.append(f"{where}: cannot be read: {error.strerror or error}")
        return ToolsFile()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problems.append(f"{where}: is not YAML: {shorten(str(error), 300)}")
        return ToolsFile()
    if not isinstance(content, dict) or not content or set(content) - {"builtin", "tools"}:
        problems.append(f"{where}: expected a key `tools` with a list of tools, `builtin` with names, and nothing else")
        return ToolsFile()
    builtin, entries = content.get("builtin"), content.get("tools", [])
    if "builtin" in content and not _is_list_of_text(builtin):
        problems.append(f"{where}: `builtin` must be a list of names")
        builtin = None
    if not isinstance(entries, list):
        problems.append(f"{where}: `tools` must be a list")
        entries = []
    return ToolsFile(builtin, tuple((f"{where}: tools[{index}]", entry) for index, entry in enumerate(entries)))


async def open_entry(
    entry: Any, place: str, settings: ToolsSettings, stack: AsyncExitStack, problems: list[str]
) -> Tool | ToolSource | None:
    """What one entry asks for, open as long as `stack`; None with what is wrong added to `problems`."""
    kinds = sorted(set(entry) & set(KINDS)) if isinstance(entry, dict) else []
    if len(kinds) != 1:
        problems.append(f"{place}: expected a mapping with one of the keys {', '.join(KINDS)}")
        return None
    found = len(problems)
    adjustment = _adjustment(entry, place, settings, problems)
    own = {key: value for key, value in entry.items() if key not in _COMMON}
    lowered = dataclasses.replace(settings, timeout_s=adjustment.timeout_s or settings.timeout_s)
    try:
        opened = await stack.enter_async_context(_opener(KINDS[kinds[0]])(own, place, lowered))
        wrong = None if is_source(opened) else what_is_wrong(opened)
        problems += [] if wrong is None else [f"{place}: {wrong}"]
    except SettingsError as error:
        problems += error.problems
    except Exception as error:
        if not isinstance(error, ValueError):
            log.debug("the entry could not be opened", exc_info=True)
        text = shorten(str(error), 500) if isinstance(error, ValueError) else _named(error)
        problems.append(text if text.startswith(place) else f"{place}: {text}")
    if len(problems) > found:
        return None
    return adjustment.of(cast("Tool | ToolSource", opened))


def _opener(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {shorten(str(error), 300)}"


def _adjustment(entry: Mapping[str, Any], place: str, settings: ToolsSettings, problems: list[str]) -> Adjustment:
    groups = timeout_s = None
    if "groups" in entry:
        groups = entry["groups"]
        if not _is_list_of_text(groups) or not all(groups):
            problems.append(f"{place}: `groups` must be a list of names of groups")
            groups = None
    if "timeout_s" in entry:
        timeout_s, most = entry["timeout_s"], settings.timeout_s
        if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s <= most:
            problems.append(
                f"{place}: `timeout_s` must be seconds above 0 and not above BATON_TOOL_TIMEOUT_S, which is {most:g}"
            )
            timeout_s = None
    return Adjustment(None if groups is None else tuple(groups), timeout_s)


def _is_list_of_text(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping: YAML's own loader silently takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag != "tag:yaml.org,2002:merge":
                key = self.construct_object(key_node, deep=True)
                if not isinstance(key, Hashable) or key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key!r} stands twice or is no text", key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)
