"""CSV and TSV: one table."""

from __future__ import annotations

import csv
import io
import re

from services.retriever.decoding import clean, decode

from .content import MAX_TEXT_CHARS, CellCount, Content, Writer, table

_SAMPLE_CHARS = 64 * 1024
_DELIMITERS = ",;\t|"
_SAID = re.compile(rf"sep=([{_DELIMITERS}])\n", re.IGNORECASE)


def read_csv(data: bytes) -> Content:
    return _read(data, ",")


def read_tsv(data: bytes) -> Content:
    return _read(data, "\t")


def _read(data: bytes, usual: str) -> Content:
    csv.field_size_limit(MAX_TEXT_CHARS)  # a quote that is never closed makes all the rest one cell
    text = clean(decode(data))
    said = _SAID.match(text)  # Excel's own way to name the delimiter
    text = text[said.end() :] if said else text
    delimiter = said.group(1) if said else _delimiter(text[:_SAMPLE_CHARS], usual)
    count = CellCount()
    rows = []
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
        count.add(len(row))
        rows.append(row)
    writer = Writer()
    writer.add(table(rows))
    return writer.content("")


def _delimiter(sample: str, usual: str) -> str:
    """The delimiter by which most lines have the same number of cells; `usual` where that says nothing."""
    best, most = usual, 0.0
    for delimiter in sorted(_DELIMITERS, key=lambda mark: mark != usual):
        try:
            widths = [len(row) for row in csv.reader(io.StringIO(sample), delimiter=delimiter) if row][:200]
        except csv.Error:
            continue
        width = max(set(widths), key=widths.count, default=1)
        share = widths.count(width) / len(widths) if width > 1 else 0.0
        if share > most + 0.05:
            best, most = delimiter, share
    return best
