"""Percentiles by nearest rank: always a value that was seen."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` percent of `values` do not exceed; sorted or not. 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    # Rounded first: 99.9 % of 1,000 must not be 999.0000000000001.
    return ordered[max(0, math.ceil(round(share / 100 * len(ordered), 6)) - 1)]
