"""Breadth first through every state within the bounds: the shortest counterexample, or the certainty of none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from . import gateway, worker
from .bounds import Bounds
from .properties import PROPERTIES, at_rest, broken
from .rules import Rules
from .state import Late, State, Step


@dataclass(frozen=True, slots=True)
class Found:
    """A run that breaks a property."""

    breaks: str
    trace: list[tuple[str, State]]

    def __str__(self) -> str:
        lines = [f"{self.breaks}: {PROPERTIES[self.breaks]}"]
        before = ""
        for what, state in self.trace:
            log = state.kinds
            lines.append(f"  {what}{f'  [log {log}]' if log != before else ''}")
            before = log
        shown = ", ".join(reader.shown for reader in self.trace[-1][1].readers)
        return "\n".join([*lines, f"  In the end: log {before}, shown {shown}."])


@dataclass(slots=True)
class Search:
    """All states that can be reached, each with how it was reached first."""

    rules: Rules
    bounds: Bounds
    states: list[State] = field(default_factory=list)
    came: list[tuple[int, str]] = field(default_factory=list)
    certain: list[list[int]] = field(default_factory=list)

    def run(self) -> Found | None:
        """The shortest run that breaks something, or None if there is none within the bounds."""
        index = {self.bounds.start(): 0}
        self.states, self.came, self.certain = list(index), [(-1, "a request is accepted")], []
        by_the_rules = self.rules == Rules()
        for at, state in enumerate(self.states):
            following: list[int] = []
            for step in _steps(state, self.rules, self.bounds):
                then = _without_dead_letters(step.then) if by_the_rules and step.then.late else step.then
                known = index.setdefault(then, len(self.states))
                if known == len(self.states):
                    self.states.append(then)
                    self.came.append((at, step.what))
                    breaks = broken(then, self.bounds)
                else:
                    breaks = None
                if then.log is not state.log and then.log[: len(state.log)] != state.log:
                    breaks = "changed"
                if breaks is not None:
                    return self._found(breaks, known, (at, step.what))
                if step.certain and known != at:
                    following.append(known)
            self.certain.append(following)
        return self._stuck()

    def _stuck(self) -> Found | None:
        """A state in which nothing is certain to happen any more though all is not well, or a circle of such steps."""
        resting = {at: at_rest(self.states[at]) for at, following in enumerate(self.certain) if not following}
        for wrong in ("stuck", "left"):
            for at, what in resting.items():
                if what == wrong:
                    return self._found(wrong, at, self.came[at])
        circle = _on_a_circle(self.certain)
        return None if circle is None else self._found("stuck", circle, self.came[circle])

    def _found(self, breaks: str, at: int, came: tuple[int, str]) -> Found:
        trace = []
        while at >= 0:
            trace.append((came[1], self.states[at]))
            at = came[0]
            came = self.came[at]
        return Found(breaks, trace[::-1])


def _steps(state: State, rules: Rules, bounds: Bounds) -> Iterator[Step]:
    yield from worker.steps(state, rules, bounds)
    yield from gateway.steps(state, rules, bounds)


def _without_dead_letters(state: State) -> State:
    """Without the late messages that, by the rules, can never change anything again: fewer states to look at."""
    queue = {(copy.ref, copy.n) for copy in state.queue}

    def alive(message: Late) -> bool:
        if message.what == "append":
            return message.expected >= len(state.log)
        return message.what == "publish" or (message.ref, message.n) in queue

    return state._replace(late=tuple(message for message in state.late if alive(message)))


def _on_a_circle(edges: list[list[int]]) -> int | None:
    """A node on a circle, by taking away, again and again, what leads nowhere."""
    incoming: list[list[int]] = [[] for _ in edges]
    left = [len(following) for following in edges]
    for at, following in enumerate(edges):
        for then in following:
            incoming[then].append(at)
    ready = [at for at, count in enumerate(left) if count == 0]
    for at in ready:
        for before in incoming[at]:
            left[before] -= 1
            if left[before] == 0:
                ready.append(before)
    return next((at for at, count in enumerate(left) if count), None)
