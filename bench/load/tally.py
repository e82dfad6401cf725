"""What a load test has seen, of the time that is measured."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

PERCENTILES = (50.0, 95.0, 99.0, 99.9)


@dataclass
class Tried:
    """What became of questions that tried one variant of the workers; `none` is a variant here. Times as in Tally."""

    outcomes: Counter[str] = field(default_factory=Counter)
    ttfb: list[float] = field(default_factory=list)
    ttft: list[float] = field(default_factory=list)


@dataclass
class Tally:
    """Times are seconds. Those of slow readers are left out: they wait for themselves.

    A question's times count from when it was to be asked, also where the test itself was late with it; otherwise a
    system that holds its users up would be asked less and look better (coordinated omission).
    """

    ttfb: list[float] = field(default_factory=list)
    ttft: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    resumes: list[float] = field(default_factory=list)
    begun: list[tuple[float, float]] = field(default_factory=list)
    """When a question was to be asked (seconds from the start), and its time to the first token."""
    outcomes: Counter[str] = field(default_factory=Counter)
    variants: dict[str, Tried] = field(default_factory=dict)
    """Without questions that were refused."""
    closed: Counter[int] = field(default_factory=Counter)
    """Connections that were closed on us, by close code."""
    frames: int = 0
    joined: int = 0
    wrong: list[str] = field(default_factory=list)
    """Frames that were missing, came twice or out of their order."""

    @property
    def asked(self) -> int:
        return self.outcomes.total()

    @property
    def failed(self) -> int:
        return self.asked - self.outcomes["stop"] - self.outcomes["length"]
