"""Two rankings made one: what is found by words, and what is near in meaning.

By rank alone (reciprocal rank fusion) a clear winner weighs no more than a doubtful one, and a weak route spoils a
strong one. So scores count: each route's are brought to 0…1, and added with weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import TypeVar

from msgspec.structs import replace

from .stored import Hit

WORDS_WEIGHT = 0.6
"""The words' share in a fused score; the rest is nearness (docs/finding.md says how it was chosen)."""
MIN_CANDIDATES, MAX_CANDIDATES = 30, 200

Id = TypeVar("Id", str, int)
Ranking = Sequence[tuple[Id, float]]
"""Ids with their scores, best first; higher is better."""


def candidates(top_k: int) -> int:
    """How many passages each route has to find for `top_k` fused ones."""
    return min(max(3 * top_k, MIN_CANDIDATES), MAX_CANDIDATES)


def fuse(
    words: Ranking[Id], near: Ranking[Id], wanted: int, words_weight: float = WORDS_WEIGHT
) -> list[tuple[Id, float]]:
    """Ids with their fused scores in 0…1, best first; of equal ones what is nearer, then what the words found first.

    Args:
        words: BM25 scores. The best counts 1. What was left out had at most the last's score, so the last counts 0;
            where nothing was left out, 0 (no word found) does.
        near: cosines or the like, which differ little: the best counts 1, the last 0.
        wanted: how many each route was to find at most. What only one has found gets nothing from the other.
    """
    least = words[-1][1] if len(words) >= wanted else 0.0
    scores = dict(_weighted(near, near[-1][1] if near else 0.0, 1 - words_weight))
    for id, share in _weighted(words, least, words_weight):
        scores[id] = scores.get(id, 0.0) + share
    return sorted(scores.items(), key=itemgetter(1), reverse=True)


def _weighted(ranking: Ranking[Id], least: float, weight: float) -> list[tuple[Id, float]]:
    """Scores brought to 0…`weight`, from `least` to the best; all `weight` where there is no difference."""
    best = ranking[0][1] if ranking else 0.0
    if best <= least:
        return [(id, weight) for id, _ in ranking]
    span = best - least
    return [(id, weight * (1 - (best - score) / span)) for id, score in ranking]


def fused(words: Sequence[Hit], near: Sequence[Hit], wanted: int) -> list[Hit]:
    """The hits of both routes, best first, with fused scores; without those of score 0."""
    hits = {hit.id: hit for hit in (*near, *words)}
    order = fuse([(hit.id, hit.score) for hit in words], [(hit.id, hit.score) for hit in near], wanted)
    return [replace(hits[id], score=score) for id, score in order if score > 0]
