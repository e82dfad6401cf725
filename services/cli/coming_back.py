"""When to try again after a connection was lost. No I/O: what happened in, seconds to wait out."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

BASE_S, MOST_S = 0.5, 15.0
PAUSE_S = 5.0
"""Before coming back to a gateway that has too many connections."""
STABLE_S = 5.0
"""A connection that has lasted for so long was a good one: what comes next is a new outage."""
PATIENCE_S = 600.0

TOO_LARGE, GOING_AWAY, NO_TOKEN, BAD_ORIGIN, IDLE, TOO_SLOW, TOO_MANY = 1009, 1012, 4001, 4003, 4008, 4009, 4029

NO_RETURN = {
    TOO_LARGE: "the question is larger than the gateway takes",
    NO_TOKEN: "the gateway wants a valid token: give a new one with --token",
    BAD_ORIGIN: "the gateway does not allow this client's origin",
}
"""Close codes after which coming back makes no sense, with what to say."""


class ComingBack:
    """How often and how long somebody tries to come back.

    Waits have full jitter: anything up to a ceiling that doubles, so that many clients do not return in one moment.

    Args:
        patience_s: seconds without a connection that lasts, or a new frame, until it gives up.
    """

    def __init__(
        self,
        patience_s: float = PATIENCE_S,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience_s = patience_s
        self._chance = chance
        self._clock = clock
        self._tries = 0
        self._down_since: float | None = None

    @property
    def first_try(self) -> bool:
        """Whether this outage has only just begun."""
        return self._tries <= 1

    def progress(self) -> None:
        """A new frame has come: whatever happens next is a new outage."""
        self._tries = 0
        self._down_since = None

    def lost(self, code: int | None, lasted_s: float = 0.0) -> float | None:
        """Seconds to wait before the next try; None when it is time to give up.

        Args:
            code: the close code; None where the connection broke off or could not be made.
            lasted_s: how long the connection had been there.
        """
        if lasted_s >= STABLE_S:
            self.progress()
        now = self._clock()
        self._down_since = now if self._down_since is None else self._down_since
        left = self._patience_s - (now - self._down_since)
        if left <= 0:
            return None
        self._tries += 1
        wait = self._chance() * min(MOST_S, BASE_S * 2.0 ** min(self._tries - 1, 20))
        if code == TOO_MANY:
            wait += PAUSE_S
        elif code in (GOING_AWAY, IDLE) and self._tries == 1:
            wait = 0.0
        return float(min(wait, left))
