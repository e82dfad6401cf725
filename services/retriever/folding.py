"""What was found, made into what is shown: repetitions left out, neighbours of one section made one passage.

Only found passages take part, so nothing comes in that the reader might not be allowed to see.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from msgspec.structs import replace

from .stored import Hit

SIMILAR = 0.9
"""Share of common shingles from which on two texts say the same."""
SHINGLE_CHARS = 6
SHORT_CHARS = 100
"""A text of fewer letters says something only under its heading ("Two weeks."): under another it is not the same."""

PROBES, PROBE_CHARS = 8, 8

_SOUNDLESS = re.compile(r"[\W_]+")
_NUMBER = re.compile(r"\d+(?:[.:/]\d+)*")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def arranged(hits: Iterable[Hit], top_k: int, *, fold: bool, merge_chars: int) -> list[Hit]:
    """At most `top_k` passages of `hits` (best first), in the order of their best parts.

    Args:
        fold: leave out what says the same as a better one.
        merge_chars: the most characters of a passage that neighbours make; 0: they stay apart.
    """
    kept: list[_Said] = []
    groups: list[list[Hit]] = []
    for hit in hits:
        if len(groups) >= top_k:
            break
        if fold:
            said = _Said(hit)
            if any(said.same_as(other) for other in kept):
                continue
            kept.append(said)
        _put(groups, hit, merge_chars)
    return [_joined(group) for group in groups]


def _put(groups: list[list[Hit]], hit: Hit, merge_chars: int) -> None:
    """Add a passage to the neighbours it has (it may lie between two), or behind all where it has none."""
    place, whole = len(groups), [hit]
    for n in reversed(range(len(groups))):
        if _beside(groups[n], whole) and _chars(groups[n]) + _chars(whole) <= merge_chars:
            whole = sorted([*groups.pop(n), *whole], key=lambda part: part.ordinal)
            place = n
    groups.insert(place, whole)


def _beside(one: Sequence[Hit], other: Sequence[Hit]) -> bool:
    if one[0].document_id != other[0].document_id or one[0].heading != other[0].heading:
        return False
    return one[-1].ordinal + 1 == other[0].ordinal or other[-1].ordinal + 1 == one[0].ordinal


def _chars(group: Sequence[Hit]) -> int:
    return sum(len(part.text) for part in group)


def _joined(group: Sequence[Hit]) -> Hit:
    """One passage, from the first's start to the last's end, called as the first is and as good as the best is."""
    first, text = group[0], group[0].text
    for before, part in pairwise(group):
        gap = part.start - before.end
        text += part.text[-gap:] if gap < 0 else "\n" * min(gap, 2) + part.text
    return (
        first
        if len(group) == 1
        else replace(first, text=text, end=group[-1].end, score=max(part.score for part in group))
    )


def _far_apart(mine: str, theirs: str) -> bool:
    """Whether more shingles of one text lack in the other than may, of two that say the same. That is soon seen, as a
    rule; cutting both into all their shingles takes much longer."""
    most = (1 - SIMILAR) * len(mine) + 1
    missing: set[str] = set()
    for start in range(0, len(mine) - SHINGLE_CHARS + 1, SHINGLE_CHARS):
        shingle = mine[start : start + SHINGLE_CHARS]
        if shingle not in theirs:
            missing.add(shingle)
            if len(missing) > most:
                return True
    return False


class _Said:
    """What a passage says, to be compared. What takes time is worked out only where there is a doubt."""

    def __init__(self, hit: Hit) -> None:
        self._hit = hit
        self._quick = "".join(hit.text.casefold().split())
        self._probes: list[str] | None = None
        self._text: str | None = None
        self._numbers: list[str] = []
        self._shingles: frozenset[str] | None = None

    def same_as(self, other: _Said) -> bool:
        if not self._shares_with(other):
            return False
        mine, theirs = self._letters(), other._letters()
        short, long = sorted((len(mine), len(theirs)))
        if short < SIMILAR * long or self._numbers != other._numbers:
            return False  # "10 days in 2025" and "15 days in 2026" are much alike, and not the same
        if long < SHORT_CHARS:
            return mine == theirs and self._hit.heading == other._hit.heading
        if mine == theirs:
            return True
        if _far_apart(mine, theirs):
            return False
        my_cut, their_cut = self._cut(), other._cut()
        common = len(my_cut & their_cut)
        return common >= SIMILAR * (len(my_cut) + len(their_cut) - common)

    def _shares_with(self, other: _Said) -> bool:
        """Whether one of a few probes of the shorter text is in the longer one: of two that say the same, some are."""
        short, long = (self, other) if len(self._quick) <= len(other._quick) else (other, self)
        if len(short._quick) < SHORT_CHARS:
            return True
        return any(map(long._quick.__contains__, short._probed()))

    def _probed(self) -> list[str]:
        if self._probes is None:
            text = self._quick
            step = (len(text) - PROBE_CHARS) / (PROBES - 1)
            starts = [int(n * step) for n in range(PROBES)]
            self._probes = [text[start : start + PROBE_CHARS] for start in starts]
        return self._probes

    def _letters(self) -> str:
        if self._text is None:
            self._text = _SOUNDLESS.sub("", self._quick)
            self._numbers = _NUMBER.findall(_THOUSANDS.sub("", self._hit.text))  # 1.5 is not 15
        return self._text

    def _cut(self) -> frozenset[str]:
        if self._shingles is None:
            text = self._letters()
            self._shingles = frozenset(text[n : n + SHINGLE_CHARS] for n in range(len(text) - SHINGLE_CHARS + 1))
        return self._shingles
