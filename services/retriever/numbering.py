"""Which numbers the passages of an answer have when a model searches again."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from baton_proto.messages import Passage, Source

from .searching import MAX_TOTAL_CHARS, cut

MAX_PASSAGES = 30
"""Most passages of one answer, those of the first search included."""


class Numbers:
    """Who has which number.

    Args:
        passages: those of the item; they keep their numbers.
        shown: the sources that a lost holder has shown already; None where it has shown none.
    """

    def __init__(self, passages: Sequence[Passage], shown: Sequence[Source] | None) -> None:
        self._known = {passage.id for passage in passages}
        self._next = max((passage.n for passage in passages), default=0) + 1
        self._count = len(passages)
        self._chars = sum(len(passage.text) for passage in passages)
        self._shown = shown

    def taken_in(self, found: Sequence[Passage]) -> list[Passage]:
        """The passages that are new, numbered; where sources have been shown already, exactly those."""
        distinct: dict[str, Passage] = {}
        for passage in found:
            if passage.id not in self._known:
                distinct.setdefault(passage.id, passage)
        if self._shown is not None:
            return [_with_text(source, distinct.get(source.id)) for source in self._shown]
        return [passage for passage in map(self._numbered, distinct.values()) if passage is not None]

    def _numbered(self, passage: Passage) -> Passage | None:
        """The passage under the next number; None where the answer has no more room."""
        passage = cut(passage)
        if self._count >= MAX_PASSAGES or self._chars + len(passage.text) > MAX_TOTAL_CHARS:
            return None
        numbered = msgspec.structs.replace(passage, n=self._next)
        self._next += 1
        self._count += 1
        self._chars += len(passage.text)
        return numbered


def _with_text(source: Source, found: Passage | None) -> Passage:
    """A source that has been shown as the passage it stands for; with its snippet where it is not found any more."""
    if found is not None:
        return msgspec.structs.replace(cut(found), n=source.n)
    return Passage(
        n=source.n,
        id=source.id,
        document_id=source.document_id,
        title=source.title,
        url=source.url,
        text=source.snippet,
        score=source.score,
        page=source.page,
        start=source.start,
        end=source.end,
    )
