"""What is measured and traced of one call of a generator: the seam, so that no implementation has to."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator

import msgspec

from services.common import metrics, tracing
from services.common.config import GeneratorSettings

from .port import Calls, Finish, Prompt


class Watch:
    """One call. Without a span it is that of an answer that was kept: no model is at work, so nothing is measured."""

    def __init__(self, span: tracing.Span | None = None) -> None:
        self._span = span
        self._started = self._last = time.perf_counter()
        self._first = True

    def text(self) -> None:
        """A piece of text has come: once per token, so this is all that is done then."""
        if self._span is None:
            return
        now = time.perf_counter()
        if self._first:
            self._first = False
            self._span.set("gen_ai.response.time_to_first_chunk", round(now - self._started, 6))
        else:
            metrics.TOKEN_GAP.observe(now - self._last)
        self._last = now

    def ended(self, event: Calls | Finish, said: str) -> None:
        if self._span is None:
            return
        reason = event.reason if isinstance(event, Finish) else "tool_calls"
        self._span.set("gen_ai.response.finish_reasons", [reason])
        self._span.set("gen_ai.usage.input_tokens", event.usage.prompt_tokens)
        self._span.set("gen_ai.usage.output_tokens", event.usage.completion_tokens)
        self._span.content("gen_ai.output.messages", lambda: _messages("assistant", said))


@contextlib.asynccontextmanager
async def watching(prompt: Prompt, settings: GeneratorSettings, *, kept: bool) -> AsyncIterator[Watch]:
    """Around one call.

    Args:
        kept: the answer was given before, so there is no call.
    """
    if kept:
        yield Watch()
        return
    model, sampling = settings.llm_model or settings.generator, prompt.sampling
    about: dict[str, tracing.Value | None] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai" if settings.generator == "openai" else "baton",
        "gen_ai.request.model": model,
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": sampling.max_tokens,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.seed": sampling.seed,
        "baton.passages": len(prompt.passages),
        "baton.tool_rounds": len(prompt.turns),
    }
    with tracing.span(f"chat {model}", kind="client", attributes=about) as span:
        span.content("gen_ai.input.messages", lambda: _messages("user", prompt.question))
        yield Watch(span)


def _messages(role: str, text: str) -> str:
    """As the conventions write messages down."""
    return msgspec.json.encode([{"role": role, "parts": [{"type": "text", "content": text}]}]).decode()
