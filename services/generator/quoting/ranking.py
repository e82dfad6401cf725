"""How well each unit answers a question: overlap of content words, weighted by how rare they are in the passages."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .question import NEGATION, Question
from .stop_words import WEAK
from .synonyms import SYNONYMS
from .units import Unit
from .words import content_words

# How much a question's word counts where it is found: in the unit itself, in what introduces it, above or beside it.
_IN_LEAD = 0.8
_IN_HEADING = 0.7
_IN_TITLE = 0.45
_IN_NEIGHBOUR = 0.3

# Sentences about the document, or about another one, instead of about the matter.
_ABOUT_TEXT = re.compile(
    r"^(?:This|The) (?:page|guide|policy|document|handbook|section|code) "
    r"(?:says|describes|explains|applies|covers|sets)\b|"
    r"\bis (?:described|explained) (?:in|on)\b|^(?:这份|本文|本页|本政策|本规定|本制度|本指南|本守则|本手册)|详见|参见"
)
_CONTACT = re.compile(r"^(?:Questions|For (?:anything|other|further))\b.*@|(?:问题|疑问|异议).{0,12}联系.*(?:@|内线)")
_STEM_CHARS = 4
_NEAR = 2
_FAR = 60
_MISSING = 1.3
_ROW = 0.88
_PARTS = 0.9
_SYNONYM = 0.8
_RARITY = 0.5
_WEAK = 0.3
_CHARACTER = 0.7
_TYPICAL_WORDS = 14


@dataclass(frozen=True, slots=True)
class Scored:
    """`coverage` is the weighted share of the question's words that the unit and its surroundings hold, from 0 to 1;
    `own` the share in its own text or lead; `score` orders units."""

    unit: Unit
    coverage: float
    own: float
    score: float


def rank_units(question: Question, units: Sequence[Unit]) -> list[Scored]:
    """Every unit with its score, in the order of `units`."""
    sequences = [content_words(unit.text) for unit in units]
    words = [frozenset(sequence) for sequence in sequences]
    leads = [frozenset(content_words(_introduction(unit))) for unit in units]
    weights = _weights(question, units, words)
    total = sum(weights.values()) or 1.0
    scored = []
    for at, unit in enumerate(units):
        heading = frozenset(content_words(unit.heading))
        title = frozenset(content_words(unit.title))
        beside = _beside(units, words, at)
        coverage = own = 0.0
        for word, weight in weights.items():
            parts = question.parts[word]
            inside = max(
                _found(word, parts, words[at], unit.text), _IN_LEAD * _found(word, parts, leads[at], unit.lead)
            )
            share = max(
                inside,
                _IN_HEADING * _found(word, parts, heading, unit.heading),
                _IN_TITLE * _found(word, parts, title, unit.title),
                _IN_NEIGHBOUR * (word in beside),
            )
            coverage += weight * share
            own += weight * inside
        coverage, own = coverage / total, own / total
        scored.append(Scored(unit, coverage, own, _score(question, unit, coverage, own, sequences[at])))
    return scored


def _score(question: Question, unit: Unit, coverage: float, own: float, words: Sequence[str]) -> float:
    score = 0.65 * coverage + 0.35 * own
    score *= 1 + 0.15 / (1 + unit.rank)
    score *= 0.9 + 0.2 * _together(question.pairs, words)
    if question.wants is not None:
        score *= _quantity(question, unit.text)
    if question.negated:
        score *= 1.15 if NEGATION.search(f"{unit.text} {unit.lead or unit.heading}") else 0.8
    elif unit.kind != "sentence" and NEGATION.search(unit.lead or unit.heading):
        score *= 0.8
    if _ABOUT_TEXT.search(unit.text):
        score *= 0.55
    if _CONTACT.search(unit.text) and not question.wants_contact:
        score *= 0.8
    if unit.kind == "row":
        score *= _ROW
    if unit.text.endswith((":", "：", "?", "？")):
        score *= 0.6
    return score / (0.9 + 0.1 * max(1.0, len(set(words)) / _TYPICAL_WORDS))


def _together(pairs: Sequence[tuple[str, str]], words: Sequence[str]) -> float:
    """The share of the question's neighbouring words that are near each other here too, as in paternity leave."""
    if not pairs:
        return 0.5
    places: dict[str, list[int]] = {}
    for at, word in enumerate(words):
        places.setdefault(word, []).append(at)
    near = sum(
        any(abs(one - other) <= _NEAR for one in places.get(first, ()) for other in places.get(second, ()))
        for first, second in pairs
    )
    return near / len(pairs)


def _quantity(question: Question, text: str) -> float:
    """How well the sentence gives the quantity that is asked for: the closer to the question's words the better."""
    assert question.wants is not None
    amounts = [match.start() for match in question.wants.finditer(text)]
    if not amounts:
        return 0.85
    lowered = text.lower()
    places = [
        lowered.find(word[:_STEM_CHARS]) for word in question.words if word in lowered or len(word) >= _STEM_CHARS
    ]
    gaps = [abs(amount - place) for amount in amounts for place in places if place >= 0]
    return 1.1 + 0.25 * (1 - min([_FAR, *gaps]) / _FAR)


def _weights(question: Question, units: Sequence[Unit], words: Sequence[frozenset[str]]) -> dict[str, float]:
    """Weight of each of the question's words: its own, more where it is rare among the units."""
    total = len(units)
    counts = {
        word: sum(
            _found(word, question.parts[word], inside, unit.text) > 0 for unit, inside in zip(units, words, strict=True)
        )
        for word in question.words
    }
    present = [word for word, count in counts.items() if count]
    weights = {}
    for word, weight in question.words.items():
        count = counts[word]
        if not count and (weight == _WEAK or _is_accident(word, present)):
            continue
        rarity = 1 + _RARITY * math.log(1 + (total + 1) / (count + 0.5))
        # What the passages never mention weighs most: a question about dogs is not answered by the rest of its words.
        weights[word] = weight * rarity * (1 if count else _MISSING)
    return weights


def _is_accident(word: str, present: Sequence[str]) -> bool:
    """Two characters that only happened to stand side by side, such as 时年 in 离职时年假, where 年假 is the word."""
    if len(word) != 2 or word.isascii():
        return False
    return any(len(other) == 2 and (other[0] == word[1] or other[1] == word[0]) for other in present)


def _found(word: str, parts: Sequence[str], words: frozenset[str], text: str) -> float:
    """1 where the word is there; less for parts of a compound, another word for the same, or a lone Chinese character
    inside another word."""
    if word in words:
        return 1.0
    inside = [part for part in parts if part in words and part not in WEAK]
    if inside:
        covered = {at for part in inside for at in range(word.find(part), word.find(part) + len(part))}
        return _PARTS * len(covered) / len(word)
    if not words.isdisjoint(SYNONYMS.get(word, ())):
        return _SYNONYM
    if len(word) == 1 and not word.isascii() and word in text:
        return _CHARACTER
    return 0.0


def _beside(units: Sequence[Unit], words: Sequence[frozenset[str]], at: int) -> frozenset[str]:
    """The words of the unit before, in the same paragraph or list."""
    return words[at - 1] if at and units[at - 1].block == units[at].block else frozenset()


def _introduction(unit: Unit) -> str:
    """What an item or a row is read under."""
    if unit.kind == "sentence":
        return ""
    return " ".join([unit.lead or unit.heading, *(name for name, _ in unit.cells)])
