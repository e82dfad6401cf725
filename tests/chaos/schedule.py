"""Which process is hurt when, and how: a pure function of seed, duration and form.

A process is *away* from the moment it is hurt until it serves again; the plan counts `RECOVERY_S` for the second part.
Of each service at most one is away by plan, and of all of them at most `MOST_AWAY`; of NATS one server at a time, with
`NATS_SPACING_S` in between. The injector keeps the same bounds where a recovery takes longer than planned.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Kind = Literal["kill", "term", "freeze", "freeze+term"]
KINDS: tuple[Kind, ...] = ("kill", "term", "freeze", "freeze+term")

WORKERS = ("retriever", "generator", "tools")
SERVICES = ("gateway", *WORKERS)
EACH = dict.fromkeys(SERVICES, 2)
"""Processes of each service."""
CLUSTER = ("nats-0", "nats-1", "nats-2")

FIRST_S = 1.5
MOST_AWAY = 2
NATS_SPACING_S = {False: 20.0, True: 30.0}
"""By form: one server, or three that must have caught up with each other first."""
RECOVERY_S = {"gateway": 6.0, "retriever": 8.0, "generator": 7.0, "tools": 6.0, "nats": 6.0}
FREEZE_S = (6.5, 11.0)
"""Longer than a redelivery, which comes 5 s after the last renewal."""
DOWN_S = (0.3, 2.5)
NATS_DOWN_S = {False: ((0.3, 2.5), (4.5, 9.0)), True: ((2.0, 8.0),)}
"""By form. A restart of the only server is an outage for all: a short one, or longer than leases and presence last."""

_DECK: tuple[tuple[Kind, str], ...] = (
    *[("kill", service) for service in SERVICES],
    ("kill", "generator"),
    *[("term", service) for service in SERVICES],
    *[("freeze", service) for service in WORKERS],
    ("freeze", "generator"),
    *[("freeze+term", service) for service in WORKERS],
    ("kill", "nats"),
    ("term", "nats"),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """`kind` happens to the process `target` at `at_s`; `for_s` later it is started, or woken. A frozen one may be
    told to end in the moment in which it wakes.
    """

    at_s: float
    kind: Kind
    target: str
    for_s: float

    @property
    def service(self) -> str:
        return self.target.partition("-")[0]

    @property
    def over_s(self) -> float:
        """When it should serve again."""
        return self.at_s + self.for_s + (1.0 if self.kind == "freeze" else RECOVERY_S[self.service])

    def __str__(self) -> str:
        return f"{self.at_s:7.1f} s  {self.kind:<11} {self.target:<12} for {self.for_s:.1f} s"


def plan(seed: int, duration_s: float, *, cluster: bool = False, every_s: float = 4.0) -> list[Fault]:
    """The faults of a run, in order.

    Args:
        duration_s: for so long clients ask questions; the last faults are over a little earlier.
        every_s: the mean time between two faults; the bounds on what is away at once may make it longer.
    """
    dice = random.Random(f"faults {seed}")
    faults: list[Fault] = []
    deck: list[tuple[Kind, str]] = []
    at_s = FIRST_S
    while at_s < duration_s:
        if not deck:
            deck = dice.sample(_DECK, len(_DECK))
        found = next((card for card in deck if _allowed(card[1], at_s, faults, cluster)), None)
        if found is not None:
            fault = _fault(found, at_s, faults, cluster, dice)
            deck.remove(found)
            if fault.at_s + fault.for_s < duration_s:
                faults.append(fault)
        at_s = round(at_s + dice.uniform(0.3, 1.7) * every_s, 2)
    return faults


def _allowed(service: str, at_s: float, faults: list[Fault], cluster: bool) -> bool:
    if service == "nats":
        return all(fault.over_s + NATS_SPACING_S[cluster] < at_s for fault in faults if fault.service == "nats")
    away = [fault.service for fault in faults if fault.service != "nats" and fault.over_s > at_s]
    return service not in away and len(away) < MOST_AWAY


def _fault(card: tuple[Kind, str], at_s: float, faults: list[Fault], cluster: bool, dice: random.Random) -> Fault:
    kind, service = card
    between = DOWN_S if kind in ("kill", "term") else FREEZE_S
    if service == "nats":
        between = dice.choice(NATS_DOWN_S[cluster])
    return Fault(at_s, kind, _target(service, cluster, dice), round(dice.uniform(*between), 1))


def _target(service: str, cluster: bool, dice: random.Random) -> str:
    if service == "nats":
        return dice.choice(CLUSTER) if cluster else "nats"
    return f"{service}-{dice.randrange(EACH[service])}"
