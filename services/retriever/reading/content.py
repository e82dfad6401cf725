"""What a reader makes of a file, its bounds, and the Markdown that all readers of structured files write."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.retriever.bad_document import BadDocument
from services.retriever.decoding import clean

MAX_PAGES = 5_000
MAX_TEXT_CHARS = 20_000_000
MAX_CELLS = 1_000_000
"""Cells with something in them, in all tables of a file."""
_STRUCTURE = re.compile(r"^([ \t]*)(#{1,6}\s|\||```|~~~)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Content:
    """What a file says, as `Document` has it; an empty `title` where it names none."""

    title: str
    text: str
    markdown: bool = False
    pages: tuple[int, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Writer:
    """Puts a text together from blocks, with a blank line between them.

    Raises:
        BadDocument: by `add` and `page`, as soon as the text or the number of pages is too large.
    """

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._pages: list[int] = []
        self._length = 0

    def add(self, block: str) -> None:
        block = clean(block).strip("\n")
        if not block.strip():
            return
        self._parts.append(block + "\n\n")
        self._length += len(block) + 2
        if self._length > MAX_TEXT_CHARS:
            raise BadDocument(f"its text is longer than {MAX_TEXT_CHARS:,} characters; split it")

    def page(self) -> None:
        """What is added from now on is on a new page."""
        self._pages.append(self._length)
        if len(self._pages) > MAX_PAGES:
            raise BadDocument(f"it has more than {MAX_PAGES:,} pages; split it")

    def content(self, title: str, *, markdown: bool = True) -> Content:
        return Content(title, "".join(self._parts), markdown, tuple(self._pages))


def heading(level: int, text: str) -> str:
    text = " ".join(text.split())
    return f"{'#' * max(1, min(level, 6))} {text}" if text else ""


def prose(text: str) -> str:
    """Text in which nothing is taken for a heading, a table or code by mistake."""
    return _STRUCTURE.sub(r"\1\\\2", text.strip())


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows as a Markdown table whose first row is its header; rows and columns without text are left out."""
    flat = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    flat = [row for row in flat if any(row)]
    used = sorted({number for row in flat for number, cell in enumerate(row) if cell})
    if not used:
        return ""
    if len(used) * len(flat) > MAX_TEXT_CHARS // 3:  # each cell takes three characters, empty ones too
        raise BadDocument("a table in it has cells too far apart; delete what is far out and empty, or split it")
    lines = ["| " + " | ".join(row[number] if number < len(row) else "" for number in used) + " |" for row in flat]
    lines.insert(1, "| " + " | ".join("---" for _ in used) + " |")
    return "\n".join(lines)


class CellCount:
    """Counts the cells of a file's tables.

    Raises:
        BadDocument: by `add`, when they are too many.
    """

    def __init__(self) -> None:
        self._cells = 0

    def add(self, cells: int) -> None:
        self._cells += cells
        if self._cells > MAX_CELLS:
            raise BadDocument(f"it has more than {MAX_CELLS:,} cells; split it")
