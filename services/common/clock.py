"""The clock of the wire: instants that processes exchange."""

from __future__ import annotations

import time
from datetime import datetime


def now_ms() -> int:
    """Unix epoch, milliseconds."""
    return time.time_ns() // 1_000_000


def from_rfc3339(timestamp: str) -> int:
    """A frame's `timestamp` as Unix epoch in milliseconds; 0 where it is none."""
    try:
        return round(datetime.fromisoformat(timestamp).timestamp() * 1000)
    except ValueError:
        return 0
