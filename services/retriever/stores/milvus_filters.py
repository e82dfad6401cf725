"""What a passage must be, as a Milvus expression: built from checked parts, so nothing can be injected."""

from __future__ import annotations

import json

from baton_proto.readers import is_principal
from services.retriever.filters import COLUMNS

from .milvus_schema import MARKS, READERS, reader_mark
from .port import Value, Where

FEW_READERS = 16


def expression(where: Where, lite: bool = False) -> str:
    """The expression that `where` holds, empty where it asks for nothing.

    Args:
        lite: for Milvus Lite. It looks into an array row by row in Python, which takes ten times as long as the search
            itself; patterns on a text it compares in native code, one after the other.
    """
    parts = [] if where.readers is None else [_readable(where.readers, lite)]
    return " and ".join([*parts, *(_equality(key, value) for key, value in where.equals.items())])


def _readable(readers: frozenset[str], lite: bool) -> str:
    named = [reader for reader in sorted(readers) if is_principal(reader)]
    if lite and 0 < len(named) <= FEW_READERS:
        return "(" + " or ".join(f'{MARKS} like "%{reader_mark(reader)}%"' for reader in named) + ")"
    return f"array_contains_any({READERS}, [{', '.join(map(literal, named))}])"


def _equality(key: str, value: Value) -> str:
    return f"{key} == {literal(value)}" if key in COLUMNS else f'metadata["{key}"] == {literal(value)}'


def literal(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's quoting of quotes and backslashes is Milvus' own. \u escapes are not understood everywhere, hence the
        # text stays as it is.
        return json.dumps(value, ensure_ascii=False)
    return repr(value)
