"""Whether a difference between two configurations is real: paired bootstrap over the questions; no I/O.

The questions are drawn with replacement, many times, and each time the mean of the differences is taken; the interval
holds the middle of these means (the percentile interval; Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
ch. 13). Both configurations answer the same questions, so it is the difference of each question that is drawn: hard
questions are hard for both.

Where different questions went to each side (variants of workers, which get other conversations), there are no pairs:
each side is drawn by itself, and the interval is that of the difference of their means. A side of few questions that
all came out alike looks certain to a bootstrap, so there a difference has to pass a permutation test too (ibid.,
ch. 15): the sides are exchanged at random, and a difference as large must be rarer than the level allows.

Many measures are compared at once, and of twenty that do not differ, one is outside of its 95 % interval. So the
intervals that decide are wider: with m measures each has the level 1 - 0.05 / m (Bonferroni), and the chance that any
of them names a difference that is none stays at about 5 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
RESAMPLES = 10_000
LEAST_PAIRS = 10
"""With fewer questions a bootstrap's interval is too narrow to decide anything."""
_AT_ONCE = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Apart:
    """B minus A in one measure. `low` and `high` bound the interval of level `level`, which allows for the number of
    measures compared; `low95` and `high95` the usual one. `real`: the wide interval excludes 0."""

    measure: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    low95: float
    high95: float
    level: float
    real: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference(_Apart):
    """Over the `pairs` questions that both have a value for."""

    pairs: int

    @property
    def enough(self) -> bool:
        return self.pairs >= LEAST_PAIRS


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupDifference(_Apart):
    """Of two groups of `questions_a` and `questions_b` different questions. `real`: so does a permutation test of its
    level."""

    questions_a: int
    questions_b: int

    @property
    def enough(self) -> bool:
        return min(self.questions_a, self.questions_b) >= LEAST_PAIRS


def compare(
    a: Mapping[str, Sequence[float | None]],
    b: Mapping[str, Sequence[float | None]],
    *,
    seed: int = 1,
    resamples: int = RESAMPLES,
) -> list[Difference]:
    """The difference of each measure. `a` and `b` hold the values by measure, in the same order of questions; None
    where a question has no value. Measures without a pair are left out.

    Raises:
        ValueError: they are not about equally many questions.
    """
    paired: dict[str, tuple[list[float], list[float]]] = {}
    for measure in (name for name in a if name in b):
        if len(a[measure]) != len(b[measure]):
            raise ValueError(f"{measure}: {len(a[measure])} values and {len(b[measure])} are no pairs")
        both = [(x, y) for x, y in zip(a[measure], b[measure], strict=True) if x is not None and y is not None]
        if both:
            paired[measure] = ([x for x, _ in both], [y for _, y in both])
    level = 1 - (1 - LEVEL) / max(1, len(paired))
    return [_difference(measure, x, y, level, seed, resamples) for measure, (x, y) in paired.items()]


def _difference(
    measure: str, a: Sequence[float], b: Sequence[float], level: float, seed: int, resamples: int
) -> Difference:
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    by = second - first
    bounds = _bounds(bootstrap_means(by, seed=seed, resamples=resamples), level)
    return Difference(
        measure=measure,
        pairs=len(by),
        a=float(first.mean()),
        b=float(second.mean()),
        difference=float(by.mean()),
        real=len(by) >= LEAST_PAIRS and bounds.without_zero,
        **bounds._asdict(),
    )


class _Bounds(NamedTuple):
    low: float
    high: float
    low95: float
    high95: float
    level: float

    @property
    def without_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def _bounds(means: np.ndarray, level: float) -> _Bounds:
    return _Bounds(*interval(means, level), *interval(means, LEVEL), level)


def compare_groups(
    a: Mapping[str, Sequence[float | None]],
    b: Mapping[str, Sequence[float | None]],
    *,
    seed: int = 1,
    resamples: int = RESAMPLES,
    comparisons: int = 1,
) -> list[GroupDifference]:
    """The difference of each measure that both groups have values of; None where a question has none.

    Args:
        comparisons: how many pairs of groups are compared in all; the level allows for them too.
    """
    groups = {
        measure: (known, others)
        for measure in a
        if (known := [value for value in a[measure] if value is not None])
        and (others := [value for value in b.get(measure, ()) if value is not None])
    }
    level = 1 - (1 - LEVEL) / max(1, len(groups) * comparisons)
    return [_apart(measure, *both, level, seed, resamples) for measure, both in groups.items()]


def _apart(
    measure: str, a: Sequence[float], b: Sequence[float], level: float, seed: int, resamples: int
) -> GroupDifference:
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    # Two seeds of their own: drawn by one, the sides would move together.
    means = bootstrap_means(second, seed=(seed, 1), resamples=resamples)
    bounds = _bounds(means - bootstrap_means(first, seed=(seed, 0), resamples=resamples), level)
    outside = min(len(first), len(second)) >= LEAST_PAIRS and bounds.without_zero
    return GroupDifference(
        measure=measure,
        questions_a=len(first),
        questions_b=len(second),
        a=float(first.mean()),
        b=float(second.mean()),
        difference=float(second.mean() - first.mean()),
        real=outside and permutation_p(first, second, seed=seed, resamples=resamples) <= 1 - level,
        **bounds._asdict(),
    )


def permutation_p(a: np.ndarray, b: np.ndarray, *, seed: int, resamples: int = RESAMPLES) -> float:
    """How often two groups of these sizes, drawn at random from both together, are at least so far apart."""
    random = np.random.default_rng((seed, 2))
    both = np.concatenate([a, b])
    least = abs(a.mean() - b.mean()) - 1e-12  # sums of the same numbers in another order
    rows = max(1, _AT_ONCE // len(both))
    as_far = 0
    for done in range(0, resamples, rows):
        drawn = random.permuted(np.tile(both, (min(rows, resamples - done), 1)), axis=1)
        apart = drawn[:, : len(a)].mean(axis=1) - drawn[:, len(a) :].mean(axis=1)
        as_far += int((np.abs(apart) >= least).sum())
    return (as_far + 1) / (resamples + 1)


def bootstrap_means(values: np.ndarray, *, seed: int | tuple[int, ...], resamples: int = RESAMPLES) -> np.ndarray:
    """The means of `resamples` samples of `values`, each as long as they are, drawn with replacement."""
    random = np.random.default_rng(seed)
    rows = max(1, _AT_ONCE // len(values))
    means = [
        values[random.integers(0, len(values), size=(min(rows, resamples - done), len(values)))].mean(axis=1)
        for done in range(0, resamples, rows)
    ]
    return np.concatenate(means)


def interval(means: np.ndarray, level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def sentence(one: Difference) -> str:
    """What the comparison says, for people."""
    return _said(one, "A", "B", str(one.pairs))


def group_sentence(a: str, b: str, one: GroupDifference) -> str:
    """The same of two groups called `a` and `b`."""
    return _said(one, a, b, f"{one.questions_a} and {one.questions_b}")


def _said(one: Difference | GroupDifference, a: str, b: str, questions: str) -> str:
    numbers = f"{a} {_figure(one.a)}, {b} {_figure(one.b)}, difference {one.difference:+.4g} "
    bounds = f"(interval {one.low:+.4g} to {one.high:+.4g}, {questions} questions)"
    if one.real:
        return f"{one.measure}: {b} is {'higher' if one.difference > 0 else 'lower'}: {numbers}{bounds}."
    if not one.enough:
        return f"{one.measure}: too few questions to tell: {numbers}{bounds}."
    return f"{one.measure}: not told apart: {numbers}{bounds}."


def _figure(value: float) -> str:
    return f"{value:.4g}"
