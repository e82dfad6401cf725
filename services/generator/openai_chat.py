"""A generator on any server with OpenAI's `/v1/chat/completions`, streamed.

Tool calls whose arguments are no JSON object are not passed on with made-up ones: the model is told what is wrong and
asked again, at most `_MAX_REPAIRS` times, inside the same turn. If it does not manage, the turn fails.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx

from baton_proto.messages import Usage
from services.common.config import GeneratorSettings
from services.common.errors import ServiceError
from services.common.settings import SettingsError

from .chat_server import ChatServer
from .chat_stream import ChatTurn, ParsedCall
from .port import Calls, Event, Finish, Generator, Prompt, Text
from .prompting import Message, Prompts, load_prompts, tool_definitions
from .tokens import estimate_tokens

_MAX_REPAIRS = 2
_CONNECT_TIMEOUT_S = 10.0


@asynccontextmanager
async def open_generator(settings: GeneratorSettings) -> AsyncIterator[Generator]:
    """
    Raises:
        SettingsError: no address, no model, or prompt files that cannot be used.
    """
    problems = []
    if not settings.llm_url.startswith(("http://", "https://")):
        problems.append(
            "BATON_LLM_URL: the generator `openai` needs a server's address, as in http://localhost:11434/v1"
        )
    if not settings.llm_model:
        problems.append("BATON_LLM_MODEL: the generator `openai` needs the name of a model")
    if problems:
        raise SettingsError(problems)
    prompts = load_prompts(settings.prompts)
    timeout = httpx.Timeout(None, connect=min(_CONNECT_TIMEOUT_S, settings.first_token_timeout_s))
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
    async with httpx.AsyncClient(timeout=timeout, limits=limits) as client:
        yield OpenAIChat(ChatServer(client, settings), settings.llm_model, prompts)


class OpenAIChat:
    """Makes prompts into requests, and what comes back into the port's events."""

    def __init__(self, server: ChatServer, model: str, prompts: Prompts) -> None:
        self._server = server
        self._model = model
        self._prompts = prompts

    async def generate(self, prompt: Prompt) -> AsyncIterator[Event]:
        messages = self._prompts.messages(prompt)
        used = frozenset(call.call_id for turn in prompt.turns for call in turn.calls)
        usage = Usage()
        for _ in range(1 + _MAX_REPAIRS):
            said: list[str] = []
            turn = ChatTurn()
            async with aclosing(self._server.stream(self._body(prompt, messages))) as pieces:
                async for piece in pieces:
                    if isinstance(piece, ChatTurn):
                        turn = piece
                    else:
                        said.append(piece)
                        yield Text(piece)
            usage = _plus(usage, turn.usage or _estimate(messages, said))
            calls = turn.calls(len(prompt.turns), used)
            if not calls:
                yield Finish(turn.reason, usage)
                return
            if not any(parsed.problem for parsed in calls):
                yield Calls([parsed.call for parsed in calls], usage)
                return
            if turn.reason == "length":
                yield Finish("length", usage)
                return
            messages += _repair_messages("".join(said), calls)
        raise ServiceError("model_failed", "The model called tools with arguments that make no sense.", retryable=True)

    def _body(self, prompt: Prompt, messages: Sequence[Message]) -> dict[str, Any]:
        sampling = prompt.sampling
        optional = {
            "stream_options": {"include_usage": True},
            "temperature": sampling.temperature,
            "seed": sampling.seed,
            "max_tokens": sampling.max_tokens,
            "tools": tool_definitions(prompt.tools) or None,
        }
        body: dict[str, Any] = {"model": self._model, "messages": messages, "stream": True}
        body |= {
            name: value for name, value in optional.items() if value is not None and name not in self._server.refused
        }
        if sampling.max_tokens is not None and "max_tokens" in self._server.refused:
            body["max_completion_tokens"] = sampling.max_tokens
        return body


def _repair_messages(said: str, calls: Sequence[ParsedCall]) -> list[Message]:
    """The model's calls and why none was made. The bad arguments are left out: servers refuse to read them back."""
    asked = [
        {
            "id": one.call.call_id,
            "type": "function",
            "function": {"name": one.call.name or "unknown", "arguments": "{}"},
        }
        for one in calls
    ]
    answers: list[Message] = [
        {
            "role": "tool",
            "tool_call_id": one.call.call_id,
            "content": f"Error: not called, because {one.problem or 'another call of this turn was not valid'}. "
            "Call again with one JSON object that fits the tool's parameters.",
        }
        for one in calls
    ]
    return [{"role": "assistant", "content": said or None, "tool_calls": asked}, *answers]


def _estimate(messages: Sequence[Message], said: Sequence[str]) -> Usage:
    """For servers that count nothing."""
    prompt = sum(estimate_tokens(str(message.get("content") or "")) for message in messages)
    return Usage(prompt_tokens=prompt, completion_tokens=estimate_tokens("".join(said)))


def _plus(one: Usage, other: Usage) -> Usage:
    return Usage(
        prompt_tokens=one.prompt_tokens + other.prompt_tokens,
        completion_tokens=one.completion_tokens + other.completion_tokens,
    )
