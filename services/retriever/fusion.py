"""Rankings fused into one by reciprocal rank."""

from __future__ import annotations

from collections.abc import Sequence

RRF_K = 60
"""The constant of reciprocal rank fusion, as in its paper (Cormack, Clarke and Büttcher, 2009)."""


def fuse(*rankings: Sequence[str]) -> list[tuple[str, float]]:
    """Ids with their fused scores, best first; of equal ones the one that an earlier ranking names first.

    A ranking's id at place p (from 1) adds 1 / (RRF_K + p).
    """
    scores: dict[str, float] = {}
    for ranking in rankings:
        for place, id in enumerate(ranking, start=1):
            scores[id] = scores.get(id, 0.0) + 1.0 / (RRF_K + place)
    return sorted(scores.items(), key=lambda entry: -entry[1])
