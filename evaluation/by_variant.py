"""The answers of one run by the variant of workers that gave them; no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .comparing import compare_groups, group_sentence
from .measures import Answered, figures

NONE = "none"
"""What the workers of no variant are called here, as in the metrics."""


def by_variant(answers: Sequence[Answered], *, seed: int) -> dict[str, Any]:
    """The figures of each variant, and how the others differ from `none` (or from the most used, where `none` has
    answered nothing). Empty where all answers are of one variant."""
    groups: dict[str, list[Answered]] = {}
    for one in answers:
        if one.variant:
            groups.setdefault(one.variant, []).append(one)
    if len(groups) < 2:
        return {}
    names = sorted(groups, key=lambda name: (name != NONE, -len(groups[name]), name))
    told = {name: figures(groups[name]) for name in names}
    base, *others = names
    values = {name: _values(groups[name], list(told[name]["measures"])) for name in names}
    differences = [
        {"variants": [base, name], "says": group_sentence(base, name, one), **asdict(one)}
        for name in others
        for one in compare_groups(values[base], values[name], seed=seed, comparisons=len(others))
    ]
    unknown = len(answers) - sum(map(len, groups.values()))
    return {"figures": told, "unknown": unknown, "differences": differences, "says": _says(groups, names, unknown)}


def _says(groups: dict[str, list[Answered]], names: Sequence[str], unknown: int) -> list[str]:
    counts = ", ".join(f"{name} {len(groups[name])}" for name in names)
    told = [
        f"Answered by several variants: {counts} questions. Different questions went to each, so a part of what is "
        "between them may be the questions; baton eval --variants asks the same ones of both."
    ]
    if unknown:
        told.append(f"{unknown} were refused before they could try a variant: they are in none of these figures.")
    return told


def _values(answers: Sequence[Answered], names: Sequence[str]) -> dict[str, list[float | None]]:
    return {name: [one.values.get(name) for one in answers] for name in names}
