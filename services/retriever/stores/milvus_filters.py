"""What a passage must be, as a Milvus expression: built from checked parts, so nothing can be injected."""

from __future__ import annotations

import json

from baton_proto.readers import is_principal
from services.retriever.filters import COLUMNS

from .milvus_schema import READERS
from .port import Value, Where


def expression(where: Where) -> str:
    """The expression that `where` holds, empty where it asks for nothing."""
    parts = [] if where.readers is None else [_readable(where.readers)]
    return " and ".join([*parts, *(_equality(key, value) for key, value in where.equals.items())])


def _readable(readers: frozenset[str]) -> str:
    named = ", ".join(literal(reader) for reader in sorted(readers) if is_principal(reader))
    return f"array_contains_any({READERS}, [{named}])"


def _equality(key: str, value: Value) -> str:
    return f"{key} == {literal(value)}" if key in COLUMNS else f'metadata["{key}"] == {literal(value)}'


def literal(value: Value) -> str:
    """A value as it is written in an expression."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's quoting of quotes and backslashes is Milvus' own. \u escapes are not understood everywhere, hence the
        # text stays as it is.
        return json.dumps(value, ensure_ascii=False)
    return repr(value)
