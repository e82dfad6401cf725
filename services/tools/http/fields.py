"""Reading a mapping of the YAML file: each wrong field is noted with its place, and reading goes on."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from services.common.wording import shorten

from .template import Template, parse


class Fields:
    """The fields of one mapping. A getter that finds something wrong notes it and gives the default."""

    def __init__(self, content: Mapping[str, Any], place: str, known: Collection[str], problems: list[str]) -> None:
        self._content = content
        self.place = place
        self.problems = problems
        if unknown := sorted(map(str, set(content) - set(known))):
            self.note(f"unknown {', '.join(unknown)}; known: {', '.join(known)}")

    def __contains__(self, name: str) -> bool:
        return name in self._content

    def note(self, problem: str, name: str = "") -> None:
        self.problems.append(f"{self.place}{'.' if name else ''}{name}: {problem}")

    def raw(self, name: str) -> Any:
        return self._content.get(name)

    def text(self, name: str, default: str = "", *, needed: bool = False) -> str:
        value = self._content.get(name)
        if value is None and not needed:
            return default
        if not isinstance(value, str) or not value.strip():
            self.note("expected a text", name)
            return default
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self._content.get(name, default)
        if not isinstance(value, bool):
            self.note("expected true or false", name)
            return default
        return value

    def number(self, name: str, default: float, *, most: float) -> float:
        value = self._content.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most or math.isnan(value):
            self.note(f"expected a number above 0 and not above {most:g}", name)
            return default
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        value = self._content.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(key, str) and key for key in value):
            self.note("expected a mapping with texts as keys", name)
            return {}
        return value

    def texts(self, name: str) -> list[str]:
        value = self._content.get(name)
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            self.note("expected a list of texts", name)
            return []
        return value

    def template(self, value: Any, name: str) -> Template:
        """`value` as a template; numbers and truth values stand for themselves."""
        if isinstance(value, bool):
            value = "true" if value else "false"
        if isinstance(value, int | float):
            value = str(value)
        if not isinstance(value, str):
            self.note("expected a text", name)
            return Template(())
        try:
            return parse(value)
        except ValueError as error:
            self.note(shorten(str(error), 200), name)
            return Template(())
