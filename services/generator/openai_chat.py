"""A generator on any server with OpenAI's `/v1/chat/completions`, streamed.

Tool calls whose arguments are no JSON object are not passed on with made-up ones: the model is told what is wrong and
asked again, at most `_MAX_REPAIRS` times, inside the same turn. If it does not manage, the turn fails.

Text of the turn that a lost holder has stored is continued where the setting says how the server does that. Where the
server refuses, or seems to start over, it is asked from the start.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx

from baton_proto.messages import Usage
from services.common.config import GeneratorSettings
from services.common.errors import ServiceError
from services.common.llm.server import ChatServer, ContinuationRefused
from services.common.llm.stream import ChatTurn, ParsedCall
from services.common.llm.tokens import estimate_tokens
from services.common.settings import SettingsError

from .continuing import WAYS, Seam, StartedOver, Way
from .port import Calls, Continued, Event, Finish, Generator, Prompt, Text
from .prompting import Message, Prompts, load_prompts, tool_definitions

_MAX_REPAIRS = 2
_CONNECT_TIMEOUT_S = 10.0

log = logging.getLogger(__name__)


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
        server = ChatServer(client, settings)
        yield OpenAIChat(server, settings.llm_model, prompts, WAYS.get(settings.llm_continue))


class OpenAIChat:
    """Makes prompts into requests, and what comes back into the port's events.

    Args:
        way: how the server continues a message; None: it does not.
    """

    def __init__(self, server: ChatServer, model: str, prompts: Prompts, way: Way | None) -> None:
        self._server = server
        self._model = model
        self._prompts = prompts
        self._way = way

    def identity(self) -> dict[str, str]:
        return {"prompt": self._prompts.fingerprint}

    async def generate(self, prompt: Prompt) -> AsyncIterator[Event]:
        messages = self._prompts.messages(prompt)
        used = frozenset(call.call_id for turn in prompt.turns for call in turn.calls)
        usage = Usage()
        written = prompt.written
        for _ in range(1 + _MAX_REPAIRS):
            said: list[str] = []
            continued = 0
            turn = ChatTurn()
            async with aclosing(self._completion(prompt, messages, written)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, ChatTurn):
                        turn = piece
                    elif isinstance(piece, Continued):
                        said.append(written)
                        continued = estimate_tokens(written)
                        yield piece
                    else:
                        said.append(piece)
                        yield Text(piece)
            written = ""
            if turn.usage is None:
                usage = _plus(usage, _estimate(messages, said))
            else:
                # The lost holder's count went with it, and this server counts what it continued as prompt.
                usage = _plus(_plus(usage, turn.usage), Usage(completion_tokens=continued))
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

    async def _completion(
        self, prompt: Prompt, messages: list[Message], written: str
    ) -> AsyncGenerator[Continued | str | ChatTurn, None]:
        """The pieces of one completion and, last, the whole turn; behind `written` if `Continued` comes first."""
        seam = Seam(written)
        if self._way is not None and self._server.continues and seam.worth_it:
            body = self._continuing_body(prompt, messages, seam.sent, self._way)
            try:
                async with aclosing(self._continuation(body, seam)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            except ContinuationRefused:
                pass
            except StartedOver:
                log.warning("the language model repeats the beginning instead of continuing it; asked from the start")
        async with aclosing(self._server.stream(self._body(prompt, messages))) as whole:
            async for part in whole:
                yield part

    async def _continuation(self, body: dict[str, Any], seam: Seam) -> AsyncGenerator[Continued | str | ChatTurn, None]:
        """Nothing comes before `Continued`, and this not before the seam holds."""
        told = False
        async with aclosing(self._server.stream(body)) as pieces:
            async for piece in pieces:
                text = seam.flush() if isinstance(piece, ChatTurn) else seam.feed(piece)
                if seam.joined and not told:
                    told = True
                    yield Continued()
                if text:
                    yield text
                if isinstance(piece, ChatTurn):
                    yield piece

    def _continuing_body(self, prompt: Prompt, messages: list[Message], sent: str, way: Way) -> dict[str, Any]:
        body = self._body(prompt, [*messages, {"role": "assistant", "content": sent, **way.message}])
        for name in ("max_tokens", "max_completion_tokens"):
            if name in body:
                body[name] = max(1, body[name] - estimate_tokens(sent))
        return {**body, **way.body}

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
