"""Text to passages: whole blocks under one heading, as many as fit; what is too large is cut at the best place."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from .blocks import MAX_HEADING_CHARS, Block, markdown_blocks, plain_blocks

FORMAT = 1
"""Raised when extraction or chunking changes, so that every document is ingested anew."""
_WIDE = re.compile(
    "[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6"
    "\U0001f300-\U0001faff\U00020000-\U0003fffd]"
)
_LINE = re.compile(r"\n")
_SENTENCE = re.compile(r"[。！？!?…]+[\"'”’」』）)]*|\.[\"'”’)]*(?=\s)")
_CLAUSE = re.compile(r"[，、；：,;:](?=\D)")
_BLANK = re.compile(r"\s+")
_CUTS = {
    "table": (_LINE, _SENTENCE, _CLAUSE, _BLANK),
    "code": (_LINE, _BLANK),
}
_PROSE_CUTS = (_SENTENCE, _LINE, _CLAUSE, _BLANK)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The passage `text[start:end]`; `heading` are the headings above it, outermost first, joined by ` > `."""

    start: int
    end: int
    heading: str


def weight(text: str) -> int:
    """Length of a text where a wide character (Chinese, Japanese, Korean, emoji) counts as two."""
    return len(text) + len(_WIDE.findall(text))


def chunk(text: str, *, limit: int, markdown: bool = False, pages: Sequence[int] = ()) -> list[Chunk]:
    """The passages of `text`, in order, none heavier than `limit`, together all of it but blanks.

    Args:
        limit: most `weight` of a passage, at least 2.
        pages: offsets at which pages start; no passage reaches over the end of a page.
    """
    starts = list(pages) or [0]
    chunks: list[Chunk] = []
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        blocks = markdown_blocks(text, start, end) if markdown else plain_blocks(text, start, end)
        chunks += _packed(text, (piece for block in blocks for piece in _fitting(text, block, limit)), limit)
    return chunks


def _packed(text: str, blocks: Iterator[Block], limit: int) -> Iterator[Chunk]:
    """Joins blocks that follow each other. A heading starts a new passage, unless only headings stand before it."""
    current: Block | None = None
    for block in blocks:
        if current is None:
            current = block
        elif (block.kind == "heading" and current.kind != "heading") or weight(text[current.start : block.end]) > limit:
            yield Chunk(current.start, current.end, current.heading)
            current = block
        else:
            current = replace(block, start=current.start)
    if current is not None:
        yield Chunk(current.start, current.end, current.heading)


def _fitting(text: str, block: Block, limit: int) -> Iterator[Block]:
    """The block itself, or its pieces where it is too heavy."""
    start, end = _trimmed(text, block.start, block.end)
    if weight(text[start:end]) <= limit:
        if start < end:
            yield replace(block, start=start, end=end)
        return
    cuts = _CUTS.get(block.kind, _PROSE_CUTS)
    # Rows that are cut off from their table keep the names of its columns in the heading.
    columns = _columns(text[start:end]) if block.kind == "table" else ""
    heading = block.heading
    while start < end:
        stop = _cut(text, start, end, limit, cuts)
        left, right = _trimmed(text, start, stop)
        if left < right:
            yield replace(block, start=left, end=right, heading=heading)
        start = stop
        heading = " > ".join(part for part in (block.heading, columns) if part)[:MAX_HEADING_CHARS]


def _cut(text: str, start: int, end: int, limit: int, cuts: Sequence[re.Pattern[str]]) -> int:
    """Where the piece from `start` ends: behind the last good place that fits, and not much too early."""
    furthest = _furthest(text, start, end, limit)
    if furthest == end:
        return end
    earliest = start + (furthest - start) // 3
    for pattern in cuts:
        places = [found.end() for found in pattern.finditer(text, start, furthest) if found.end() > earliest]
        if places:
            return places[-1]
    # No good place: but a letter and its accent stay together.
    stop = furthest
    while stop > earliest and unicodedata.combining(text[stop]):
        stop -= 1
    return stop if stop > earliest else furthest


def _furthest(text: str, start: int, end: int, limit: int) -> int:
    """The last place up to which the text weighs no more than `limit`; at least one character on."""
    window = text[start : min(end, start + limit)]
    wide = 0
    for found in _WIDE.finditer(window):
        if found.end() + wide + 1 > limit:
            return start + max(1, min(found.start(), limit - wide))
        wide += 1
    return start + max(1, min(len(window), limit - wide))


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _columns(table: str) -> str:
    cells = [cell.strip() for cell in table.partition("\n")[0].strip().strip("|").split("|")]
    return " | ".join(cell for cell in cells if cell)
