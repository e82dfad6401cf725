"""What of a prompt goes to the model, so that it fits: pure, and the same for the same prompt.

Always: the system text, the question, the tools' definitions, the turns with tools. Then passages, first those that the
model's own searches found (the latest search first), then the others, each in order; then earlier turns of the
conversation, the newest first. The last one that does not fit whole is cut where a part of it is worth reading.

Where what must always be there is too large by itself, tools' results are cut, then the oldest turns go, then tools.
Tools also go, from the last one on, where otherwise nothing of the passages would be left to read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec

from baton_proto.messages import Passage, PastTurn, ToolTurn
from services.common.llm.tokens import count_tokens

from .port import Prompt
from .prompting import Message, Prompts, fenced, past_messages, tool_definitions

MESSAGE_TOKENS = 6
"""What a chat template adds to a message: its role and its ends."""
TOOLS_TOKENS = 200
"""What chat templates say around the definitions of tools: how calls are written."""

_RESULT_CHARS = (8_000, 4_000, 2_000, 1_000, 500, 200)
_LEAST_PASSAGE = 80
"""Tokens below which the beginning of a passage is not worth its place."""
_LEAST_ANSWER = 40
_LEAST_READING = 300
"""Tokens of passages that tools' definitions make room for, if there are any passages."""
_CUT = "…"


@dataclass(frozen=True, slots=True)
class Budget:
    """Tokens: of the whole prompt, and of the earlier turns in it."""

    prompt: int
    history: int


class DoesNotFit(Exception):
    """The question alone is over the budget."""


def prompt_tokens(messages: Sequence[Message], tools: Sequence[Message] = ()) -> int:
    """What a request counts for, by the careful count."""
    count = sum(map(_message_tokens, messages))
    return count + (TOOLS_TOKENS + sum(_json_tokens(tool) for tool in tools) if tools else 0)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that fits, its messages, and what they and the tools count for."""

    prompt: Prompt
    messages: list[Message]
    tokens: int


def fit(prompt: Prompt, prompts: Prompts, budget: Budget, reserved: int = 0) -> Fitted:
    """The prompt with as much of its passages and history as fits, and of the rest what it must be.

    Args:
        reserved: tokens of messages that the caller adds behind it.

    Raises:
        DoesNotFit: not even the question fits.
    """
    return _Fitting(prompt, prompts, budget, reserved).run()


class _Fitting:
    def __init__(self, prompt: Prompt, prompts: Prompts, budget: Budget, reserved: int) -> None:
        self._whole = prompt
        self._prompts = prompts
        self._budget = budget
        self._room = budget.prompt - reserved

    def run(self) -> Fitted:
        whole = self._whole
        if sum(map(_past_tokens, whole.history)) <= self._budget.history:
            made = self._made(whole)
            if made.tokens <= self._room:
                return made
        bare = self._always(replace(whole, passages=(), history=()))
        with_passages, left = self._with_passages(bare)
        fitted = self._with_history(with_passages, left)
        if whole.history and not fitted.history and whole.standalone:
            # Without the conversation, the question has to be understood by itself.
            fitted = replace(fitted, question=whole.standalone)
        # Counts of parts do not quite add up to the count of the whole.
        while (made := self._made(fitted)).tokens > self._room:
            if fitted.history:
                fitted = replace(fitted, history=fitted.history[1:])
            elif fitted.passages:
                kept = {passage.n for passage in self._in_order(fitted.passages)[:-1]}
                fitted = replace(fitted, passages=[one for one in fitted.passages if one.n in kept])
            else:
                fitted = replace(fitted, question=whole.question)
        return made

    def _always(self, bare: Prompt) -> Fitted:
        """What must be there; without all of the tools, if otherwise there were nothing to read."""
        reading = min([_LEAST_READING, *(_passage_tokens(one) for one in self._whole.passages[:1])])
        if self._whole.passages and (fits := self._first(_with_fewer_tools(bare), self._room - reading)):
            return fits
        if fits := self._first(_smaller(bare), self._room):
            return fits
        raise DoesNotFit

    def _first(self, prompts: Iterator[Prompt], room: int) -> Fitted | None:
        return next((made for made in map(self._made, prompts) if made.tokens <= room), None)

    def _with_passages(self, bare: Fitted) -> tuple[Prompt, int]:
        """And the tokens that are left."""
        left = self._room - bare.tokens
        kept: dict[int, Passage] = {}
        for passage in self._in_order(self._whole.passages):
            cost = _passage_tokens(passage)
            if cost > left:
                overhead = cost - count_tokens(passage.text)
                text = cut(passage.text, left - overhead) if left - overhead >= _LEAST_PASSAGE else ""
                if text:
                    kept[passage.n] = msgspec.structs.replace(passage, text=text)
                    left -= _passage_tokens(kept[passage.n])
                break
            left -= cost
            kept[passage.n] = passage
        # `pop`: of several with the same number, which none should have, one is kept.
        passages = [kept.pop(one.n) for one in self._whole.passages if one.n in kept]
        return replace(bare.prompt, passages=passages), left

    def _in_order(self, passages: Sequence[Passage]) -> list[Passage]:
        searches = [result.passages for turn in reversed(self._whole.turns) for result in turn.results]
        rank = {number: at for at, found in reversed([*enumerate(searches)]) for number in found}
        return sorted(passages, key=lambda passage: rank.get(passage.n, len(searches)))

    def _with_history(self, prompt: Prompt, left: int) -> Prompt:
        left = min(left, self._budget.history)
        kept: list[PastTurn] = []
        for past in reversed(self._whole.history):
            cost = _past_tokens(past)
            if cost <= left:
                left -= cost
                kept.insert(0, past)
                continue
            if not kept:
                room = left - (cost - count_tokens(past.answer))
                if room >= _LEAST_ANSWER and (answer := cut(past.answer, room)):
                    kept.insert(0, msgspec.structs.replace(past, answer=answer))
            break
        return replace(prompt, history=kept)

    def _made(self, prompt: Prompt) -> Fitted:
        messages = self._prompts.messages(prompt)
        return Fitted(prompt, messages, prompt_tokens(messages, tool_definitions(prompt.tools)))


def cut(text: str, tokens: int) -> str:
    """A beginning of `text` that counts for at most `tokens`, its end marked, preferably at the end of a paragraph, a
    sentence or a word."""
    count = count_tokens(text)
    if count <= tokens:
        return text
    least = len(text) * max(0, tokens - 2) // count
    while least and count_tokens(text[:least]) + 2 > tokens:
        least = least * 19 // 20
    kept = text[:least]
    for ends in ("\n", "。！？!?", ".", " ，,"):
        at = max(kept.rfind(end) for end in ends)
        if at >= least * 2 // 3:
            kept = kept[: at + 1]
            break
    kept = kept.rstrip()
    return kept + _CUT if kept else ""


def _with_cut_results(bare: Prompt) -> Iterator[Prompt]:
    yield bare
    for chars in _RESULT_CHARS if bare.turns else ():
        yield replace(bare, turns=[_shortened(turn, chars) for turn in bare.turns])


def _with_fewer_tools(bare: Prompt) -> Iterator[Prompt]:
    yield from _with_cut_results(bare)
    *_, shortest = _with_cut_results(bare)
    for count in range(len(bare.tools) - 1, -1, -1):
        yield replace(shortest, tools=bare.tools[:count])


def _smaller(bare: Prompt) -> Iterator[Prompt]:
    """Ever smaller versions of what a prompt must hold."""
    yield from _with_cut_results(bare)
    turns = [_shortened(turn, _RESULT_CHARS[-1]) for turn in bare.turns]
    for first in range(1, len(turns) + 1):
        yield replace(bare, turns=turns[first:])
    for count in range(len(bare.tools) - 1, -1, -1):
        yield replace(bare, turns=(), tools=bare.tools[:count])


def _shortened(turn: ToolTurn, chars: int) -> ToolTurn:
    results = [
        msgspec.structs.replace(result, content=result.content[: chars - 1].rstrip() + _CUT)
        if len(result.content) > chars
        else result
        for result in turn.results
    ]
    text = turn.text[: chars - 1].rstrip() + _CUT if len(turn.text) > chars else turn.text
    return msgspec.structs.replace(turn, results=results, text=text)


def _passage_tokens(passage: Passage) -> int:
    return count_tokens(fenced([passage]))


def _past_tokens(past: PastTurn) -> int:
    return sum(map(_message_tokens, past_messages(past)))


def _message_tokens(message: Message) -> int:
    count = MESSAGE_TOKENS + count_tokens(message.get("content") or "")
    return count + sum(
        _json_tokens(call["function"]) + count_tokens(call["id"]) + 8 for call in message.get("tool_calls", ())
    )


def _json_tokens(value: Message) -> int:
    return count_tokens(json.dumps(value, ensure_ascii=False))
