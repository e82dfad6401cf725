"""The tools that a worker serves at the moment: fixed ones, and those of sources that come and go."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from baton_proto.messages import MAX_ENTRY_BYTES, ToolSpec
from services.common.arguments import ArgumentChecker
from services.common.wording import shorten

from .conformance import spec_bytes, what_is_wrong
from .port import Tool, ToolSource

log = logging.getLogger(__name__)

MAX_ANNOUNCED_BYTES = MAX_ENTRY_BYTES - 64 * 1024
"""What all specs of one worker may take together: they travel in one message."""
_MAX_REMEMBERED = 1_000


@dataclass(frozen=True, slots=True)
class Served:
    """A tool with the checker of its arguments."""

    tool: Tool
    checker: ArgumentChecker


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found out about a spec: it is dear to find out, and asked about every second."""

    spec: ToolSpec
    size: int
    problem: str | None
    checker: ArgumentChecker | None


class Toolbox:
    """Looked at for every announcement and every call. The first tool of a name is served; a later one, one that does
    not fit the port and one for which an announcement has no room are left out, and that is logged once.

    Args:
        fixed: tools that stay; they come first.
    """

    def __init__(self, fixed: Sequence[Tool], sources: Sequence[ToolSource] = ()) -> None:
        self._fixed = tuple(fixed)
        self._sources = tuple(sources)
        self._known: dict[str, _Known] = {}
        self._told: set[str] = set()

    def tools(self) -> list[Tool]:
        """Those that are served now."""
        return [served.tool for served in self._current().values()]

    def find(self, name: str) -> Served | None:
        return self._current().get(name)

    def _current(self) -> dict[str, Served]:
        current: dict[str, Served] = {}
        room = MAX_ANNOUNCED_BYTES
        for tool in self._all():
            name = tool.spec.name
            if name in current:
                self._tell(f"a second tool named {name} is left out: the first one is served")
                continue
            known = self._look_at(tool)
            if known.checker is None:
                self._tell(f"the tool {name} is left out: {known.problem}")
            elif known.size > room:
                self._tell(f"the tool {name} is left out: too many tools for one announcement")
            else:
                room -= known.size
                current[name] = Served(tool, known.checker)
        return current

    def _all(self) -> Iterator[Tool]:
        yield from self._fixed
        for source in self._sources:
            try:
                tools = list(source.tools())
            except Exception as error:
                self._tell(f"{type(source).__name__} has no tools: {type(error).__name__}: {shorten(str(error), 200)}")
                continue
            for tool in tools:
                if isinstance(getattr(tool, "spec", None), ToolSpec):
                    yield tool
                else:
                    self._tell(f"a tool of {type(source).__name__} is left out: {what_is_wrong(tool)}")

    def _look_at(self, tool: Tool) -> _Known:
        spec = tool.spec
        known = self._known.get(spec.name)
        if known is None or (known.spec is not spec and known.spec != spec):
            if len(self._known) >= _MAX_REMEMBERED:
                self._known.clear()
            problem = what_is_wrong(tool)
            known = _Known(spec, 0, problem, None)
            if problem is None:
                known = _Known(spec, spec_bytes(spec), None, ArgumentChecker(spec))
            self._known[spec.name] = known
        return known

    def _tell(self, text: str) -> None:
        text = shorten(text, 400)
        if text not in self._told and len(self._told) < _MAX_REMEMBERED:
            self._told.add(text)
            log.warning("%s", text)
