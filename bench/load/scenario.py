"""What the users of a load test do. A scenario file is TOML with these fields; what it leaves out has the default."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

QUESTIONS = (
    "How many days of annual leave do I get?",
    "公司年假政策有哪些？",
    "Up to how much is a hotel reimbursed?",
    "年假可以结转到下一年吗？",
    "How do I connect from home?",
    "病假需要提交什么材料？",
)


class BadScenario(Exception):
    """The text says what is wrong and how to put it right."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Times are seconds, shares are 0 to 1.

    Attributes:
        connections: sockets that are open all the time.
        running: answers that are to run at once, on average.
        answer_s: how long an answer takes; with `running` it gives the arrivals (Little's law). On a system that the
            test starts, so many tokens come at `tokens_per_s`.
        tokens_per_s: pace of the generator of a system that the test starts.
        warm_up_s: at the beginning, not measured.
        duration_s: measured, behind the warm-up.
        follow_ups: share of answers after which the same user asks on, in the same conversation.
        think_s: mean time before that, exponential.
        slow_readers: share of connections that read nothing for `slow_s` out of every three times that.
        reconnects: share of answers in the midst of which the connection breaks; the user comes back and resumes.
        questions: what is asked, in turn.
        seed: of everything that is left to chance.
    """

    connections: int = 5_000
    running: int = 200
    answer_s: float = 10.0
    tokens_per_s: float = 30.0
    warm_up_s: float = 15.0
    duration_s: float = 60.0
    follow_ups: float = 0.2
    think_s: float = 3.0
    slow_readers: float = 0.02
    slow_s: float = 2.0
    reconnects: float = 0.05
    questions: tuple[str, ...] = QUESTIONS
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("follow_ups", "slow_readers", "reconnects"):
            if not 0 <= getattr(self, name) <= 0.95:
                raise BadScenario(f"{name}: expected a share from 0 to 0.95, got {getattr(self, name)}")
        for name in ("connections", "running", "answer_s", "tokens_per_s", "duration_s", "think_s", "slow_s"):
            if not getattr(self, name) > 0:
                raise BadScenario(f"{name}: expected more than 0, got {getattr(self, name)}")
        if self.warm_up_s < 0:
            raise BadScenario(f"warm_up_s: expected 0 or more, got {self.warm_up_s}")
        if self.running > self.connections:
            raise BadScenario(f"running: {self.running} answers at once need as many connections; lower it")
        if not self.questions:
            raise BadScenario("questions: expected at least one")

    @property
    def arrivals_per_s(self) -> float:
        """New conversations a second; follow-ups come on top of them."""
        return self.running / self.answer_s * (1 - self.follow_ups)

    def arrivals(self) -> Iterator[float]:
        """Seconds at which a question comes, from the start to the end: a Poisson process."""
        chance = random.Random(self.seed)
        at = chance.expovariate(self.arrivals_per_s)
        while at < self.warm_up_s + self.duration_s:
            yield at
            at += chance.expovariate(self.arrivals_per_s)


def read(path: Path) -> Scenario:
    """Raises BadScenario."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadScenario(f"{path}: {error.strerror or error}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadScenario(f"{path}: no TOML: {error}") from None
    kinds = {one.name: type(one.default) for one in fields(Scenario)}
    unknown = sorted(raw.keys() - kinds.keys())
    if unknown:
        raise BadScenario(f"{path}: unknown {', '.join(unknown)}; there are {', '.join(kinds)}")
    for name, value in raw.items():
        kind = kinds[name]
        fits = isinstance(value, (int, float)) if kind is float else isinstance(value, list if kind is tuple else kind)
        if not fits or isinstance(value, bool):
            raise BadScenario(f"{path}: {name}: expected {_WORDS[kind]}, got {value!r}")
    if "questions" in raw:
        raw["questions"] = tuple(map(str, raw["questions"]))
    try:
        return Scenario(**raw)
    except BadScenario as error:
        raise BadScenario(f"{path}: {error}") from None


_WORDS = {int: "a whole number", float: "a number", tuple: "a list of texts"}
