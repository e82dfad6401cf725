"""Whether and when a call that failed is made again."""

from __future__ import annotations

import random

MAX_ATTEMPTS = 3
MAX_PAUSE_S = 5.0
"""A server that asks to be left alone for longer is left alone."""
_FIRST_PAUSE_S = 0.2
_BUDGET = 10.0
_EARNED = 0.1
_MAX_TOOLS = 1_000


class Retries:
    """Attempts within limits: a few for each call, and for each tool a budget, so that a server in trouble is not asked
    three times as often as before. Each call earns a tenth of a further attempt; ten may be saved up."""

    def __init__(self, random_: random.Random | None = None) -> None:
        self._random = random_ or random.Random()
        self._budgets: dict[str, float] = {}

    def begun(self, name: str) -> None:
        """A call of the tool `name` begins."""
        if len(self._budgets) >= _MAX_TOOLS and name not in self._budgets:
            self._budgets.clear()
        self._budgets[name] = min(_BUDGET, self._budgets.get(name, _BUDGET) + _EARNED)

    def pause_s(self, name: str, attempt: int, after_s: float | None, left_s: float) -> float | None:
        """Seconds to wait before the next attempt; None where there is to be none.

        Args:
            attempt: how many have been made, from 1.
            after_s: what the server asked for.
            left_s: seconds that the call has left.
        """
        pause = _FIRST_PAUSE_S * float(4 ** (attempt - 1)) * self._random.uniform(0.5, 1.5)
        pause = max(pause, after_s or 0.0)
        budget = self._budgets.get(name, _BUDGET)
        if attempt >= MAX_ATTEMPTS or pause > MAX_PAUSE_S or pause >= left_s or budget < 1:
            return None
        self._budgets[name] = budget - 1
        return pause
