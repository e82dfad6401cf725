"""Passages cut into what can be quoted alone: a sentence, a list item, a table row."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from baton_proto.messages import Passage

from .sentences import plain, split_sentences
from .unwrap import join_lines, unwrapped
from .words import is_chinese

Kind = Literal["sentence", "item", "row"]
Piece = tuple[str, Kind, str, str, tuple[tuple[str, str], ...]]
"""Text, kind, lead, number and cells of a unit."""

_HEADING = re.compile(r"\s{0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
_ITEM = re.compile(
    r"\s*(?:[-*+•·▪◦–]\s+|(?P<number>\d{1,2})(?:[.)]\s+|、\s*)|[（(](?P<paren>\d{1,2})[）)]\s*|"
    r"(?P<chinese>[一二三四五六七八九十]{1,3})、\s*)(?P<text>\S.*)"
)
_QUOTE = re.compile(r"\s{0,3}>\s?")
_RULE = re.compile(r"\s*(?:[-*_=]\s*){3,}$")
_FENCE = re.compile(r"\s*(?:```|~~~)")
_TABLE_RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$")
_LEADS = re.compile(r"[:：]$")
_RANGE = re.compile(
    r"[<>≤≥~]?\d|(?:不满|满|不足|少于|多于|超过|至少|最多)\s*\d|"
    r"(?:less|more|fewer|over|under|up to|from|between|at (?:least|most))\b\D{0,6}\d",
    re.IGNORECASE,
)
_MAX_LINE = 4000
_MAX_ITEM_CHARS = 360


@dataclass(frozen=True, slots=True)
class Unit:
    """One quotable piece.

    `n` cites it. `rank` is its passage's place in the search result, from 0; `order` its place in the passages. `block`
    is the same for the items of one list, the rows of one table, the sentences of one paragraph. `lead` introduces an
    item: the sentence before the list, or nothing. `number` is an ordered item's own number. `cells` are a row's
    (heading, value) pairs. `text` is free of Markdown and of anything that looks like a citation.
    """

    text: str
    kind: Kind
    n: int
    rank: int
    order: int
    block: int
    document: str
    title: str
    heading: str
    chinese: bool
    lead: str = ""
    number: str = ""
    cells: tuple[tuple[str, str], ...] = ()


def units_of(passages: Sequence[Passage]) -> list[Unit]:
    """All units, in the order of documents by their best passage, and inside a document in the order of its text."""
    ranks = {passage.n: rank for rank, passage in enumerate(passages)}
    first: dict[str, int] = {}
    for rank, passage in enumerate(passages):
        first.setdefault(passage.document_id, rank)
    ordered = sorted(
        passages, key=lambda one: (first[one.document_id], one.start if one.start is not None else 0, ranks[one.n])
    )
    units: list[Unit] = []
    seen: set[tuple[str, str]] = set()
    block = 0
    for passage in ordered:
        reader = _Reader(passage, ranks[passage.n], first_block=block)
        for unit in reader.units(len(units)):
            if (unit.document, unit.text) not in seen:
                seen.add((unit.document, unit.text))
                units.append(unit)
        block = reader.block + 1
    return units


class _Reader:
    """Reads one passage line by line. The text may be Markdown or what an extractor left of HTML or PDF."""

    def __init__(self, passage: Passage, rank: int, first_block: int) -> None:
        self.block = first_block
        self._passage = passage
        self._rank = rank
        self._heading = _last_heading(passage.heading, passage.title)
        self._chinese = is_chinese(passage.text)
        self._paragraph: list[str] = []
        self._item: re.Match[str] | None = None
        self._lead = ""
        self._columns: list[str] = []
        self._first: list[str] = []
        self._kind: Kind = "sentence"

    def units(self, order: int) -> Iterator[Unit]:
        for at, (text, kind, lead, number, cells) in enumerate(self._pieces()):
            yield Unit(
                text=text,
                kind=kind,
                n=self._passage.n,
                rank=self._rank,
                order=order + at,
                block=self.block,
                document=self._passage.document_id,
                title=plain(self._passage.title),
                heading=self._heading,
                chinese=self._chinese,
                lead=lead,
                number=number,
                cells=cells,
            )

    def _pieces(self) -> Iterator[Piece]:
        for line in [*unwrapped(self._passage.text[: 64 * _MAX_LINE]), ""]:
            line = _QUOTE.sub("", line[:_MAX_LINE].rstrip())
            heading = _HEADING.match(line)
            item = _ITEM.match(line)
            cells = _cells(line)
            breaks = not line.strip() or _RULE.match(line) or _FENCE.match(line)
            if heading or item or cells or breaks:
                yield from self._flush(more_rows=cells is not None)
            if heading:
                self._heading = _last_heading(heading[2], self._passage.title)
                self._begin("sentence", lead="")
            elif item:
                if self._kind != "item":
                    self._begin("item", self._lead)
                self._paragraph, self._item = [item["text"]], item
            elif cells is not None:
                yield from self._row(cells)
            elif breaks:
                self._columns = []
            else:
                if self._kind != "sentence" and not self._paragraph:
                    self._begin("sentence", lead="")
                self._paragraph.append(line)

    def _begin(self, kind: Kind, lead: str) -> None:
        self.block += 1
        self._kind, self._lead, self._columns = kind, lead, []

    def _row(self, cells: list[str]) -> Iterator[Piece]:
        if self._kind != "row":
            self._begin("row", self._lead)
            self._columns = []
        if not cells:
            # The line under the column names; where there is none, the first line is a row like the others.
            self._columns, self._first = self._first, []
            return
        first, self._first = self._first, []
        if first:
            yield from self._cells(first)
        if self._columns:
            yield from self._cells(cells)
        else:
            self._first = cells

    def _cells(self, cells: list[str]) -> Iterator[Piece]:
        names = self._columns + [""] * (len(cells) - len(self._columns))
        pairs = tuple((name, cell) for name, cell in zip(names, cells, strict=False) if cell)
        if pairs:
            yield row_text(pairs, self._chinese), "row", self._lead, "", pairs

    def _flush(self, more_rows: bool) -> Iterator[Piece]:
        if self._first and not more_rows:
            first, self._first = self._first, []
            yield from self._cells(first)
        text = plain(join_lines(self._paragraph))
        self._paragraph = []
        item, self._item = self._item, None
        if not text:
            return
        if item is not None:
            number = item["number"] or item["paren"] or item["chinese"] or ""
            if len(text) <= _MAX_ITEM_CHARS:
                yield text, "item", self._lead, number, ()
                return
        else:
            self._begin("sentence", lead="")
        sentences = split_sentences(text)
        for sentence in sentences:
            yield sentence, "sentence" if item is None else "item", self._lead, "", ()
        if item is None:
            self._lead = sentences[-1] if _LEADS.search(sentences[-1]) else ""


def row_text(cells: Sequence[tuple[str, str]], chinese: bool) -> str:
    """A table row as a person would read it out: what it is about first, then the other columns by name."""
    (name, subject), rest = cells[0], cells[1:]
    if not rest:
        return subject
    # "1 to 3" says nothing without its column's name; "Laptop" does.
    if name and (_RANGE.match(subject) or len(subject) == 1):
        blank = " " if subject[0].isascii() or name[-1].isascii() else ""
        subject = f"{name}{blank}{subject}"
    if len(rest) == 1:
        key, value = rest[0]
        bare = value.replace(",", "").replace(".", "").replace("%", "").isdecimal()
        return f"{subject}{'：' if chinese else ': '}{key + ' ' if bare and key else ''}{value}"
    colon, semicolon, dash = ("：", "；", "——") if chinese else (": ", "; ", " – ")
    return subject + dash + semicolon.join(f"{key}{colon}{value}" if key else value for key, value in rest)


def _cells(line: str) -> list[str] | None:
    """The cells of a table line; an empty list for the line under the heads; None where it is no table."""
    if "|" in line and _TABLE_RULE.match(line) and "-" in line:
        return []
    stripped = line.strip()
    if stripped.startswith("|") or stripped.count(" | ") >= 1:
        return [plain(cell) for cell in stripped.strip("|").replace("\\|", "/").split("|")]
    if "\t" in stripped:
        return [plain(cell) for cell in stripped.split("\t")]
    return None


def _last_heading(heading: str, title: str) -> str:
    """The innermost part of a heading path such as `Annual leave > Carry-over`."""
    parts = [part.strip() for part in re.split(r"\s+[>›/»]\s+", heading) if part.strip()]
    last = plain(parts[-1].lstrip("# ")) if parts else ""
    return "" if last == plain(title) else last
