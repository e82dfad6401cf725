"""A client's filters as a Milvus expression: equalities only, built from checked parts, so nothing can be injected."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from services.common.errors import ServiceError

COLUMNS = frozenset({"document_id", "name", "title", "language", "media_type"})
"""Filter keys that are fields of the collection; every other key is looked up in the document's metadata."""

MAX_FILTERS = 16
MAX_VALUE_CHARS = 512
_KEY = re.compile(r"[A-Za-z0-9_]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029\ud800-\udfff]")


def filter_expression(filters: Mapping[str, Any] | None) -> str:
    """The expression that all of `filters` hold, empty where there are none.

    Raises:
        ServiceError: `bad_message`, with what is wrong.
    """
    if not filters:
        return ""
    if len(filters) > MAX_FILTERS:
        raise ServiceError("bad_message", f"At most {MAX_FILTERS} filters are allowed; there are {len(filters)}.")
    return " and ".join(_equality(key, value) for key, value in filters.items())


def is_key(key: object) -> bool:
    """Whether something can be the key of a filter or of metadata."""
    return isinstance(key, str) and _KEY.fullmatch(key) is not None


def _equality(key: str, value: Any) -> str:
    if not is_key(key):
        raise ServiceError(
            "bad_message", f"A filter's key is 1 to 64 letters, digits or underscores, not {str(key)[:80]!r}."
        )
    if key in COLUMNS:
        if not isinstance(value, str):
            raise ServiceError("bad_message", f"The filter {key!r} takes a text.")
        return f"{key} == {_literal(key, value)}"
    return f'metadata["{key}"] == {_literal(key, value)}'


def _literal(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(key, value)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    raise ServiceError(
        "bad_message", f"The filter {key!r} takes a text, a number, or true or false, not {type(value).__name__}."
    )


def _text(key: str, value: str) -> str:
    if len(value) > MAX_VALUE_CHARS:
        raise ServiceError("bad_message", f"The filter {key!r} is longer than {MAX_VALUE_CHARS} characters.")
    if _CONTROL.search(value):
        raise ServiceError("bad_message", f"The filter {key!r} contains a control character.")
    # JSON's quoting of quotes and backslashes is Milvus' own. \u escapes are not understood everywhere, hence the text
    # stays as it is.
    return json.dumps(value, ensure_ascii=False)
