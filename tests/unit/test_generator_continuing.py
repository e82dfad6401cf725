"""The seam between a lost holder's text and what a server continues it with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.generator.continuing import MIN_CHARS, Seam, StartedOver

BEGINNING = "Ten days of leave a year."


def join(written: str, *pieces: str) -> str:
    seam = Seam(written)
    return written + "".join(map(seam.feed, pieces)) + seam.flush()


@pytest.mark.parametrize(
    ("written", "pieces", "whole"),
    [
        (BEGINNING, [" And", " more."], f"{BEGINNING} And more."),
        (BEGINNING, ["[1]"], f"{BEGINNING}[1]"),
        # Nothing to add: the answer was complete.
        (BEGINNING, [], BEGINNING),
        (f"{BEGINNING}\n\n", [], f"{BEGINNING}\n\n"),
        # White space at the end is not sent, and is not doubled when it comes again.
        (f"{BEGINNING}\n\n", ["\n", "\n- five"], f"{BEGINNING}\n\n- five"),
        (f"{BEGINNING}\n\n", ["\n- five"], f"{BEGINNING}\n\n- five"),
        (f"{BEGINNING}\n", ["\n\n- five"], f"{BEGINNING}\n\n- five"),
        (f"{BEGINNING}\n\n", ["- five"], f"{BEGINNING}\n\n- five"),
        # The server repeats the message before it goes on.
        (BEGINNING, ["Ten days of ", "leave a year. And more."], f"{BEGINNING} And more."),
        (f"{BEGINNING} ", [BEGINNING, " And more."], f"{BEGINNING} And more."),
        (f"{BEGINNING}\n", [f"\n{BEGINNING}", "\nMore."], f"{BEGINNING}\nMore."),
        # It happens to begin alike.
        (BEGINNING, ["Ten", " of them"], f"{BEGINNING}Ten of them"),
        (BEGINNING, ["Ten"], f"{BEGINNING}Ten"),
    ],
)
def test_a_continuation_is_joined_without_repeating_anything(written: str, pieces: list[str], whole: str) -> None:
    assert join(written, *pieces) == whole


@pytest.mark.parametrize(
    "pieces", [["Ten days of leave ", "a month."], ["\nTen days of leave an"], ["Ten days of leave"]]
)
def test_a_server_that_starts_over_is_not_believed(pieces: list[str]) -> None:
    with pytest.raises(StartedOver):
        join(BEGINNING, *pieces)


def test_a_few_characters_are_not_worth_continuing() -> None:
    assert not Seam("x" * (MIN_CHARS - 1) + "   ").worth_it
    assert Seam("x" * MIN_CHARS).worth_it


def _cut(text: str, sizes: list[int]) -> list[str]:
    pieces = []
    for size in sizes:
        pieces.append(text[:size])
        text = text[size:]
    return [piece for piece in [*pieces, text] if piece]


@given(
    answer=st.text(alphabet="ab \n.", min_size=20, max_size=60).map("a".__add__),
    at=st.integers(MIN_CHARS, 59),
    sizes=st.lists(st.integers(1, 8), max_size=12),
    echo=st.booleans(),
)
def test_how_the_stream_is_cut_makes_no_difference(answer: str, at: int, sizes: list[int], echo: bool) -> None:
    seam = Seam(answer[:at])
    # A server goes on from what it was sent, so it writes the white space behind that again.
    rest = answer[len(seam.sent) :]
    stream = seam.sent + rest if echo else rest
    outcomes = set()
    for pieces in ([stream] if stream else [], _cut(stream, sizes), list(stream)):
        try:
            outcomes.add(join(answer[:at], *pieces))
        except StartedOver:
            outcomes.add("started over")
    assert len(outcomes) == 1
    if echo or not rest.lstrip().startswith(answer[:MIN_CHARS]):
        assert outcomes == {answer}
