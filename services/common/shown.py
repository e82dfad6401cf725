"""What a client has seen of an answer, put together from the frames of its log."""

from __future__ import annotations

from collections.abc import Iterable

from baton_proto.messages import AnswerChunk, AnswerReset, LogFrame, Source, Sources


def text_and_sources(frames: Iterable[LogFrame]) -> tuple[str, list[Source]]:
    """The answer's text as it stands behind its last reset, and all its sources."""
    text: list[str] = []
    sources: list[Source] = []
    for frame in frames:
        if isinstance(frame, AnswerChunk):
            text.append(frame.content)
        elif isinstance(frame, AnswerReset):
            text.clear()
        elif isinstance(frame, Sources):
            sources += frame.sources
    return "".join(text), sources
