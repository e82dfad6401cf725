"""CSV and TSV: one table."""

from __future__ import annotations

import csv
import io

from services.retriever.decoding import clean, decode

from .content import CellCount, Content, Writer, table

_SAMPLE_CHARS = 64 * 1024
_DELIMITERS = ",;\t|"


def read_csv(data: bytes) -> Content:
    return _read(data, ",")


def read_tsv(data: bytes) -> Content:
    return _read(data, "\t")


def _read(data: bytes, usual: str) -> Content:
    text = clean(decode(data))
    count = CellCount()
    rows = []
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text[:_SAMPLE_CHARS], usual)):
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
