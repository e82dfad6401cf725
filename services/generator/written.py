"""How an answer goes into the log, also when another worker wrote its beginning."""

from __future__ import annotations

from collections.abc import Sequence

from baton_proto.messages import AnswerChunk, AnswerReset, LogFrame, Status
from services.common.clock import from_rfc3339
from services.common.job import Job

_MAX_CHUNK_CHARS = 64 * 1024


class AnswerLog:
    """Writes an answer's text as `answer_chunk` frames, going on from what an earlier holder of this item stored.

    As long as new text repeats the stored text it is passed over, so a generator that says the same again continues
    exactly where the other was cut off. Where the generator goes on from the stored text instead, that text is said
    here in its place. At the first difference the answer is started again: `answer_reset`, the text of the turns
    before this item, then all of this item's text.

    Args:
        earlier: the text of the answer's turns before this item; the client has it, or has lost it by a reset.
    """

    def __init__(self, job: Job, earlier: str) -> None:
        self._job = job
        self._earlier = earlier
        self._said: list[str] = []
        frames = list(job.written)
        resets = [at for at, frame in enumerate(frames) if isinstance(frame, AnswerReset)]
        last = resets[-1] + 1 if resets else 0
        self._stored = "".join(frame.content for frame in frames[last:] if isinstance(frame, AnswerChunk))
        self._passed = 0
        self._was_reset = bool(resets)
        self.first_chunk_ms = first_chunk_ms(frames)
        self.stored_ms = generating_ms(frames[last:])

    @property
    def ahead(self) -> str:
        """The stored text that has not been repeated yet."""
        return self._stored[self._passed :]

    async def open(self) -> None:
        """After an earlier holder's reset, the earlier turns' text is part of what has to follow it."""
        if self._was_reset:
            await self._put(self._earlier)

    async def say(self, text: str) -> None:
        """The next piece of this item's text."""
        if text:
            self._said.append(text)
            await self._put(text)

    async def close(self) -> None:
        """The turn is over; stored text that it did not repeat has to go."""
        if self._passed < len(self._stored):
            await self._reset()

    async def _put(self, text: str) -> None:
        ahead = self.ahead
        if ahead.startswith(text):
            self._passed += len(text)
        elif text.startswith(ahead):
            self._passed = len(self._stored)
            await self._write(text[len(ahead) :])
        else:
            await self._reset()

    async def _reset(self) -> None:
        self._stored, self._passed = "", 0
        await self._job.write(AnswerReset())
        await self._write(self._earlier)
        await self._write("".join(self._said))

    async def _write(self, text: str) -> None:
        """A frame has a largest size; only servers that do not stream come near it."""
        for start in range(0, len(text), _MAX_CHUNK_CHARS):
            await self._job.write(AnswerChunk(content=text[start : start + _MAX_CHUNK_CHARS]))


def generating_ms(frames: Sequence[LogFrame]) -> int:
    """How long an earlier holder was at its text: from its `generating` status, or its first chunk, to its last one."""
    at = [
        from_rfc3339(frame.timestamp)
        for frame in frames
        if frame.timestamp and (isinstance(frame, AnswerChunk) or _says_generating(frame))
    ]
    return max(0, at[-1] - at[0]) if at else 0


def first_chunk_ms(frames: Sequence[LogFrame]) -> int | None:
    """When the first of the stored chunks was written, in milliseconds since the epoch."""
    for frame in frames:
        if isinstance(frame, AnswerChunk) and frame.timestamp:
            return from_rfc3339(frame.timestamp)
    return None


def has_status(frames: Sequence[LogFrame]) -> bool:
    return any(map(_says_generating, frames))


def _says_generating(frame: LogFrame) -> bool:
    return isinstance(frame, Status) and frame.stage == "generating"
