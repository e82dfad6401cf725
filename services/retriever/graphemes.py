"""What is one character for a reader may be several in a string: a letter and its accent, an emoji of a family."""

from __future__ import annotations

import unicodedata

_JOINER = "\u200d"
_EXTENDERS = frozenset({_JOINER, "\u200c", *map(chr, range(0xFE00, 0xFE10)), *map(chr, range(0x1F3FB, 0x1F400))})
_MARKS = ("Mn", "Me", "Mc")
_MOST_FLAGS = 200
"""Letters of flags that are counted back: more in a row are only there to take time."""
_FLAG_FIRST, _FLAG_LAST = "\U0001f1e6", "\U0001f1ff"


def is_inside(text: str, at: int) -> bool:
    """Whether `at` lies within what Unicode (UAX 29, the rules that matter in practice) calls one grapheme."""
    if not 0 < at < len(text):
        return False
    before, behind = text[at - 1], text[at]
    if behind.isascii():
        return False
    if before in "\n\r":
        return False
    if behind in _EXTENDERS or before == _JOINER or unicodedata.category(behind) in _MARKS:
        return True
    if not (_FLAG_FIRST <= behind <= _FLAG_LAST):
        return False
    letters = 0  # a flag is two of these letters
    while letters < _MOST_FLAGS and at - letters > 0 and _FLAG_FIRST <= text[at - letters - 1] <= _FLAG_LAST:
        letters += 1
    return letters % 2 == 1
