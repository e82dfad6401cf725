"""Fused rankings: what holds whatever two routes have found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retriever.fusion import MAX_CANDIDATES, MIN_CANDIDATES, candidates, fuse

WANTED = 30
scores = st.floats(min_value=0.001, max_value=100, allow_nan=False)
rankings = st.dictionaries(st.sampled_from("abcdefghij"), scores).map(
    lambda found: sorted(found.items(), key=lambda entry: -entry[1])
)


@given(rankings, rankings)
def test_everything_found_is_there_once_best_first_between_0_and_1(
    words: list[tuple[str, float]], near: list[tuple[str, float]]
) -> None:
    found = fuse(words, near, WANTED)
    assert sorted(id for id, _ in found) == sorted({id for id, _ in [*words, *near]})
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    assert all(0 <= score <= 1 + 1e-9 for _, score in found)


@given(rankings, rankings)
def test_what_both_find_best_is_best(words: list[tuple[str, float]], near: list[tuple[str, float]]) -> None:
    found = fuse([("best", 101.0), *words], [("best", 101.0), *near], WANTED)
    assert found[0] == ("best", pytest.approx(1.0))


@given(rankings)
def test_one_route_alone_keeps_its_order(ranking: list[tuple[str, float]]) -> None:
    assert [id for id, _ in fuse(ranking, [], WANTED)] == [id for id, _ in ranking]
    assert [id for id, _ in fuse([], ranking, WANTED)] == [id for id, _ in ranking]


@given(rankings, rankings, st.floats(min_value=0.1, max_value=10), st.floats(min_value=-5, max_value=5))
def test_the_scale_of_a_route_makes_no_difference(
    words: list[tuple[str, float]], near: list[tuple[str, float]], scale: float, shift: float
) -> None:
    scaled = fuse(
        [(id, scale * score) for id, score in words], [(id, scale * score + shift) for id, score in near], WANTED
    )
    as_they_are = dict(fuse(words, near, WANTED))
    assert dict(scaled) == pytest.approx(as_they_are, abs=1e-6)


def test_a_clear_winner_by_words_is_not_outvoted_by_one_that_is_a_little_nearer() -> None:
    words = [("answer", 20.0), ("other", 6.0)]
    near = [("other", 0.52), ("answer", 0.51), *((f"far{n}", 0.4) for n in range(28))]
    assert fuse(words, near, WANTED)[0][0] == "answer"


def test_of_a_full_list_the_last_counts_as_little_as_what_was_left_out() -> None:
    words = [("first", 9.0), ("second", 8.9), ("last", 8.0)]
    assert dict(fuse(words, [], 3))["last"] == 0
    assert dict(fuse(words, [], 4))["last"] > 0.5


def test_what_no_word_names_is_found_by_its_nearness() -> None:
    words = [("a", 9.0), ("b", 5.0), ("c", 4.0)]
    near = [("meant", 0.9), ("a", 0.2), ("b", 0.1)]
    assert "meant" in [id for id, _ in fuse(words, near, WANTED)][:3]


@pytest.mark.parametrize(("top_k", "wanted"), [(1, MIN_CANDIDATES), (20, 60), (500, MAX_CANDIDATES)])
def test_each_route_looks_for_more_than_is_wanted(top_k: int, wanted: int) -> None:
    assert candidates(top_k) == wanted
