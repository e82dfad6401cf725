"""Which lines of a process's output a person wants to see while all is well: warnings and errors."""

from __future__ import annotations

import json
import re

_TEXT = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} (?P<level>[A-Z]+)\s")
_NATS = re.compile(r"^\[\d+\] \d{4}/\d\d/\d\d [\d:.]+ \[(?P<level>[A-Z]{3})\]")
_QUIET = {"DEBUG", "INFO", "DBG", "INF", "TRC"}


class Importance:
    """Judges the lines of one process, in order: a line without a level belongs to the one before it."""

    def __init__(self) -> None:
        self._shown = False

    def __call__(self, line: str) -> bool:
        level = _level(line)
        if level:
            self._shown = level not in _QUIET
        return self._shown


def _level(line: str) -> str:
    """The level of a line that starts a message; empty for one that goes on with it."""
    if match := _TEXT.match(line) or _NATS.match(line):
        return match["level"]
    if line.startswith("{"):  # BATON_LOG=json
        try:
            return str(json.loads(line)["level"]).upper()
        except (ValueError, KeyError, TypeError):
            return ""
    return "ERROR" if line.startswith("Traceback (most recent call last)") else ""
