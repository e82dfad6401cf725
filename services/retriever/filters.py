"""A client's filters, checked: equalities on a document's fields and metadata, the same for every store."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from services.common.errors import ServiceError

COLUMNS = frozenset({"document_id", "name", "title", "language", "media_type"})
"""Filter keys that are fields of a document; every other key is looked up in its metadata."""

MAX_FILTERS = 16
MAX_VALUE_CHARS = 512
_KEY = re.compile(r"[A-Za-z0-9_]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029\ud800-\udfff]")


def checked_filters(filters: Mapping[str, Any] | None) -> dict[str, str | int | float | bool]:
    """The filters, each known to be of a form that a store can ask for.

    Raises:
        ServiceError: `bad_message`, with what is wrong.
    """
    if not filters:
        return {}
    if len(filters) > MAX_FILTERS:
        raise ServiceError("bad_message", f"At most {MAX_FILTERS} filters are allowed; there are {len(filters)}.")
    return {key: _checked(key, value) for key, value in filters.items()}


def is_key(key: object) -> bool:
    """Whether something can be the key of a filter or of metadata."""
    return isinstance(key, str) and _KEY.fullmatch(key) is not None


def _checked(key: str, value: Any) -> str | int | float | bool:
    if not is_key(key):
        raise ServiceError(
            "bad_message", f"A filter's key is 1 to 64 letters, digits or underscores, not {str(key)[:80]!r}."
        )
    if key in COLUMNS and not isinstance(value, str):
        raise ServiceError("bad_message", f"The filter {key!r} takes a text.")
    if isinstance(value, str):
        return _text(key, value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ServiceError(
        "bad_message", f"The filter {key!r} takes a text, a number, or true or false, not {type(value).__name__}."
    )


def _text(key: str, value: str) -> str:
    if len(value) > MAX_VALUE_CHARS:
        raise ServiceError("bad_message", f"The filter {key!r} is longer than {MAX_VALUE_CHARS} characters.")
    if _CONTROL.search(value):
        raise ServiceError("bad_message", f"The filter {key!r} contains a control character.")
    return value
