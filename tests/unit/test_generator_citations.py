"""Citations are checked the same way however the answer was split."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.generator.citations import MAX_MARK_CHARS, CitationChecker, without_marks

OFFERED = (1, 2, 3, 12)
BRACKETS = ((r"\[", r"\]"), ("【", "】"), ("［", "］"))
MARK = re.compile(r"\[(\d{1,3})\]")

CASES = [
    ("Ten days. [1]", "Ten days. [1]", [1], 0),
    ("Ten days [1, 2].", "Ten days [1][2].", [1, 2], 0),
    ("十天【２】。", "十天[2]。", [2], 0),
    ("十天［1，2、3］。", "十天[1][2][3]。", [1, 2, 3], 0),
    ("Both [1][2] and [2-3]", "Both [1][2] and [2][3]", [1, 2, 3], 0),
    ("[ 12 ] twelve", "[12] twelve", [12], 0),
    ("Invented [9]. Real [1].", "Invented. Real [1].", [1], 1),
    ("Half [1, 9] true", "Half [1] true", [1], 1),
    ("zero [0], huge [999]", "zero, huge", [], 2),
    ("十天［１］［２］。", "十天[1][2]。", [1, 2], 0),
    ("十天【１】【９】。", "十天[1]。", [1], 1),
    ("十天[１，２；3]。", "十天[1][2][3]。", [1, 2, 3], 0),
    ("十天[1～3]。", "十天[1][2][3]。", [1, 2, 3], 0),
    ("十天［\u3000１\u3000］，[\t2\xa0]。", "十天[1]，[2]。", [1, 2], 0),
    ("国发[2024]12号", "国发[2024]12号", [], 0),
    # These brackets belong to the numbers of official documents; no model was seen to cite with them.
    ("国发〔2024〕12号、第〔1〕条", "国发〔2024〕12号、第〔1〕条", [], 0),
    ("a footnote[^1], a range [1-999], (1)", "a footnote[^1], a range [1-999], (1)", [], 0),
    ("- [ ] a task, a[i] and []", "- [ ] a task, a[i] and []", [], 0),
    ("mixed [1】 pair", "mixed [1】 pair", [], 0),
    ("never closed [1", "never closed [1", [], 0),
    ("inside [[1]] another", "inside [[1]] another", [1], 0),
    ("must not be made: [[9]7]", "must not be made:", [], 2),
    ("[link](http://x) [1](y)", "[link](http://x) [1](y)", [1], 0),
]


def run(pieces: list[str]) -> tuple[str, CitationChecker]:
    checker = CitationChecker(OFFERED)
    return "".join(checker.feed(piece) for piece in pieces) + checker.flush(), checker


@pytest.mark.parametrize(("text", "expected", "cited", "dropped"), CASES)
def test_marks_are_normalised_and_those_not_offered_are_dropped(text, expected, cited, dropped):
    for pieces in ([text], list(text)):
        out, checker = run(pieces)
        assert (out, checker.cited, checker.dropped) == (expected, cited, dropped)


mark_soup = st.text(alphabet="[]【】［］ 0123９１,，-a。x\n", max_size=60)


@given(mark_soup, st.lists(st.integers(0, 60), max_size=8))
def test_any_split_gives_the_same_answer(text, cuts):
    ends = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:end] for start, end in itertools.pairwise(ends)]
    whole, one = run([text])
    parts, other = run(pieces)
    assert (parts, other.cited, other.citations, other.dropped) == (whole, one.cited, one.citations, one.dropped)


any_text = st.lists(
    st.text(max_size=6)
    | st.sampled_from(
        ["[1]", "[1, 9]", "【２】", "［3］", "[9]", "[\t9\u3000]", "[12", "]", " [", "[[", "[1-2]", "］", "😀"]
    ),
    max_size=12,
).map("".join)


@given(any_text, st.data())
def test_any_split_of_any_text_gives_the_same_answer(text, data):
    whole, one = run([text])
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=10).map(sorted))
    ends = [0, *cuts, len(text)]
    for pieces in ([text[start:end] for start, end in itertools.pairwise(ends)], list(text)):
        parts, other = run(pieces)
        assert (parts, other.cited, other.citations, other.dropped) == (whole, one.cited, one.citations, one.dropped)
        assert other.length == len(whole)


@given(any_text, st.sets(st.integers(0, 12), max_size=4))
def test_no_unknown_number_passes_in_any_brackets_whatever_is_offered(text, offered):
    checker = CitationChecker(offered)
    out = "".join(map(checker.feed, text)) + checker.flush()
    blank, number = r"[ \t\u3000\xa0]*", r"([0-9０-９]{1,3})"
    for mark in re.finditer("|".join(f"{start}{blank}{number}{blank}{end}" for start, end in BRACKETS), out):
        found = int(next(filter(None, mark.groups())))
        assert found in offered
        assert mark[0] == f"[{found}]"
    assert set(checker.cited) <= set(offered)


@given(any_text)
def test_what_was_sent_is_never_rewritten(text):
    checker = CitationChecker(OFFERED)
    sent = ""
    for char in text:
        sent += checker.feed(char)
        assert run([text])[0].startswith(sent)


@given(mark_soup)
def test_only_offered_numbers_are_left_and_every_offset_points_at_its_mark(text):
    out, checker = run([text])
    assert {int(number) for number in MARK.findall(out)} <= set(OFFERED)
    assert [out[at.start : at.end] for at in checker.citations] == [f"[{at.n}]" for at in checker.citations]
    assert len(checker.citations) == len(MARK.findall(out))
    assert checker.length == len(out)


@given(mark_soup)
def test_a_checked_text_passes_unchanged(text):
    out, _ = run([text])
    assert run([out])[0] == out


@given(st.text(alphabet="[]【】［］ 0123９１,，-a。x\n", max_size=40))
def test_a_source_text_keeps_no_marks(text):
    assert not MARK.search(without_marks(text))


def test_text_without_brackets_is_never_held_back():
    checker = CitationChecker(OFFERED)
    assert checker.feed("Hello,") == "Hello,"
    assert checker.feed(" world") == " world"


def test_a_bracket_that_stays_open_is_given_up_after_a_few_characters():
    checker = CitationChecker(OFFERED)
    assert checker.feed("[" + "1," * MAX_MARK_CHARS) != ""


@given(mark_soup, st.integers(0, 60))
def test_text_that_is_stored_so_far_is_checked_alike_by_who_goes_on_from_it(text, cut):
    checker, going_on = CitationChecker(OFFERED), CitationChecker(OFFERED)
    stored = checker.feed(text[:cut])
    assert stored.startswith(going_on.feed(stored))
    assert going_on.citations == checker.citations
