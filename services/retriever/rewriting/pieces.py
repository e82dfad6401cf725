"""A question cut into pieces, each with what it is for; the same for both languages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a piece says of a question: FUNCTION words hold it together, ASPECT names a property or an action that
    needs a subject (apply, deadline), CONDITION narrows (for whom, where, when), EVENT is something that happens,
    POINTER stands for what was said before (it, 这个). All else is TOPIC: what the question is about."""

    FUNCTION = "function"
    ASPECT = "aspect"
    CONDITION = "condition"
    EVENT = "event"
    POINTER = "pointer"
    TOPIC = "topic"


@dataclass(frozen=True, slots=True)
class Piece:
    """`start` and `end` are offsets into the text. Conditions of one `group` exclude each other, as two places do."""

    kind: Kind
    start: int
    end: int
    group: str = ""


Lexicon = Mapping[str, tuple[Kind, str]]


def lexicon(*lists: tuple[Kind, str, str]) -> Lexicon:
    """Words with their kind and group, from lists of (kind, group, words); an `_` in a word stands for a blank. What an
    earlier list says of a word counts."""
    found: dict[str, tuple[Kind, str]] = {}
    for kind, group, words in lists:
        for word in words.split():
            found.setdefault(word.replace("_", " "), (kind, group))
    return found


def has(pieces: Iterable[Piece], *kinds: Kind) -> bool:
    return any(piece.kind in kinds for piece in pieces)


def of(pieces: Iterable[Piece], *kinds: Kind) -> list[Piece]:
    return [piece for piece in pieces if piece.kind in kinds]


def replaced(text: str, piece: Piece, by: str) -> str:
    return text[: piece.start] + by + text[piece.end :]
