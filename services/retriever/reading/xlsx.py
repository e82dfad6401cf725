"""Excel workbooks: each sheet that is shown is a page with its name as heading and one table."""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator, Sequence
from typing import Any

from services.retriever.bad_document import BadDocument

from .content import CellCount, Content, Writer, heading, table
from .zipped import checked_parts

MAX_SHEETS = 1_000
_MAX_VISITED = 20_000_000
"""Cells looked at, empty ones too: what a sheet says about its own size may be a lie."""
_KIND = "the Excel workbook"


def read_xlsx(data: bytes) -> Content:
    import openpyxl  # takes long to load, and not every process reads workbooks

    checked_parts(data, _KIND)
    book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
    writer, count = Writer(), CellCount()
    shown = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
    if len(shown) > MAX_SHEETS:
        raise BadDocument(f"{_KIND} has more than {MAX_SHEETS:,} sheets; split it")
    visited = 0
    for sheet in shown:
        sheet.reset_dimensions()  # what it says about its own size may be a lie
        rows: list[Sequence[str]] = []
        for row in sheet.iter_rows(values_only=True):
            visited += 1 + len(row)
            if visited > _MAX_VISITED:
                raise BadDocument(f"{_KIND} has cells too far apart; delete what is far out and empty")
            cells = [_shown(value) for value in row]
            filled = sum(map(bool, cells))
            if filled:
                count.add(filled)
                rows.append(cells)
        writer.page()
        if rows:
            writer.add(heading(1, sheet.title))
            writer.add(table(rows))
    title = str(book.properties.title or "")
    book.close()
    return writer.content(title or next(_names(shown), ""))


def _names(sheets: Sequence[Any]) -> Iterator[str]:
    """The only sheet's name, unless it is what every workbook's first sheet is called."""
    if len(sheets) == 1 and not str(sheets[0].title).lower().startswith(("sheet", "工作表")):
        yield str(sheets[0].title)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.15g}"
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ", "minutes")
    return str(value)
