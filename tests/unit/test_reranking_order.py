"""A reranker's order is taken where it gives one; otherwise what was found stays as it was found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import pytest

from services.common import metrics
from services.common.errors import ServiceError
from services.retriever.reranking.ordering import Ordering
from services.retriever.stored import Hit

HITS = [Hit(f"d-{n}", 1.0 - n / 10, "d", n, "Title", f"Heading {n}", f"text {n}", start=0, end=6) for n in range(4)]


class Given:
    def __init__(self, answer: Callable[[], Awaitable[list[float]]]) -> None:
        self._answer = answer
        self.asked: list[tuple[str, list[str]]] = []

    async def rerank(self, query: str, passages: Sequence[str]) -> list[float]:
        self.asked.append((query, list(passages)))
        return await self._answer()


def ordered(given: Given, candidates: int = 4) -> tuple[list[str], list[float], Ordering]:
    ordering = Ordering(given, candidates, timeout_s=0.05)
    hits = asyncio.run(ordering.ordered("why?", HITS))
    return [hit.id for hit in hits], [hit.score for hit in hits], ordering


def counted(outcome: str) -> float:
    return metrics.RERANKS.labels(outcome)._value.get()


def test_passages_are_shown_with_their_headings_and_come_back_in_the_order_of_the_scores() -> None:
    async def answer() -> list[float]:
        return [0.1, 0.9, 0.5, 0.2]

    given = Given(answer)
    ids, scores, ordering = ordered(given)
    assert ids == ["d-1", "d-2", "d-3", "d-0"]
    assert scores == [0.9, 0.5, 0.2, 0.1]
    assert given.asked[0][0] == "why?"
    assert given.asked[0][1][1] == "Title\nHeading 1\ntext 1"
    assert ordering.failed_at == float("-inf")


def test_numbers_of_an_array_become_numbers_that_can_be_sent() -> None:
    async def answer() -> list[float]:
        return list(np.array([0.1, 0.9, 0.5, 0.2], dtype="float32"))

    ids, scores, _ = ordered(Given(answer))
    assert ids[0] == "d-1"
    assert {type(score) for score in scores} == {float}


def test_logits_become_scores_between_0_and_1() -> None:
    async def answer() -> list[float]:
        return [-1e9, 8.0, -3.0, 1e9]

    ids, scores, _ = ordered(Given(answer))
    assert ids == ["d-3", "d-1", "d-2", "d-0"]
    assert all(0 <= score <= 1 for score in scores)


def test_only_the_best_are_asked_about() -> None:
    async def answer() -> list[float]:
        return [0.1, 0.2]

    assert ordered(Given(answer), candidates=2)[0] == ["d-1", "d-0"]


async def _refused() -> list[float]:
    raise ServiceError("retrieval_failed", "no")


async def _broken() -> list[float]:
    raise KeyError("x")


async def _slow() -> list[float]:
    await asyncio.sleep(30)
    return []


async def _short() -> list[float]:
    return [1.0]


async def _none() -> list[float]:
    return [float("nan")] * 4


@pytest.mark.parametrize("answer", [_refused, _broken, _slow, _short, _none])
def test_without_an_order_what_was_found_stays_and_that_is_counted(
    answer: Callable[[], Awaitable[list[float]]],
) -> None:
    before, started = counted("failed"), time.monotonic()
    ids, _, ordering = ordered(Given(answer))
    assert ids == [hit.id for hit in HITS]
    assert counted("failed") == before + 1
    assert ordering.failed_at >= started
