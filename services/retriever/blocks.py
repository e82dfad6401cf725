"""Text to blocks: the smallest pieces that should stay whole. Each is a range of the text; nothing is rewritten."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["heading", "paragraph", "item", "table", "code"]
MAX_HEADING_CHARS = 300

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r"^ {0,3}(#{1,6})(?:[ \t](.*))?$")
_UNDERLINE = re.compile(r"^ {0,3}(=+|-{2,})[ \t]*$")
_ITEM = re.compile(r"^\s*(?:[-*+•·]|\d{1,3}[.)、]|[(（]\d{1,3}[)）])(?:\s+|(?<=[、)）]))\S")


@dataclass(frozen=True, slots=True)
class Block:
    """`text[start:end]` without blank lines around it. `heading` are the headings above it, outermost first."""

    start: int
    end: int
    kind: Kind
    heading: str = ""


@dataclass(frozen=True, slots=True)
class _Line:
    start: int
    end: int
    text: str

    @property
    def blank(self) -> bool:
        return not self.text.strip()


def plain_blocks(text: str, start: int, end: int) -> Iterator[Block]:
    """Paragraphs and list items of `text[start:end]`."""
    yield from _paragraphs(_lines(text, start, end), "")


def markdown_blocks(text: str, start: int, end: int) -> Iterator[Block]:
    """Headings, paragraphs, list items, tables and fenced code of `text[start:end]`."""
    above: list[tuple[int, str]] = []
    group: list[_Line] = []
    lines = list(_lines(text, start, end))
    number = 0
    while number < len(lines):
        line = lines[number]
        fence, heading = _FENCE.match(line.text), _heading(lines, number)
        table = line.text.lstrip().startswith("|")
        if not (fence or heading or table):
            group.append(line)
            number += 1
            continue
        breadcrumb = _breadcrumb(above)
        yield from _paragraphs(group, breadcrumb)
        group = []
        if heading:
            level, title, count = heading
            above = [*(entry for entry in above if entry[0] < level), (level, title)]
            yield Block(line.start, lines[number + count - 1].end, "heading", _breadcrumb(above))
        elif fence:
            count = _fenced(lines, number, fence.group(1))
            yield Block(line.start, lines[number + count - 1].end, "code", breadcrumb)
        else:
            count = _run(lines, number)
            yield Block(line.start, lines[number + count - 1].end, "table", breadcrumb)
        number += count
    yield from _paragraphs(group, _breadcrumb(above))


def _lines(text: str, start: int, end: int) -> Iterator[_Line]:
    """The lines; of several blank ones in a row the first, for there may be millions."""
    blank = False
    while start < end:
        stop = text.find("\n", start, end)
        stop = end if stop < 0 else stop
        line = _Line(start, stop, text[start:stop])
        if not (blank and line.blank):
            yield line
        blank = line.blank
        start = stop + 1


def _paragraphs(lines: Iterator[_Line] | list[_Line], heading: str) -> Iterator[Block]:
    first: _Line | None = None
    last: _Line | None = None
    for line in lines:
        item = _ITEM.match(line.text)
        if first is not None and last is not None and (line.blank or item):
            yield Block(first.start, last.end, "item" if _ITEM.match(first.text) else "paragraph", heading)
            first = None
        if not line.blank:
            first = first or line
            last = line
    if first is not None and last is not None:
        yield Block(first.start, last.end, "item" if _ITEM.match(first.text) else "paragraph", heading)


def _heading(lines: list[_Line], number: int) -> tuple[int, str, int] | None:
    """Level, text and number of lines of the heading that starts at a line, if one does."""
    line = lines[number]
    if found := _HEADING.match(line.text):
        title = _without_closing((found.group(2) or "").strip())
        return (len(found.group(1)), title, 1) if title else None
    alone = number == 0 or lines[number - 1].blank
    if not alone or line.blank or number + 1 >= len(lines) or _ITEM.match(line.text):
        return None
    underline = _UNDERLINE.match(lines[number + 1].text)
    return (1 if "=" in underline.group(1) else 2, line.text.strip(), 2) if underline else None


def _without_closing(title: str) -> str:
    """`Title ##` is `Title`. No regular expression: those take for ever where a stranger writes many blanks."""
    bare = title.rstrip("#")
    return bare.rstrip() if not bare or bare[-1] in " \t" else title


def _fenced(lines: list[_Line], number: int, fence: str) -> int:
    """Number of lines to the closing fence, or to the end where there is none."""
    for at in range(number + 1, len(lines)):
        closing = _FENCE.match(lines[at].text)
        if closing and closing.group(1).startswith(fence) and not lines[at].text.strip().strip(fence[0]):
            return at - number + 1
    return len(lines) - number


def _run(lines: list[_Line], number: int) -> int:
    count = 0
    while number + count < len(lines) and lines[number + count].text.lstrip().startswith("|"):
        count += 1
    return count


def _breadcrumb(above: list[tuple[int, str]]) -> str:
    return " > ".join(re.sub(r"[*_`]", "", title) for _, title in above)[:MAX_HEADING_CHARS]
