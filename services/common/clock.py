"""The clock of the wire: instants that processes exchange."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Unix epoch, milliseconds."""
    return time.time_ns() // 1_000_000
