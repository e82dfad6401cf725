"""The real generator in front of a model's server, and what it makes of an answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

from baton_proto.messages import Sampling
from services.common.config import GeneratorSettings
from services.generator.openai_chat import open_generator
from services.generator.port import Calls, Event, Finish, Generator, Prompt, Text

from .dialogues import PROMPTS, Dialogue
from .servers import ModelServer

GREEDY = Sampling(temperature=0.0)


@asynccontextmanager
async def generator(server: ModelServer, **settings: Any) -> AsyncIterator[Generator]:
    values = {"llm_url": server.url, "llm_model": server.model, "prompts": str(PROMPTS), **settings}
    async with open_generator(GeneratorSettings(**values)) as one:
        yield one


def prompt_of(dialogue: Dialogue, **fields: Any) -> Prompt:
    return replace(dialogue.prompt, **{"sampling": GREEDY, **fields})


async def ask(server: ModelServer, dialogue: Dialogue, *, settings: Any = None, **fields: Any) -> list[Event]:
    """The events of one question.

    Args:
        fields: of the prompt, other than the dialogue's.
    """
    async with (
        generator(server, **(settings or {})) as one,
        aclosing(one.generate(prompt_of(dialogue, **fields))) as events,
    ):
        return [event async for event in events]


def text(events: Sequence[Event]) -> str:
    return "".join(event.content for event in events if isinstance(event, Text))


def end(events: Sequence[Event]) -> Calls | Finish:
    last = events[-1]
    assert isinstance(last, Calls | Finish)
    return last


def called(events: Sequence[Event]) -> list[tuple[str, dict[str, Any]]]:
    last = end(events)
    assert isinstance(last, Calls), (text(events), last)
    return [(call.name, call.arguments) for call in last.calls]
