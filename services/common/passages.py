"""A passage as a client sees it: a source with a short beginning of its text."""

from __future__ import annotations

from baton_proto.messages import MAX_SNIPPET_CHARS, Passage, Source


def source_of(passage: Passage) -> Source:
    """The source of a passage, under the same number."""
    return Source(
        n=passage.n,
        id=passage.id,
        document_id=passage.document_id,
        title=passage.title,
        url=passage.url,
        snippet=snippet(passage.text),
        score=passage.score,
        page=passage.page,
        start=passage.start,
        end=passage.end,
    )


def snippet(text: str) -> str:
    """The beginning of a passage in at most `MAX_SNIPPET_CHARS` characters, cut between words where it has any."""
    if len(text) <= MAX_SNIPPET_CHARS:
        return text
    cut = text[: MAX_SNIPPET_CHARS - 1]
    blank = max(cut.rfind(" "), cut.rfind("\n"))
    return (cut[:blank] if blank > MAX_SNIPPET_CHARS - 60 else cut).rstrip() + "…"
