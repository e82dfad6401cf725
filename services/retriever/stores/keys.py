"""What a document can be asked for, as texts: the same on the side of the index and on that of the question."""

from __future__ import annotations

from collections.abc import Iterator

from services.retriever.filters import COLUMNS
from services.retriever.stored import DocumentInfo

from .port import Value


def reader_key(reader: str) -> str:
    return f"r:{reader}"


def equality_key(name: str, value: Value) -> str:
    """One key for each field or metadata value; numbers are equal whatever their type, and no text is a number."""
    if name in COLUMNS:
        return f"f:{name}={value}"
    if isinstance(value, bool):
        said = f"b{value}"
    elif isinstance(value, int | float):
        said = f"n{int(value) if value == int(value) else value!r}"
    else:
        said = f"s{value}"
    return f"m:{name}={said}"


def keys_of(info: DocumentInfo) -> Iterator[str]:
    """All keys of a document."""
    for reader in info.readers:
        yield reader_key(reader)
    for column in COLUMNS:
        yield equality_key(column, getattr(info, column))
    for name, value in info.metadata.items():
        if isinstance(value, str | int | float):
            yield equality_key(name, value)
