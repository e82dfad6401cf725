"""The generator's port: one method. An implementation is opened by an async context manager that a setting names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from baton_proto.messages import (
    FinishReason,
    Language,
    Passage,
    PastTurn,
    Sampling,
    ToolCall,
    ToolSpec,
    ToolTurn,
    Usage,
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """All that an answer may be made of.

    `language` is the question's, in which the answer is given. `passages` are numbered; `[n]` in the answer cites
    passage n. Those that a result in `turns` names (its `passages`) were found by that call. `turns` are the rounds of
    tool calls that are over, oldest first. `tools` are those that a live worker serves now and the user may call; empty
    means none may be called. `sampling` is what the request asks for, the settings and the preset together.

    `history` are the conversation's earlier turns, oldest first, as many as fit. `standalone` is the question put so
    that it can be understood without them: what was searched for.

    `written` is what a holder that was lost has stored of this turn's text, its citations checked: the user has it on
    the screen. A generator that can, goes on from there and says so by `Continued`; one that ignores it stays correct.
    """

    question: str
    language: Language
    passages: Sequence[Passage] = ()
    tools: Sequence[ToolSpec] = ()
    turns: Sequence[ToolTurn] = ()
    sampling: Sampling = field(default_factory=Sampling)
    written: str = ""
    history: Sequence[PastTurn] = ()
    standalone: str = ""


@dataclass(frozen=True, slots=True)
class Continued:
    """What comes now goes on right behind `Prompt.written` and does not repeat it. At most once, before any `Text`; the
    usage at the end counts `written` too, estimated where it has to be."""


@dataclass(frozen=True, slots=True)
class Offered:
    """The numbers of the passages that the model reads, where it does not read all of `Prompt.passages`: only these may
    be cited from here on."""

    passages: frozenset[int]


@dataclass(frozen=True, slots=True)
class Thinking:
    """The model reasons, and nothing of its answer comes yet; the user is told so."""


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer, in order; it is shown as it comes and never taken back."""

    content: str


@dataclass(frozen=True, slots=True)
class Calls:
    """The generator wants these tools called and ends here; it is asked again with the results in `Prompt.turns`."""

    calls: Sequence[ToolCall]
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class Finish:
    """The answer is complete."""

    reason: FinishReason = "stop"
    usage: Usage = field(default_factory=Usage)


Event = Offered | Thinking | Continued | Text | Calls | Finish


class Generator(Protocol):
    """Writes one turn of an answer: any number of `Text`, then exactly one `Calls` or `Finish`. The text is the whole
    turn's, from its start, unless `Continued` comes before it. `Offered` and `Thinking` may come at any time.

    Raises `ServiceError` with `model_failed` or `model_stalled`. Closing the iterator must stop the work at once and
    close what it had open. May be called concurrently.
    """

    def generate(self, prompt: Prompt) -> AsyncIterator[Event]: ...


@runtime_checkable
class Identified(Protocol):
    """A generator that says what its answers depend on, for their fingerprint: `model` (shown as a name; where it is
    absent, the model of the settings), `prompt` (a digest of its prompts), and whatever else there is. Without it a
    generator is known by its name and model in the settings, and whoever changes its code must expect its earlier
    answers from the cache."""

    def identity(self) -> Mapping[str, str]: ...
