"""Text to passages: whole blocks under one heading, as many as fit; what is too large is cut at the best place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from services.common.llm.tokens import count_tokens, fitting_tokens

from .blocks import MAX_HEADING_CHARS, Block, markdown_blocks, plain_blocks
from .graphemes import is_inside

FORMAT = 3
"""Raised when extraction or chunking changes, so that every document is ingested anew."""
MIN_LIMIT = 20
"""Tokens: the longest of usual emoji, which are several characters, are not cut."""
LEAD_TOKENS = 50
"""The most of a document's first sentence that is searched with its later passages."""
_LEAD_CHARS = 20
MAX_CHARS_PER_TOKEN = 8
"""A run of blanks is one token however long it is, and no store takes passages without end."""
_TINY = 5
"""A passage of less than this part of the limit is too little to stand alone."""
_LINE = re.compile(r"\n")
_SENTENCE = re.compile(r"[。！？!?…]+[\"'”’」』）)]*|\.[\"'”’)]*(?=\s)")
_CLAUSE = re.compile(r"[，、；：,;:](?=\D)")
_BLANK = re.compile(r"\s+")
_CUTS = {
    "table": (_LINE, _SENTENCE, _CLAUSE, _BLANK),
    "code": (_LINE, _BLANK),
}
_PROSE_CUTS = (_SENTENCE, _LINE, _CLAUSE, _BLANK)
_LEAD_IN = re.compile(r"[:：]\s*[*_]*\Z")


@dataclass(frozen=True, slots=True)
class Chunk:
    """The passage `text[start:end]`; `heading` are the headings above it, outermost first, joined by ` > `."""

    start: int
    end: int
    heading: str


def chunk(text: str, *, limit: int, markdown: bool = False, pages: Sequence[int] = ()) -> list[Chunk]:
    """The passages of `text`, in order, none larger than `limit`, together all of it but blanks.
    None has more than `MAX_CHARS_PER_TOKEN * limit` characters.

    Args:
        limit: most tokens of a passage (`count_tokens`), at least `MIN_LIMIT`.
        pages: offsets at which pages start; no passage reaches over the end of a page.
    """
    starts = list(pages) or [0]
    chunks: list[Chunk] = []
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        blocks = markdown_blocks(text, start, end) if markdown else plain_blocks(text, start, end)
        groups = _without_leftovers(text, list(_packed(text, blocks, limit)), limit)
        chunks += (Chunk(group[0].start, group[-1].end, _heading(group)) for group in groups)
    return chunks


def lead(text: str) -> str:
    """The first line or sentence of `text`, or as much of it as `LEAD_TOKENS` are."""
    start, end = _trimmed(text, 0, len(text))
    line = text.find("\n", start)
    # "Dr." ends none.
    sentence = _SENTENCE.search(text, start + _LEAD_CHARS)
    end = min(end, line if line >= 0 else end, sentence.end() if sentence else end)
    return text[start : fitting_tokens(text, start, end, LEAD_TOKENS)]


def _packed(text: str, blocks: Iterator[Block], limit: int) -> Iterator[list[Block]]:
    """Blocks that become one passage. A heading starts a new one, unless only headings stand before it."""
    current: list[Block] = []
    for block in blocks:
        if block.kind == "heading" and any(before.kind != "heading" for before in current):
            yield current
            current = []
        start, end = _trimmed(text, block.start, block.end)
        if start == end:
            continue
        block = replace(block, start=start, end=end)
        if _fits(text, [*current, block], limit):
            current.append(block)
            continue
        done, current = _split_off(text, current)
        if done:
            yield done
        if current and _fits(text, [*current, block], limit):
            current.append(block)
            continue
        # What leads to a block that is too large stays with its first piece.
        for piece in _pieces(text, block, limit, _room(text, current, limit)):
            if current and not _fits(text, [*current, piece], limit):
                yield current
                current = []
            current.append(piece)
    if current:
        yield current


def _split_off(text: str, blocks: list[Block]) -> tuple[list[Block], list[Block]]:
    """What can be a passage, and what belongs to the block that follows: headings, or a sentence that leads to it."""
    if not blocks or all(block.kind == "heading" for block in blocks):
        return [], blocks
    last = blocks[-1]
    leads = last.kind == "paragraph" and _LEAD_IN.search(text, max(last.start, last.end - 10), last.end)
    if not leads:
        return blocks, []
    before = blocks[:-1]
    return ([], blocks) if all(block.kind == "heading" for block in before) else (before, [last])


def _room(text: str, current: list[Block], limit: int) -> int:
    """Tokens for the first piece of what follows `current`; the limit itself where too little would be left."""
    left = limit - _tokens(text, current) - 2 if current else limit
    return left if left >= limit // 3 else limit


def _without_leftovers(text: str, groups: list[list[Block]], limit: int) -> list[list[Block]]:
    """Gives a passage that is too little to stand alone the end of the one before it, of the same heading."""
    result: list[list[Block]] = []
    for group in groups:
        before = result[-1] if result else []
        same = bool(before) and group[0].kind != "heading" and before[-1].heading == group[0].heading
        if same and _tokens(text, group) * _TINY < limit:
            if _fits(text, [*before, *group], limit):
                before.extend(group)
                continue
            rest = before[:-1]
            moved = [before[-1], *group]
            if (
                any(block.kind != "heading" for block in rest)
                and _tokens(text, rest) * _TINY >= limit
                and _fits(text, moved, limit)
            ):
                result[-1] = rest
                group = moved
        result.append(group)
    return result


def _heading(group: list[Block]) -> str:
    """That of the last block, with the columns of a table where its first rows are in another passage."""
    last = group[-1].heading
    return max((block.heading for block in group if block.heading.startswith(last)), key=len)


def _tokens(text: str, blocks: list[Block]) -> int:
    return count_tokens(text[blocks[0].start : blocks[-1].end])


def _fits(text: str, blocks: list[Block], limit: int) -> bool:
    return blocks[-1].end - blocks[0].start <= MAX_CHARS_PER_TOKEN * limit and _tokens(text, blocks) <= limit


def _pieces(text: str, block: Block, limit: int, first: int) -> Iterator[Block]:
    """The block itself, or its pieces where it is too large; the first piece has at most `first` tokens."""
    start, end = block.start, block.end
    left = count_tokens(text[start:end])
    if left <= first and end - start <= MAX_CHARS_PER_TOKEN * first:
        yield block
        return
    # Rows that are cut off from their table keep the names of its columns in the heading.
    columns = _columns(text[start:end]) if block.kind == "table" else ""
    heading, room = block.heading, first
    while start < end:
        # Two pieces of about the same size rather than a whole one and a rest.
        if room < left and left * _TINY < room * (_TINY + 1):
            room = max(MIN_LIMIT, -(-left * 3 // 5))
        stop = _cut(text, start, end, min(room, limit), block.kind)
        piece_start, piece_end = _trimmed(text, start, stop)
        if piece_start < piece_end:
            yield replace(block, start=piece_start, end=piece_end, heading=heading)
            left -= count_tokens(text[piece_start:piece_end])
        start, room = stop, limit
        heading = " > ".join(part for part in (block.heading, columns) if part)[:MAX_HEADING_CHARS]


def _cut(text: str, start: int, end: int, limit: int, kind: str) -> int:
    """Where the piece from `start` ends: behind the last good place that fits, and not much too early."""
    furthest = fitting_tokens(text, start, end, limit)
    if furthest == end:
        return end
    for pattern in _CUTS.get(kind, _PROSE_CUTS):
        # A row of a table and a line of code stay whole, however short the piece before them becomes.
        whole_lines = pattern is _LINE and kind in _CUTS
        earliest = start if whole_lines else start + (furthest - start) // 3
        # A good place may need the character behind it to be one.
        found = [match.end() for match in pattern.finditer(text, start, min(end, furthest + 1))]
        places = [place for place in found if earliest < place <= furthest and not is_inside(text, place)]
        if places:
            return places[-1]
    # No good place: but a letter and its accent stay together.
    stop = furthest
    while stop > start and is_inside(text, stop):
        stop -= 1
    return stop if stop > start else furthest


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _columns(table: str) -> str:
    cells = [cell.strip() for cell in table.partition("\n")[0].strip().strip("|").split("|")]
    return " | ".join(cell for cell in cells if cell)
