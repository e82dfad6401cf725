"""A generator on any server with OpenAI's `/v1/chat/completions`, streamed.

The prompt fits a budget. Where a server refuses it all the same because it is too long, it is asked again with less, as
long as nothing of the answer has come.

Tool calls whose arguments are no JSON object are not passed on with made-up ones: the model is told what is wrong and
asked again, at most `_MAX_REPAIRS` times, inside the same turn. If it does not manage, the turn fails.

Text of the turn that a lost holder has stored is continued where the setting says how the server does that. Where the
server refuses, or seems to start over, it is asked from the start.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import msgspec

from baton_proto.messages import Usage
from services.common.config import GeneratorSettings
from services.common.errors import ServiceError
from services.common.llm.errors import ContentFiltered, ContextOverflow
from services.common.llm.server import ChatServer, ContinuationRefused
from services.common.llm.stream import ChatTurn, ParsedCall
from services.common.llm.stream import Thinking as Reasoning
from services.common.llm.tokens import count_tokens, estimate_tokens
from services.common.settings import SettingsError

from .asking import Asking, asking_of
from .budget import Budget, DoesNotFit, Fitted, fit, prompt_tokens
from .continuing import Seam, StartedOver, Way
from .port import Calls, Continued, Event, Finish, Generator, Offered, Prompt, Text, Thinking
from .prompting import Message, Prompts, load_prompts, tool_definitions
from .shrinking import MAX_SHRINKS, smaller

_MAX_REPAIRS = 2
_CONNECT_TIMEOUT_S = 10.0
# A server that counts less than this part of what was sent has cut it: for Chinese and English our own count is never
# so much too high.
_SILENTLY_CUT = 0.4
_SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "max_tokens")

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_generator(settings: GeneratorSettings) -> AsyncIterator[Generator]:
    """
    Raises:
        SettingsError: no address, no model, or further fields or prompt files that cannot be used.
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
    asking = asking_of(settings)
    prompts = load_prompts(settings.prompts)
    timeout = httpx.Timeout(None, connect=min(_CONNECT_TIMEOUT_S, settings.first_token_timeout_s))
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
    async with httpx.AsyncClient(timeout=timeout, limits=limits) as client:
        yield OpenAIChat(ChatServer(client, settings), prompts, asking)


class OpenAIChat:
    """Makes prompts into requests, and what comes back into the port's events."""

    def __init__(self, server: ChatServer, prompts: Prompts, asking: Asking) -> None:
        self._server = server
        self._prompts = prompts
        self._asking = asking
        # A server that has told its limit is not asked for more again.
        self._budget = asking.budget
        self._warned_of_cut = False

    def identity(self) -> dict[str, str]:
        return {"prompt": self._prompts.fingerprint}

    async def generate(self, prompt: Prompt) -> AsyncIterator[Event]:
        used = frozenset(call.call_id for turn in prompt.turns for call in turn.calls)
        usage = Usage()
        written = prompt.written
        repairs: list[Message] = []
        thinking = False
        asked = _Asked(frozenset(passage.n for passage in prompt.passages))
        for _ in range(1 + _MAX_REPAIRS):
            said: list[str] = []
            continued = 0
            turn = ChatTurn()
            try:
                async with aclosing(self._completion(prompt, repairs, written, asked)) as pieces:
                    async for piece in pieces:
                        if isinstance(piece, str):
                            said.append(piece)
                            yield Text(piece)
                        elif isinstance(piece, ChatTurn):
                            turn = piece
                        elif isinstance(piece, Reasoning):
                            if not thinking:
                                thinking = True
                                yield Thinking()
                        else:
                            if isinstance(piece, Continued):
                                said.append(written)
                                continued = estimate_tokens(written)
                            yield piece
            except ContentFiltered:
                yield Finish("content_filter", _plus(usage, _estimate(asked.messages, said)))
                return
            written = ""
            if turn.usage is None:
                usage = _plus(usage, _estimate(asked.messages, said))
            else:
                self._notice_cut(turn.usage, asked)
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
            repairs += _repair_messages("".join(said), calls)
        raise ServiceError("model_failed", "The model called tools with arguments that make no sense.", retryable=True)

    async def _completion(
        self, prompt: Prompt, repairs: Sequence[Message], written: str, asked: _Asked
    ) -> AsyncGenerator[Offered | Continued | Reasoning | str | ChatTurn, None]:
        """The pieces of one completion of as much of the prompt as the server takes; a server that refuses it as too
        long is asked again with less."""
        budget = self._budget
        repaired = prompt_tokens(repairs)
        for shrinks in range(MAX_SHRINKS + 1):
            fitted = self._fitted(prompt, budget, repaired + count_tokens(written))
            asked.messages = [*fitted.messages, *repairs]
            asked.tokens = fitted.tokens + repaired
            begun = False
            offered = frozenset(passage.n for passage in fitted.prompt.passages)
            if offered != asked.offered:
                asked.offered = offered
                yield Offered(offered)
            try:
                async with aclosing(self._written_or_whole(fitted.prompt, asked.messages, written)) as pieces:
                    async for piece in pieces:
                        begun = True
                        yield piece
                return
            except ContextOverflow as overflow:
                if begun or shrinks == MAX_SHRINKS:
                    raise
                prompt, budget = self._shrunk(prompt, budget, asked.tokens, overflow)

    def _fitted(self, prompt: Prompt, budget: Budget, reserved: int) -> Fitted:
        try:
            fitted = fit(prompt, self._prompts, budget, reserved)
        except DoesNotFit:
            raise ServiceError(
                "model_failed",
                f"The question alone is longer than the language model may be asked ({budget.prompt} tokens, "
                "BATON_PROMPT_TOKENS); ask a shorter one.",
            ) from None
        if len(fitted.prompt.tools) < len(prompt.tools):
            log.warning(
                "only %d of %d tools fit into a prompt of %d tokens (BATON_PROMPT_TOKENS)",
                len(fitted.prompt.tools),
                len(prompt.tools),
                budget.prompt,
            )
        return fitted

    def _shrunk(self, prompt: Prompt, budget: Budget, sent: int, overflow: ContextOverflow) -> tuple[Prompt, Budget]:
        asks_for = prompt.sampling.max_tokens
        tokens, answer = smaller(min(budget.prompt, sent), sent, asks_for, overflow.limit, overflow.prompt)
        log.warning(
            "the language model's server refuses a prompt of about %d tokens as too long (its limit: %s); asked again "
            "with %d. BATON_PROMPT_TOKENS should be smaller",
            sent,
            overflow.limit or "not told",
            tokens,
        )
        budget = Budget(tokens, min(budget.history, tokens // 4))
        if overflow.limit is not None:
            self._budget = Budget(min(tokens, self._budget.prompt), self._budget.history)
        if asks_for is not None and answer is not None and answer < asks_for:
            sampling = msgspec.structs.replace(prompt.sampling, max_tokens=answer)
            prompt = replace(prompt, sampling=sampling)
        return prompt, budget

    def _notice_cut(self, usage: Usage, asked: _Asked) -> None:
        """Some servers (Ollama) leave out what does not fit and say nothing; only their count shows it."""
        # Some do not count the tools.
        tokens = prompt_tokens(asked.messages)
        if self._warned_of_cut or not 0 < usage.prompt_tokens < tokens * _SILENTLY_CUT or tokens < 1_000:
            return
        self._warned_of_cut = True
        log.warning(
            "the language model's server counted %d tokens of a prompt of about %d: it seems to cut prompts silently. "
            "Raise its context length (Ollama: OLLAMA_CONTEXT_LENGTH) or lower BATON_PROMPT_TOKENS",
            usage.prompt_tokens,
            tokens,
        )

    async def _written_or_whole(
        self, prompt: Prompt, messages: list[Message], written: str
    ) -> AsyncGenerator[Continued | Reasoning | str | ChatTurn, None]:
        """The pieces of one completion and, last, the whole turn; behind `written` if `Continued` comes first."""
        seam = Seam(written)
        way = self._asking.way
        if way is not None and self._server.continues and seam.worth_it:
            body = self._continuing_body(prompt, messages, seam.sent, way)
            try:
                async with aclosing(self._continuation(body, seam)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            except ContinuationRefused:
                pass
            except StartedOver:
                log.warning("the language model repeats the beginning instead of continuing it; asked from the start")
        async with aclosing(self._server.pieces(self._body(prompt, messages))) as whole:
            async for part in whole:
                yield part

    async def _continuation(
        self, body: dict[str, Any], seam: Seam
    ) -> AsyncGenerator[Continued | Reasoning | str | ChatTurn, None]:
        """No text comes before `Continued`, and this not before the seam holds."""
        told = False
        async with aclosing(self._server.pieces(body)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Reasoning):
                    yield piece
                    continue
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
        tools = tool_definitions(prompt.tools)
        optional: dict[str, Any] = {
            "stream_options": {"include_usage": True},
            **{name: getattr(sampling, name) for name in _SAMPLING},
            "stop": sampling.stop or None,
            "tools": tools or None,
            "parallel_tool_calls": self._asking.parallel_tool_calls if tools else None,
            **self._asking.fields,
        }
        body: dict[str, Any] = {"model": self._asking.model, "messages": messages, "stream": True}
        body |= {
            name: value for name, value in optional.items() if value is not None and name not in self._server.refused
        }
        if sampling.max_tokens is not None and "max_tokens" in self._server.refused:
            body["max_completion_tokens"] = sampling.max_tokens
        return body


@dataclass(slots=True)
class _Asked:
    """What was sent last, for counts, and which passages were said to be in it."""

    offered: frozenset[int]
    messages: list[Message] = field(default_factory=list)
    tokens: int = 0


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
