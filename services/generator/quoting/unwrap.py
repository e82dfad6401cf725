"""Lines of text that was typeset: which line breaks are only the width of a page, and which mean something.

Text out of a PDF has no paragraphs left. A line that ends although the next word would have fitted was ended on
purpose, and a short line without a full stop above such text is a heading. Markdown is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_MARKDOWN = re.compile(r"(?m)^\s{0,3}(?:#{1,6}\s|[-*+]\s|\||```)")
_NUMBERED = re.compile(r"\d{1,2}(?:\.\d{1,2})*\.?\s+\D|第[一二三四五六七八九十\d]+[章节条]\s|[一二三四五六七八九十]+、")
_CLOSED = re.compile(r"[.。!！?？:：;；,，、…][\"'”’)）」』]*$")
_WRAPPED_AT = 40
_MAX_HEADING = 70


def unwrapped(text: str) -> list[str]:
    """The lines of `text`; where it was typeset, with a blank line at each break that is meant, and headings marked."""
    lines = text.splitlines()
    widths = [len(line.strip()) for line in lines]
    if len(lines) < 3 or max(widths) < _WRAPPED_AT or _MARKDOWN.search(text):
        return lines
    width = max(widths)
    result: list[str] = []
    for at, line in enumerate(lines):
        following = lines[at + 1].strip() if at + 1 < len(lines) else ""
        meant = not following or len(line.strip()) + 1 + _first_word(following) < width - 1
        begins = at == 0 or not result[-1]
        if begins and meant and _is_heading(line.strip(), following):
            line = f"## {line.strip()}"
        result.append(line)
        if meant:
            result.append("")
    return result


def join_lines(lines: Sequence[str]) -> str:
    """Wrapped lines as one; Chinese text needs no blank where it was wrapped, nor does a word cut at its hyphen."""
    text = ""
    for line in (line.strip() for line in lines):
        joins = not text or not line or re.search(r"[a-z]-$", text) or not (text[-1].isascii() or line[0].isascii())
        text += line if joins else f" {line}"
    return text


def _first_word(line: str) -> int:
    """Characters that have to fit together: a Latin word, or one Chinese character."""
    word = re.match(r"[\x21-\x7e]+", line)
    return len(word[0]) if word else 1


def _is_heading(line: str, following: str) -> bool:
    if not line or not following or len(line) > _MAX_HEADING or _CLOSED.search(line):
        return False
    # A row of a table ("Access logs 6 months") holds a number, a heading has one in front at most.
    return bool(_NUMBERED.match(line)) or not re.search(r"\d", line)
