"""Which units make the answer: few, relevant, not saying the same twice, and whole where only the whole helps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from .question import Question
from .ranking import Scored
from .units import Unit
from .words import content_words

MIN_COVERAGE = 0.52
_FIRST_RANKS, _LATER_COVERAGE = 2, 0.60
MIN_OWN = 0.24
"""Below these shares of the question's words a unit does not answer it."""

MAX_SENTENCES = 3
_MAX_POINTS = 6
_MAX_LIST = 8
# A further sentence must be about as good as the best one, and be about the same.
_NEAR_SCORE = 0.62
_NEAR_SCORE_QUANTITY = 0.8
_NEAR_COVERAGE = 0.75
_OTHER_DOCUMENT = 0.9
_CONTINUES_COVERAGE = 0.5
_TIED = 0.9
_SAME = 0.7
_SECTION_COVERAGE = 0.4
_MANY_SECTIONS = 4

_REFERS_BACK = re.compile(
    r"(?:其中|其|该|此|这|它|上述|前述|但|同时|否则|因此|另外)|"
    r"(?:It|They|This|These|That|Those|He|She|Its|Their|However|But|Otherwise|Therefore|Also|Both|Then)\b"
)
_LEADS = re.compile(r"[:：]$")

Kind = Literal["facts", "points"]


@dataclass(frozen=True, slots=True)
class Selection:
    """The units of an answer, in reading order. `points` is an overview of one document, a point for each section.
    `lists` are the blocks of which all items are quoted."""

    kind: Kind
    units: Sequence[Unit]
    lists: frozenset[int] = frozenset()


def select(
    question: Question, scored: Sequence[Scored], most: int = MAX_SENTENCES, least: float = MIN_COVERAGE
) -> Selection | None:
    """The selection, or None where nothing answers the question.

    Args:
        most: sentences at most, not counting the items of a list.
        least: share of the question's words that the best unit must hold.
    """
    if all(word[0].isdigit() for word in question.words):
        return None
    answering = sorted(filter(answers, scored), key=lambda one: (-one.score, one.unit.order))
    if not answering or answering[0].coverage < least:
        return None
    if question.wants_overview:
        points = _points(question, scored, answering)
        if len(points) > 1:
            return Selection("points", points[: most if most < MAX_SENTENCES else _MAX_POINTS])
    return _facts(question, scored, answering, most)


def answers(one: Scored) -> bool:
    return one.coverage >= _enough(one) and one.own >= MIN_OWN


def _enough(one: Scored) -> float:
    """The coverage that a unit needs: more where the search, which knows all passages, has put it behind others."""
    return MIN_COVERAGE if one.unit.rank < _FIRST_RANKS else _LATER_COVERAGE


def _facts(question: Question, scored: Sequence[Scored], answering: Sequence[Scored], most: int) -> Selection | None:
    units = [one.unit for one in scored]
    usable = [one for one in answering if not _leads_nowhere(one.unit, units)]
    if not usable:
        return None
    best = usable[0]
    if question.wants is not None and len(question.words) == 1:
        # All sentences about a single word look alike: the one with the quantity is the answer.
        most = min(most, 2)
    chosen: list[Unit] = []
    for one in usable:
        if len(chosen) < most and _is_near(one, best, question) and not _repeats(one.unit, chosen):
            chosen.append(one.unit)
    lists = {block for unit in chosen for block in _whole_list(question, unit, scored)}
    if lists:
        chosen = [unit for unit in chosen if unit.document == best.unit.document]
    listed = [unit for block in sorted(lists) for unit in units if unit.block == block][:_MAX_LIST]
    chosen = [unit for unit in chosen if unit.block not in lists and not _is_lead_of(unit, listed)]
    chosen += _context(best.unit, scored, chosen, most - len(chosen)) if not lists else []
    return Selection("facts", _in_reading_order([*chosen, *listed], best.unit), frozenset(lists))


def _is_near(one: Scored, best: Scored, question: Question) -> bool:
    if one is best:
        return True
    if question.wants is not None and best.unit.kind == "sentence" and one.unit.kind == "row":
        return False
    score = _NEAR_SCORE if question.wants is None else _NEAR_SCORE_QUANTITY
    if one.unit.document != best.unit.document:
        score = _OTHER_DOCUMENT
    return one.score >= score * best.score and one.coverage >= _NEAR_COVERAGE * best.coverage


def _context(unit: Unit, scored: Sequence[Scored], chosen: Sequence[Unit], room: int) -> list[Unit]:
    """What the best sentence needs beside it: the sentence it refers back to, and the one that goes on with it."""
    at = next(index for index, one in enumerate(scored) if one.unit is unit)
    added: list[Unit] = []
    if at and _REFERS_BACK.match(unit.text):
        before = scored[at - 1].unit
        if before.block == unit.block and before not in chosen:
            added.append(before)
    if at + 1 < len(scored):
        after = scored[at + 1]
        goes_on = (
            after.unit.block == unit.block and after.unit.kind == "sentence" and not _LEADS.search(after.unit.text)
        )
        if goes_on and after.coverage >= _CONTINUES_COVERAGE and after.own >= MIN_OWN:
            added.append(after.unit)
    return [one for one in added if not _repeats(one, chosen)][: max(0, room)]


def _whole_list(question: Question, unit: Unit, scored: Sequence[Scored]) -> set[int]:
    """The block to quote whole, if one item alone would not do: steps, a list the unit leads to, or tied rows."""
    units = [one.unit for one in scored]
    following = _list_of(unit, units)
    if following:
        return {following[0].block}
    siblings = [one for one in scored if one.unit.block == unit.block]
    if unit.kind == "sentence" or len(siblings) < 2 or len(siblings) > _MAX_LIST:
        return set()
    own = next(one.score for one in siblings if one.unit is unit)
    tied = sum(one.score >= own * _TIED for one in siblings)
    whole = bool(unit.number) or question.wants_overview or tied * 2 >= len(siblings)
    return {unit.block} if whole else set()


def _list_of(unit: Unit, units: Sequence[Unit]) -> list[Unit]:
    """The items that this sentence introduces."""
    if not _LEADS.search(unit.text):
        return []
    return [other for other in units if other.lead == unit.text and other.document == unit.document]


def _leads_nowhere(unit: Unit, units: Sequence[Unit]) -> bool:
    """A question, or an introduction whose list was not retrieved, is no answer."""
    return unit.text.endswith(("?", "？")) or (bool(_LEADS.search(unit.text)) and not _list_of(unit, units))


def _is_lead_of(unit: Unit, listed: Sequence[Unit]) -> bool:
    return any(item.lead == unit.text for item in listed)


def _repeats(unit: Unit, chosen: Iterable[Unit]) -> bool:
    """Whether nearly all that the unit says has been said, numbers included."""
    words = set(content_words(unit.text))
    for other in chosen:
        said = set(content_words(other.text))
        shared = words & said
        numbers = {word for word in words if word[0].isdigit()}
        share = len(shared) / (min(len(words), len(said)) or 1)
        # A table often repeats a rule that stands in a sentence as well, among other columns.
        in_table = unit.kind == "row" and other.kind == "sentence" and bool(numbers & said)
        if share >= _SAME and (numbers <= said or in_table):
            return True
    return False


def _in_reading_order(units: Sequence[Unit], best: Unit) -> list[Unit]:
    """The best unit's document first, then the order of the text."""
    distinct = {unit.order: unit for unit in units}
    return sorted(distinct.values(), key=lambda unit: (unit.document != best.document, unit.order))


def _points(question: Question, scored: Sequence[Scored], answering: Sequence[Scored]) -> list[Unit]:
    """One unit for each section of the document that answers best, where the question is about all of it."""
    document = _best_document(answering)
    best = next(one for one in answering if one.unit.document == document)
    if not _is_about(question, [one.unit for one in scored if one.unit.document == document]):
        return []
    sections: dict[str, list[Scored]] = {}
    for one in scored:
        enough = one.coverage >= best.coverage * _SECTION_COVERAGE
        if one.unit.document == document and enough and not _LEADS.search(one.unit.text):
            sections.setdefault(one.unit.heading, []).append(one)
    points = [_point(section) for heading, section in sections.items() if heading or len(sections) < _MANY_SECTIONS]
    points = sorted(points, key=lambda one: -one.score)[:_MAX_POINTS]
    return sorted((one.unit for one in points), key=lambda unit: unit.order)


def _is_about(question: Question, units: Sequence[Unit]) -> bool:
    """Whether the document's title says what the question asks for; words that the document never uses do not count."""
    title = set(content_words(units[0].title))
    inside = {word for unit in units for word in content_words(f"{unit.text} {unit.heading}")}
    for word, weight in question.words.items():
        spellings = {word, *question.parts[word]}
        if weight == 1 and spellings & inside and not spellings & title:
            return False
    return True


def _best_document(answering: Sequence[Scored]) -> str:
    totals: dict[str, list[float]] = {}
    for one in answering:
        totals.setdefault(one.unit.document, []).append(one.score)
    return max(totals, key=lambda name: (sum(totals[name][:3]), totals[name][0]))


def _point(section: Sequence[Scored]) -> Scored:
    """Concrete sentences make better points than introductions, and a section's first is most often its rule."""

    def worth(one: Scored) -> float:
        number = any(char.isdigit() for char in one.unit.text)
        contact = "@" in one.unit.text
        return one.score + 0.25 * number + 0.15 * (one is section[0]) - 0.1 * (one.unit.kind == "row") - 0.6 * contact

    return max(section, key=worth)
