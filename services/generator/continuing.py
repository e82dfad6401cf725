"""Going on from an assistant message that another generator process had begun, without I/O.

Servers are asked for it in different ways, and some do it a little differently than one would think. What each way
relies on is in docs/models.md, with its sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MIN_CHARS = 8
"""Shorter beginnings are not continued: too little would be saved, and a repetition could not be told from chance."""
OVERLAP_CHARS = 16
"""A continuation that repeats so much of the beginning and then says something else has probably started over."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a server is asked: further fields of the final assistant message, and of the request."""

    message: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)


WAYS: dict[str, Way] = {
    "vllm": Way(body={"continue_final_message": True, "add_generation_prompt": False}),
    "prefix": Way(message={"prefix": True}),
    "partial": Way(message={"partial": True}),
    "plain": Way(),
}


class StartedOver(Exception):
    """The server seems to have begun a new message instead of continuing."""


class Seam:
    """Joins what a server sends to the text that is there.

    White space at the end of a message is trimmed by some servers and chat templates and confuses tokenizers, so it is
    not sent; the model writes it again, and here it is passed over. A server that repeats the message before it goes on
    has the repetition passed over, too. One that repeats only a part and then says something else is not believed.

    Args:
        written: the text that is there, beginning without white space; `sent` is the part of it to send.
    """

    def __init__(self, written: str) -> None:
        self.sent = written.rstrip()
        self.joined = False
        self._space = written[len(self.sent) :]
        self._held = ""
        self._at_start = True

    @property
    def worth_it(self) -> bool:
        return len(self.sent) >= MIN_CHARS

    def feed(self, text: str) -> str:
        """The text behind `written` that is now certain.

        Raises:
            StartedOver: ask from the start instead.
        """
        if self.joined:
            return text
        self._held += text
        if self._at_start and not self._begun():
            return ""
        if len(self._held) < len(self._space) and self._space.startswith(self._held):
            return ""
        return self._join()

    def flush(self) -> str:
        """The rest, at the end of the stream. Raises as `feed` does."""
        if self.joined:
            return ""
        if self._at_start and len(self._held.strip()) >= OVERLAP_CHARS:
            raise StartedOver
        return self._join()

    def _begun(self) -> bool:
        """Whether it is clear what the beginning is; a repetition has been taken off then."""
        begun = self._held.lstrip()
        if len(begun) < len(self.sent) and self.sent.startswith(begun):
            return False
        if begun.startswith(self.sent):
            self._held = begun[len(self.sent) :]
        elif _alike(begun, self.sent) >= OVERLAP_CHARS:
            raise StartedOver
        self._at_start = False
        return True

    def _join(self) -> str:
        self.joined = True
        held, self._held = self._held, ""
        return held[_alike(held, self._space) :]


def _alike(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
