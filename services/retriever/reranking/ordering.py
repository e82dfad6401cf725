"""A reranker's order, where it gives one in time; otherwise the order that was there."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence

from msgspec.structs import replace

from services.common import metrics
from services.common.errors import ServiceError
from services.retriever.stored import Hit

from .port import Reranker

log = logging.getLogger(__name__)


class Ordering:
    """Orders what was found by a reranker.

    Args:
        candidates: only so many of the best are given to the reranker, and only these are kept: what it has not seen
            cannot be compared with what it has.
        timeout_s: seconds for one question.
    """

    def __init__(self, reranker: Reranker, candidates: int, timeout_s: float) -> None:
        self._reranker = reranker
        self._candidates = candidates
        self._timeout_s = timeout_s
        self.failed_at = float("-inf")
        """When it failed last, by `time.monotonic`."""

    async def ordered(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
        """`hits` in the reranker's order with its scores, brought into 0 to 1; as they are where it fails."""
        best = list(hits[: self._candidates])
        if len(best) < 2:
            return best
        try:
            async with asyncio.timeout(self._timeout_s):
                given = await self._reranker.rerank(query, [_shown(hit) for hit in best])
            scores = [float(score) for score in given]  # also of arrays: what is not Python's cannot be sent
            if len(scores) != len(best) or not all(math.isfinite(score) for score in scores):
                raise ServiceError("retrieval_failed", "The reranker does not give every passage a number.")
        except (ServiceError, TimeoutError) as error:
            self._failed(str(error) or f"no answer within {self._timeout_s:g} s")
            return list(hits)
        except Exception as error:
            log.exception("the reranker failed")
            self._failed(type(error).__name__)
            return list(hits)
        metrics.RERANKS.labels("done").inc()
        scored = [replace(hit, score=score) for hit, score in zip(best, _between_0_and_1(scores), strict=True)]
        return sorted(scored, key=lambda hit: -hit.score)

    def _failed(self, why: str) -> None:
        self.failed_at = time.monotonic()
        metrics.RERANKS.labels("failed").inc()
        log.warning("the passages stay in the order in which they were found: %s", why)


def _shown(hit: Hit) -> str:
    return "\n".join(part for part in (hit.title, hit.heading, hit.text) if part)


def _between_0_and_1(scores: Sequence[float]) -> list[float]:
    """Models give probabilities, or logits of any size."""
    if all(0 <= score <= 1 for score in scores):
        return list(scores)
    return [1 / (1 + math.exp(-max(-500.0, min(500.0, score)))) for score in scores]
