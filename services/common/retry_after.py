"""How long a server asks its client to wait before it comes again."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER_MS = 600_000


def retry_after_ms(headers: Mapping[str, str], now_s: float) -> int | None:
    """How long the server asks to wait, in milliseconds: `retry-after-ms` (Azure, OpenAI), or `Retry-After`, seconds or
    a date; None where it is absent or makes no sense."""
    precise = _number(headers.get("retry-after-ms"))
    if precise is not None:
        return min(round(precise), MAX_RETRY_AFTER_MS)
    header = headers.get("retry-after")
    if not header:
        return None
    seconds = _number(header)
    if seconds is None:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - now_s
        except (ValueError, TypeError, OverflowError):
            return None
    return min(round(seconds * 1000), MAX_RETRY_AFTER_MS) if seconds >= 0 else None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None
