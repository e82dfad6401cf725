"""Tokens without a model's own tokenizer: an estimate to compare with, and a count to be safe with.

`estimate_tokens` stands in for the usage of servers that count none. Its rule: a Chinese, Japanese or Korean character
is one token; any other run of characters without white space is a token for every four characters, rounded up. It is
within about a third of common tokenizers on plain text; it is a figure to compare answers with, not to bill by.

`count_tokens` is for budgets, so it errs on the high side, for Chinese as much as for English. It was compared with the
tokenizers of GPT-4 (cl100k), GPT-4o (o200k), Llama 3.1, Qwen 3 and DeepSeek V3; docs/models.md has the figures.
"""

from __future__ import annotations

import re
from functools import lru_cache

_PIECE = re.compile(
    r"(?P<wide>[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff])"
    r"|[^\s\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]+"
)
_CHARS_PER_TOKEN = 4
_REMEMBERED_CHARS = 4_000

# Each match is a token. Words are cut where case changes and after some letters, digits stand alone as some tokenizers
# have them, white space counts where it does not go into the word behind it.
_NARROW = re.compile(
    r"(?<![a-z])[A-Z]?[a-z]{1,7}|[a-z]{1,4}|[A-Z]{1,2}|[0-9]| (?=[0-9])|[!-/:-@\[-`{-~]|\n+|[ \t]{2,}"
    r"|[\x00-\x08\x0b-\x1f\x7f]"
)
_CHARS: tuple[tuple[re.Pattern[str], float], ...] = (
    (re.compile("[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]"), 1.3),  # Chinese, Japanese, Korean
    (re.compile("[\u2010-\u2027\u3000-\u303f\uff00-\uffef]"), 1.25),  # their punctuation, and typographical marks
    (re.compile("[\u0080-\u07ff]"), 0.75),  # accents, Greek, Cyrillic, Hebrew, Arabic: two bytes
    (
        re.compile("[\u0800-\u200f\u2028-\u2fff\u3100-\u4dff\ua000-\uabff\ud800-\ufeff]"),
        1.75,
    ),  # the rest
    (re.compile("[\U00010000-\U0010ffff]"), 3.5),  # four bytes: emoji, rare characters
)


def estimate_tokens(text: str) -> int:
    count = 0
    for piece in _PIECE.finditer(text):
        count += 1 if piece["wide"] else -(-len(piece[0]) // _CHARS_PER_TOKEN)
    return count


def count_tokens(text: str) -> int:
    """Tokens that `text` has at most, as far as that can be said without the model's tokenizer."""
    # The same passages, instructions and earlier turns come again and again.
    return _remembered(text) if len(text) <= _REMEMBERED_CHARS else _counted(text)


def fitting_tokens(text: str, start: int, end: int, limit: int) -> int:
    """The last place up to which `text[start:place]` has at most `limit` tokens (`count_tokens`): not behind `end`, but
    at least one character on."""
    # Chinese ends in the first window, English in the second; a token of a word has at most eight characters.
    for window in (limit, 8 * limit):
        stop = min(end, start + window)
        place = _place(text[start:stop], limit)
        if place is not None:
            return start + max(1, place)
        if stop == end:
            break
    return stop


def _place(text: str, limit: int) -> int | None:
    """Where the token begins that is too much; None if all of them fit."""
    starts = [(match.start(), 1.0) for match in _NARROW.finditer(text)]
    if not text.isascii():
        for chars, weight in _CHARS:
            starts += ((match.start(), weight) for match in chars.finditer(text))
        starts.sort()
    count = 0.0
    for start, weight in starts:
        count += weight
        if count > limit:
            return start
    return None


def _counted(text: str) -> int:
    count: float = len(_NARROW.findall(text))
    if not text.isascii():
        count += sum(len(chars.findall(text)) * weight for chars, weight in _CHARS)
    return -int(-count // 1)


_remembered = lru_cache(maxsize=1_000)(_counted)
