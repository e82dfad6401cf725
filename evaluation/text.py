"""The figures of evaluations as a table for a terminal."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .measures import TIMES
from .page import figure_text, measure_groups, shown_figures

_MOST_REASONS = 3


def table(run: Mapping[str, Any]) -> str:
    """All that a terminal gets to see of one run."""
    reasons = Counter(one["failed"] for one in run["results"] if one["failed"]).most_common(_MOST_REASONS)
    judge = run["judge"]
    lost = [f"  {name}: {n} of {judge['asked'][name]} not judged" for name, n in judge.get("failures", {}).items()]
    failed = [f"  {count} failed: {reason}" for reason, count in reasons]
    return "\n".join([_figures(run["name"], shown_figures(run["figures"])), *lost, *failed, *_variants(run)])


def _variants(run: Mapping[str, Any]) -> list[str]:
    told = run.get("variants")
    if not told:
        return []
    differences = [f"  {one['says']}" for one in told["differences"]]
    return ["", *told["says"], "", _figures("by variant", told["figures"]), *differences]


def _figures(title: str, figures: Mapping[str, Any]) -> str:
    columns = list(figures)
    names = dict.fromkeys(name for column in columns for name in figures[column]["measures"])
    rows = [[title, *columns], ["questions", *(str(figures[column]["questions"]) for column in columns)]]
    for _, of in measure_groups(names):
        for name in of:
            told = [figures[column]["measures"].get(name) for column in columns]
            rows.append([name, *(figure_text(name, one["mean"]) if one else "–" for one in told)])
    for name in TIMES:
        told = [figures[column]["percentiles"].get(name) for column in columns]
        rows.append([f"{name} p50/p95", *(f"{one['p50']:.0f}/{one['p95']:.0f}" if one else "–" for one in told)])
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns, the first to the left and the others to the right; wide characters count twice."""
    widths = [max(_width(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for row in rows:
        first = row[0] + " " * (widths[0] - _width(row[0]))
        rest = [" " * (width - _width(cell)) + cell for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([first, *rest]))
    return "\n".join(lines)


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
