"""What a client does with a request besides reading it: a pure function of seed, client and number."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Leave:
    """After `after` frames of this request the client drops its connection, and comes back `away_s` later.

    It then asks for the frames after the last one it has, or for `rewind` of those again; with `by_query` it sends the
    query once more instead. With `stay` it asks so on the connection that it has.
    """

    after: int
    away_s: float
    rewind: int = 0
    by_query: bool = False
    stay: bool = False


@dataclass(frozen=True, slots=True)
class Second:
    """When frame `after` has come, another client attaches to the request, from the frame `from_seq` on."""

    after: int
    from_seq: int
    leave: Leave | None


@dataclass(frozen=True, slots=True)
class Habit:
    question: int
    leaves: tuple[Leave, ...] = ()
    cancel_after: int | None = None
    """Cancel when this frame has come."""
    second: Second | None = None
    slow_s: float = 0.0
    """Pause after each frame."""
    think_s: float = 0.0
    """Pause before the question."""
    again: bool = False
    """Another client reads the whole log once more when it has ended."""


LONG = 60
"""About the frames of an answer; what is planned for later than its end does not happen."""


def habit(seed: int, client: int, number: int, questions: int) -> Habit:
    dice = random.Random(f"client {seed} {client} {number}")
    leaves = sorted((_leave(dice) for _ in range(dice.choice((0, 0, 0, 0, 1, 1, 2, 3)))), key=lambda leave: leave.after)
    second = None
    if dice.random() < 0.1:
        after = dice.randrange(1, LONG)
        second = Second(after, dice.randrange(after), _leave(dice) if dice.random() < 0.5 else None)
    return Habit(
        question=dice.randrange(questions),
        leaves=tuple(leaves),
        cancel_after=dice.randrange(LONG) if dice.random() < 0.07 else None,
        second=second,
        slow_s=dice.uniform(0.02, 0.1) if dice.random() < 0.07 else 0.0,
        think_s=round(dice.uniform(0.0, 1.0), 3),
        again=dice.random() < 0.05,
    )


def _leave(dice: random.Random) -> Leave:
    return Leave(
        after=dice.randrange(LONG),
        away_s=round(dice.choice((0.0, dice.uniform(0.0, 0.5), dice.uniform(0.5, 3.0))), 2),
        rewind=dice.choice((0, 0, 0, dice.randrange(1, LONG))),
        by_query=dice.random() < 0.15,
        stay=dice.random() < 0.15,
    )
