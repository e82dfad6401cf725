"""Answers that were given before: kept as what the generator said, and said again by the same code.

What is kept are the generator's own events, piece by piece. They go through the same checks into the same frames as
when they came from the generator, so an answer from the cache has the same frames, citations and usage.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, get_args

import msgspec

from baton_proto.messages import WorkItem
from services.common.cache import Cache, digest
from services.common.config import CacheSettings
from services.common.visibility import visibility

from .citations import CitationChecker
from .port import Calls, Continued, Event, Finish, Prompt, Text

KIND = "answer"
FORMAT = 1
"""Raised when answers are looked for, or kept, in another way."""

_KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}

Said = Literal["hit", "miss", "off"]


class KeptEvent(msgspec.Struct, frozen=True, array_like=True):
    """An event of the generator's port, by the name of its class."""

    kind: str
    fields: dict[str, Any]


class KeptAnswer(msgspec.Struct, frozen=True, tag="answer.1", tag_field="form"):
    """What a generator has said in one turn without tools; its texts, by far the most, as they are."""

    events: list[str | KeptEvent]


class Answers:
    """The answers that can be given again.

    Args:
        cache: None: nothing is looked for or kept.
        release: what names the code that makes answers; another release starts with nothing.
    """

    def __init__(self, cache: Cache | None = None, settings: CacheSettings | None = None, release: str = "") -> None:
        self._cache = cache
        self._scope = (settings or CacheSettings()).cache_scope
        self._release = release

    def lookup(self, item: WorkItem, prompt: Prompt, fingerprint: str) -> Lookup:
        """One prompt's way through the cache."""
        cache = self._cache if item.cache else None
        # What tools have said was true when they said it.
        key = "" if cache is None or prompt.turns else self._key(item, prompt, fingerprint)
        return Lookup(cache, key, prompt)

    def _key(self, item: WorkItem, prompt: Prompt, fingerprint: str) -> str:
        return answer_key(prompt, fingerprint, visibility(item.owner, self._scope), self._release)


def answer_key(prompt: Prompt, fingerprint: str, seen_by: str, release: str) -> str:
    """A digest over all that an answer depends on. A passage's score and address are not told to a generator."""
    passages = [(one.n, one.id, one.title, one.heading, one.page, one.text) for one in prompt.passages]
    return digest(
        FORMAT,
        release,
        seen_by,
        fingerprint,
        prompt.question,
        prompt.standalone,
        prompt.language,
        list(prompt.history),
        passages,
        prompt.sampling,
        list(prompt.tools),
    )


class Lookup:
    """Takes what is known of a prompt's answer, or keeps what a generator says to it."""

    def __init__(self, cache: Cache | None, key: str, prompt: Prompt) -> None:
        self._cache = cache
        self._key = key
        self._prompt = prompt
        self._events: list[Event] = []
        self._whole = bool(key)
        self.said: Said = "off" if cache is None else "miss"

    async def events(self) -> AsyncIterator[Event] | None:
        """The answer as its generator gave it; None where it is not known, or where it is not what the user has on the
        screen already: a lost holder had begun another one."""
        if self._cache is None or not self._key:
            return None
        kept = await self._cache.get(KIND, self._key, KeptAnswer)
        if kept is None:
            return None
        try:
            events = _unpacked(kept)
        except (KeyError, msgspec.ValidationError):
            return None  # an event that only another version knows
        if not _go_on_from(events, self._prompt):
            return None
        self.said = "hit"
        return _each(events)

    def heard(self, event: Event) -> None:
        """What the generator says, each event in its turn."""
        if isinstance(event, (Continued, Calls)):
            self._whole = False
        if self._whole:
            self._events.append(event)

    def keep(self) -> None:
        """The answer is in the log: keep it, if the same prompt may be given it again."""
        if self._cache is None or not self._whole or self.said == "hit" or not self._events:
            return
        finish = self._events[-1]
        if not isinstance(finish, Finish):
            return
        cut_as_asked = finish.reason == "length" and self._prompt.sampling.max_tokens is not None
        if finish.reason == "stop" or cut_as_asked:
            self._cache.put(KIND, self._key, _packed(self._events))


def _packed(events: Sequence[Event]) -> KeptAnswer:
    return KeptAnswer(
        events=[
            event.content
            if isinstance(event, Text)
            else KeptEvent(type(event).__name__, msgspec.to_builtins(_fields(event)))
            for event in events
        ]
    )


def _fields(event: Event) -> dict[str, Any]:
    return {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}


def _unpacked(kept: KeptAnswer) -> list[Event]:
    """Raises KeyError or ValidationError for what is no event of this version."""
    return [
        Text(event) if isinstance(event, str) else msgspec.convert(event.fields, _KINDS[event.kind])
        for event in kept.events
    ]


async def _each(events: Sequence[Event]) -> AsyncIterator[Event]:
    for event in events:
        yield event


def _go_on_from(events: Sequence[Event], prompt: Prompt) -> bool:
    """Whether an answer, checked as it will be when it is said again, goes on from what is written."""
    if not prompt.written:
        return True
    checker = CitationChecker(passage.n for passage in prompt.passages)
    said = "".join(event.content for event in events if isinstance(event, Text))
    return (checker.feed(said.lstrip()) + checker.flush()).startswith(prompt.written)
