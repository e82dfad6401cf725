"""Repetitions are left out, and neighbours become one passage."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.retriever import folding
from services.retriever.folding import arranged
from services.retriever.stored import Hit

LONG = (
    "Employees may carry over at most five days of unused annual leave into the first quarter of the next year. "
    "Whatever is left after that is lost, unless the manager has agreed to it in writing before the year ends."
)


def hit(document: str, ordinal: int, text: str, score: float = 1.0, **fields: Any) -> Hit:
    known: dict[str, Any] = {"title": "T", "heading": "H", "start": 0, "end": len(text), **fields}
    return Hit(id=f"{document}-{ordinal}", score=score, document_id=document, ordinal=ordinal, text=text, **known)


def folded(*hits: Hit, top_k: int = 10) -> list[str]:
    return [found.id for found in arranged(hits, top_k, fold=True, merge_chars=0)]


def merged(*hits: Hit, top_k: int = 10, merge_chars: int = 1_000) -> list[Hit]:
    return arranged(hits, top_k, fold=False, merge_chars=merge_chars)


def test_the_same_text_twice_is_shown_once_and_the_better_one_stays() -> None:
    assert folded(hit("a", 0, LONG), hit("b", 4, LONG.upper() + " ! ", heading="Elsewhere")) == ["a-0"]


def test_a_text_with_a_word_changed_is_the_same() -> None:
    longer = f"{LONG} Ask your manager, or write to the people team, and say from when to when you want to be away."
    assert folded(hit("a", 0, longer), hit("b", 0, longer.replace("Ask", "Tell"))) == ["a-0"]


def test_a_text_with_another_number_is_not_the_same() -> None:
    old, new = LONG + " (2025: 10 days)", LONG + " (2026: 15 days)"
    assert folded(hit("a", 0, old), hit("b", 0, new)) == ["a-0", "b-0"]


def test_a_point_in_a_number_makes_another_number() -> None:
    for one, other in (("1.5", "15"), ("10:30", "1030"), ("1 1", "11")):
        assert folded(hit("a", 0, f"{LONG} {one} days."), hit("b", 0, f"{LONG} {other} days.")) == ["a-0", "b-0"]
    assert folded(hit("a", 0, f"{LONG} 1,500 yuan."), hit("b", 0, f"{LONG} 1500 yuan")) == ["a-0"]


def test_other_texts_stay() -> None:
    assert folded(hit("a", 0, LONG), hit("b", 0, LONG[::-1])) == ["a-0", "b-0"]


def test_a_few_words_are_the_same_only_under_the_same_heading() -> None:
    first = hit("a", 0, "Two weeks.", heading="Notice in probation")
    assert folded(first, hit("b", 0, "Two weeks.", heading="Paternity leave")) == ["a-0", "b-0"]
    assert folded(first, hit("b", 0, "Two weeks", heading="Notice in probation")) == ["a-0"]


def test_what_is_folded_leaves_its_place_to_the_next() -> None:
    found = folded(hit("a", 0, LONG), hit("b", 0, LONG), hit("c", 0, LONG[::-1]), top_k=2)
    assert found == ["a-0", "c-0"]


def test_neighbours_of_one_section_become_one_passage() -> None:
    second = hit("a", 5, "Second.", 0.5, start=17, end=24, page=3)
    first = hit("a", 4, "First.", 0.4, start=10, end=16, page=2)
    other = hit("b", 0, "Other.", 0.45)
    (one, rest) = merged(second, other, first)
    assert (one.id, one.ordinal, one.page) == ("a-4", 4, 2)
    assert (one.start, one.end, one.text, one.score) == (10, 24, "First.\nSecond.", 0.5)
    assert rest == other


def test_one_between_two_makes_one_of_three() -> None:
    parts = [hit("a", n, str(n), start=2 * n, end=2 * n + 1) for n in range(3)]
    (one,) = merged(parts[2], parts[0], parts[1])
    assert (one.id, one.text, one.end) == ("a-0", "0\n1\n2", 5)


def test_what_overlaps_is_said_once() -> None:
    (one,) = merged(hit("a", 0, "abcdef", start=0, end=6), hit("a", 1, "efgh", start=4, end=8))
    assert (one.text, one.start, one.end) == ("abcdefgh", 0, 8)


def test_no_others_are_joined() -> None:
    apart = [hit("a", 0, "x"), hit("a", 2, "y"), hit("b", 1, "z"), hit("a", 3, "w", heading="Another section")]
    assert merged(*apart) == apart


def test_a_merged_passage_has_a_largest_size() -> None:
    assert len(merged(hit("a", 0, "x" * 60), hit("a", 1, "y" * 60), merge_chars=100)) == 2


def test_switched_off_nothing_changes() -> None:
    hits = [hit("a", 0, LONG), hit("a", 1, LONG), hit("a", 2, LONG)]
    assert arranged(hits, 2, fold=False, merge_chars=0) == hits[:2]


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 8), st.sampled_from(["", "H"])),
        unique_by=lambda key: key[:2],
    ),
    st.integers(1, 6),
)
def test_whatever_is_found_no_passage_is_lost_or_doubled_before_the_places_are_taken(
    keys: list[tuple[str, int, str]], top_k: int
) -> None:
    hits = [hit(name, n, f"<{name}{n}>", start=9 * n, end=9 * n + 4, heading=heading) for name, n, heading in keys]
    found = merged(*hits, top_k=top_k)
    assert len(found) == min(top_k, len(found))
    text = "".join(passage.text for passage in found)
    said = [part for part in hits if part.text in text]
    assert sum(text.count(part.text) for part in said) == len(said)
    assert said == hits[: len(said)]
    assert len(said) == len(hits) or len(found) == top_k


def test_fifty_long_candidates_take_no_noticeable_time() -> None:
    hits = [hit("a", 2 * n, f"{LONG * 4} {chr(97 + n % 26) * 120}") for n in range(50)]
    started = time.process_time()
    arranged(hits, 50, fold=True, merge_chars=2_000)
    assert time.process_time() - started < 0.5


@given(st.lists(st.sampled_from(["annual", "leave", "of", "x", "年假", "ab"]), min_size=20, max_size=60), st.data())
def test_what_is_far_apart_by_a_few_pieces_is_so_by_all(words: list[str], data: st.DataObject) -> None:
    changed = list(words)
    for place in data.draw(st.lists(st.integers(0, len(words) - 1), max_size=12)):
        changed[place] = data.draw(st.sampled_from(["leave", "q", "加班", ""]))
    mine, theirs = "".join(words), "".join(changed)
    if folding._far_apart(mine, theirs):
        one, other = ({text[n : n + 6] for n in range(len(text) - 5)} for text in (mine, theirs))
        assert len(one & other) < folding.SIMILAR * len(one | other)
