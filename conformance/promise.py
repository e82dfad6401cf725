"""A promise of the spec as a check: what was promised, where, and what came of it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from .kit import Kit

Kind = Literal["retriever", "generator", "tools"]
KINDS: tuple[Kind, ...] = ("retriever", "generator", "tools")
Verdict = Literal["kept", "broken", "advice", "not seen"]
Check = Callable[["Kit"], Awaitable[None]]
C = TypeVar("C", bound=Check)


class Broken(Exception):
    """The worker did something else than was promised.

    Args:
        seen: what it did, as a sentence.
        section: of proto/README.md, where that is another one than the check's own.
    """

    def __init__(self, seen: str, section: str = "") -> None:
        super().__init__(seen)
        self.section = section


class InDoubt(Broken):
    """What it did may be its machine's doing, or ours: who stands still for a moment is late. It is said when it was
    seen twice."""


class Advice(Exception):
    """The worker leaves out what the spec only says it should do; the text says what its users miss by that."""


class NotSeen(Exception):
    """It could not be found out; the text says why, and how it can be."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A check. `text` is what is promised, in the words of the report.

    Attributes:
        needs_process: it kills, freezes or stops the worker, so the kit must have started it, and nothing else may run.
    """

    name: str
    section: str
    text: str
    kinds: tuple[Kind, ...]
    check: Check
    needs_process: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a promise. `seen` says it in a sentence, where it was not simply kept; of one that was kept, what
    was seen once and not again."""

    promise: Promise
    verdict: Verdict
    seconds: float
    seen: str = ""
    section: str = ""


PROMISES: list[Promise] = []
"""All that are known, in the order of their making: importing `conformance.checks` fills it."""


def promise(section: str, *kinds: Kind, needs_process: bool = False) -> Callable[[C], C]:
    """Make a check of a function; its docstring is the promise.

    Args:
        section: of proto/README.md.
        kinds: of workers that it holds for; all where none is named.
    """

    def register(check: C) -> C:
        text = " ".join((inspect.getdoc(check) or "").split())
        PROMISES.append(Promise(check.__name__, section, text, kinds or KINDS, check, needs_process))
        return check

    return register
