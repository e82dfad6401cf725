"""Two rankings made one: what is found by words, and what is near in meaning.

By rank alone (reciprocal rank fusion) a clear winner weighs no more than a doubtful one, and a weak route spoils a
strong one. So scores count: each route's are brought to 0…1, and added with weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .stored import Hit

WORDS_WEIGHT = 0.6
"""The words' share in a fused score; the rest is nearness (docs/finding.md says how it was chosen)."""
MIN_CANDIDATES, MAX_CANDIDATES = 30, 200

Ranking = Sequence[tuple[str, float]]
"""Ids with their scores, best first; higher is better."""


def candidates(top_k: int) -> int:
    """How many passages each route has to find for `top_k` fused ones."""
    return min(max(3 * top_k, MIN_CANDIDATES), MAX_CANDIDATES)


def fuse(words: Ranking, near: Ranking, words_weight: float = WORDS_WEIGHT) -> list[tuple[str, float]]:
    """Ids with their fused scores in 0…1, best first; of equal ones what the words found first.

    Args:
        words: BM25 scores: the best counts 1, and 0 (no word) 0.
        near: cosines or the like, which differ little: the best counts 1, the last 0, so `near` should be
            `candidates` long. What only one route has found gets nothing from the other.
    """
    scores: dict[str, float] = {}
    best = max((score for _, score in words), default=0.0)
    for id, score in words:
        scores[id] = words_weight * (score / best if best > 0 else 0.0)
    nearest = max((score for _, score in near), default=0.0)
    spread = nearest - min((score for _, score in near), default=0.0)
    for id, score in near:
        share = 1 - (nearest - score) / spread if spread > 0 else 1.0
        scores[id] = scores.get(id, 0.0) + (1 - words_weight) * share
    return sorted(scores.items(), key=lambda entry: -entry[1])


def fused(words: Sequence[Hit], near: Sequence[Hit]) -> list[Hit]:
    """The hits of both routes, best first, with fused scores; without those of score 0."""
    hits = {hit.id: hit for hit in (*near, *words)}
    order = fuse([(hit.id, hit.score) for hit in words], [(hit.id, hit.score) for hit in near])
    return [replace(hits[id], score=score) for id, score in order if score > 0]
