"""A generator without a model: it quotes the sentences of the passages that answer the question, and cites them.

The same prompt gives the same answer, on every machine. It is what Baton answers with until a language model is
configured, and what tests and demonstrations can rely on.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

from baton_proto.messages import ToolCall, Usage
from services.common.config import GeneratorSettings
from services.common.llm.tokens import estimate_tokens

from .port import Calls, Event, Finish, Generator, Prompt, Text
from .quoting import words
from .quoting.composition import no_answer, quote
from .quoting.tool_results import describe_results
from .quoting.tool_rules import wanted_calls

VERSION = 2
"""Raised when the same prompt may get another answer."""

# A citation stays whole, Chinese comes by two characters, anything else by words.
_PIECE = re.compile(
    r"\[\d+\]\s*|[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]{1,2}\s*|[^\s\u3000-\u30ff\u3400-\u9fff\uff00-\uffef\[]+\s*|.\s*",
    re.S,
)


@asynccontextmanager
async def open_generator(settings: GeneratorSettings) -> AsyncIterator[Generator]:
    """Loads the Chinese dictionary first, which takes about a second, so that no question waits for it."""
    await asyncio.to_thread(words.load)
    yield Extractive(settings.chunk_delay_ms / 1000)


class Extractive:
    """Args:
    delay_s: seconds between the pieces of an answer.
    """

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s

    def identity(self) -> dict[str, str]:
        return {"model": f"v{VERSION}", "prompt": "none"}

    async def generate(self, prompt: Prompt) -> AsyncIterator[Event]:
        prompt_tokens = _prompt_tokens(prompt)
        calls = _wanted(prompt)
        if calls:
            yield Calls(calls, Usage(prompt_tokens=prompt_tokens))
            return
        answer, cut = _within(_until(answer_text(prompt), prompt.sampling.stop or ()), prompt.sampling.max_tokens)
        said = 0
        for piece in pieces(answer):
            # What a lost holder has shown already is said again at once: nobody sees it, and the user is waiting.
            if self._delay_s and said and said >= len(prompt.written):
                await asyncio.sleep(self._delay_s)
            said += len(piece)
            yield Text(piece)
        usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=estimate_tokens(answer))
        yield Finish("length" if cut else "stop", usage)


def _wanted(prompt: Prompt) -> list[ToolCall]:
    """The tool that the question asks for, as it can be understood alone or as it was put."""
    return wanted_calls(_asked(prompt), prompt.tools, prompt.turns) or wanted_calls(
        prompt.question, prompt.tools, prompt.turns
    )


def answer_text(prompt: Prompt) -> str:
    """The whole answer: what the tools gave, then what the passages say, or that they do not answer."""
    results = describe_results(prompt)
    if results is not None:
        return results
    quoted = quote(_asked(prompt), prompt.language, prompt.passages)
    return quoted or no_answer(_asked(prompt), prompt.language, prompt.passages)


def _asked(prompt: Prompt) -> str:
    """The question as it can be understood alone: the sentences of a follow-up are chosen by what it is about."""
    return prompt.standalone or prompt.question


def pieces(text: str) -> Iterator[str]:
    """The text in the small pieces in which it is streamed."""
    for piece in _PIECE.finditer(text):
        yield piece[0]


def _until(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the texts that shall end it."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def _within(text: str, max_tokens: int | None) -> tuple[str, bool]:
    """The text up to `max_tokens`, and whether something had to go."""
    if max_tokens is None:
        return text, False
    kept, tokens = 0, 0
    for piece in pieces(text):
        tokens += estimate_tokens(piece)
        if tokens > max_tokens:
            return text[:kept].rstrip(), True
        kept += len(piece)
    return text, False


def _prompt_tokens(prompt: Prompt) -> int:
    texts = [prompt.question, *(passage.text for passage in prompt.passages)]
    texts += [result.content for turn in prompt.turns for result in turn.results]
    return sum(map(estimate_tokens, texts))
