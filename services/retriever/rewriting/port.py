"""The rewriter's port: one method. An implementation is opened by an async context manager that a setting names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from baton_proto.messages import MAX_QUERY_BYTES, Language, PastTurn

MAX_STANDALONE_CHARS = MAX_QUERY_BYTES


class Rewriter(Protocol):
    """Puts a question so that it can be understood without the conversation before it: what is searched for.

    `history` are the earlier turns, oldest first. A question that stands alone already comes back as it is. Never
    raises for what may happen (a model that is away, nonsense from it): then a simpler way is taken. The result has at
    most `MAX_STANDALONE_CHARS` characters and is empty only where the question is. May be called concurrently.
    """

    async def rewrite(self, question: str, history: Sequence[PastTurn], language: Language) -> str: ...


def latest_question(history: Sequence[PastTurn]) -> str:
    """The last question before this one, as it was searched for; it carries what the turns before it were about."""
    return next((turn.standalone or turn.query for turn in reversed(history) if turn.query.strip()), "")
