"""Asks a question again, each time in a conversation of its own, until a variant of the workers has answered it.

The gateway gives a variant by the conversation, so who asks cannot choose one; but a new conversation is a new draw."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .measures import Answered

TRIES = 40
"""Of a variant with a tenth of the conversations, one question in seventy is missed by so many."""
MOST_FAILED = 3
"""Answers to one question that may fail: who is down is not asked forty times."""
_HOPELESS = 10
_MOST_NAMED = 10


@dataclass
class Reaching:
    """Wants answers of `variant`, with at most `tries` for each question. `missed` says of the questions that did not
    get one why, by their id."""

    variant: str
    tries: int
    asked: int = 0
    reached: int = 0
    missed: dict[str, str] = field(default_factory=dict)

    async def answer(self, id: str, ask: Callable[[], Awaitable[Answered]]) -> Answered | None:
        """The first answer of the variant, also one that failed while it tried it, or None."""
        failed: list[str] = []
        tried = 0
        while tried < self.tries and len(failed) < MOST_FAILED and not self._hopeless:
            tried += 1
            self.asked += 1
            one = await ask()
            if one.variant == self.variant:
                self.reached += 1
                return one
            if one.failed:
                failed.append(one.failed)
        said = f", {len(failed)} of them failed, the last with: {failed[-1]}" if failed else ""
        self.missed[id] = f"{tried} tries{said}"
        return None

    @property
    def _hopeless(self) -> bool:
        return not self.reached and self.asked >= _HOPELESS * self.tries


def unreached(run: Mapping[str, Any]) -> list[str]:
    """A sentence about the questions of a record that did not reach their variant, if there are any."""
    missed: Mapping[str, str] = run.get("unreached") or {}
    if not missed:
        return []
    named = "; ".join(f"{id} ({why})" for id, why in list(missed.items())[:_MOST_NAMED])
    more = f"; and {len(missed) - _MOST_NAMED} more" if len(missed) > _MOST_NAMED else ""
    return [
        f"{run['name']}: {len(missed)} questions were not answered by this variant and are left out: {named}{more}."
    ]
