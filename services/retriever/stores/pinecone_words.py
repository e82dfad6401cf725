"""Full text on Pinecone: a passage's words as a sparse vector, whose product with a question's is BM25.

A word's dimension is a hash of it. The passage has the part of BM25 that follows from how often a word stands there,
the question the part that follows from how rare it is. Pinecone keeps no statistics of words, but can be asked: a
search for one word finds the passages that have it, `COUNTED` of them at most; more count as so many.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache

from .pinecone_index import Index

K1, B = 1.2, 0.75
USUAL_WORDS = 150
"""Words of a usual passage, in place of the average, which Pinecone does not know either."""
MARK = 0
"""A dimension that every record has and no question asks for: Pinecone takes no sparse vector without a value."""
MAX_WORDS = 1_000
"""Different words at most: of a passage the weightiest, of a question the first."""
COUNTED = 100
ASKED_AT_ONCE = 24
"""Words of one question at most that are counted anew; others count as `COUNTED` until a later question."""
AGE_S, SIZE_AGE_S = 300.0, 60.0
"""For so long a word's count and the number of passages are believed."""
KEPT = 50_000


@lru_cache(maxsize=50_000)
def dimension_of(word: str) -> int:
    """The same everywhere and for ever; never `MARK`."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest()) or MARK + 1


def sparse(weights: Mapping[int, float]) -> dict[str, list[int] | list[float]]:
    """A sparse vector as Pinecone takes it."""
    return {"indices": list(weights), "values": list(weights.values())}


def passage_weights(words: Sequence[str]) -> dict[int, float]:
    """What a passage weighs in the dimensions of its words."""
    length = K1 * (1 - B + B * len(words) / USUAL_WORDS)
    weights: Counter[int] = Counter()
    for word, times in Counter(words).items():
        weights[dimension_of(word)] += times * (K1 + 1) / (times + length)  # type: ignore[assignment]
    return {MARK: 1.0, **dict(heapq.nlargest(MAX_WORDS - 1, weights.items(), key=lambda entry: entry[1]))}


class Rarity:
    """How rare words are in the whole namespace, hidden documents included, as in every store."""

    def __init__(self, index: Index, wait_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Counting may take `wait_s` seconds; what is not counted by then counts as `COUNTED`, or as before."""
        self._index = index
        self._wait_s = wait_s
        self._clock = clock
        self._counts: dict[str, tuple[int, float]] = {}
        self._size: tuple[int, float] = (0, float("-inf"))

    async def weights(self, words: Sequence[str]) -> dict[int, float]:
        """What a question weighs in the dimensions of its words."""
        now = self._clock()
        asked = [word for word in words if self._counts.get(word, (0, float("-inf")))[1] < now - AGE_S]
        calls = [self._count(word) for word in asked[:ASKED_AT_ONCE]]
        if self._size[1] < now - SIZE_AGE_S:
            calls.append(self._measure())
        if calls:
            # A search must not fail because its words could not be weighed.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._wait_s):
                    await asyncio.gather(*calls, return_exceptions=True)
        counts = {word: self._counts.get(word, (COUNTED, 0.0))[0] for word in words[:MAX_WORDS]}
        return {dimension_of(word): self._weight(count) for word, count in counts.items()}

    def _weight(self, having: int) -> float:
        size = max(self._size[0], having)
        return math.log(1 + (size - having + 0.5) / (having + 0.5))

    async def _count(self, word: str) -> None:
        asked = sparse({dimension_of(word): 1.0})
        found = await self._index.query(COUNTED, None, False, sparse_vector=asked)
        if len(self._counts) >= KEPT:
            self._counts.clear()
        self._counts[word] = (sum(match.score > 0 for match in found), self._clock())

    async def _measure(self) -> None:
        self._size = (await self._index.size(), self._clock())
