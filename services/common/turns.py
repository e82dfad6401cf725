"""The rules of a conversation, without I/O: who waits for whom, which turns are kept, what a prompt hears of them.

Every function returns a new `Conversation`; `conversations.py` stores it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import msgspec

from baton_proto.messages import (
    Citation,
    Conversation,
    ConversationTurn,
    Done,
    Error,
    LogFrame,
    PastTurn,
    RunningTurn,
    WorkItem,
)

from .llm.tokens import estimate_tokens
from .shown import text_and_sources

MAX_TURNS = 50
MAX_BYTES = 384 * 1024
MAX_WAITING = 4
TITLE_CHARS = 80
ANSWER_CHARS = 24_000
"""Most characters of a kept answer; its citations beyond them go."""
STANDALONE_CHARS = 2_000
FRAME_BYTES = 2_048
"""Room in a stored conversation for all but its turns: title, times, those that run."""
HISTORY_TOKENS = 2_000
HISTORY_ANSWER_TOKENS = 400
HISTORY_QUESTION_TOKENS = 200

_MARK = re.compile(r"[ \u3000]?\[(\d{1,3})\]")


def begun(conversation_id: str, query: str, asked_ms: int) -> Conversation:
    """A new conversation, named after its first question."""
    words = " ".join(query.split())
    title = words if len(words) <= TITLE_CHARS else words[: TITLE_CHARS - 1] + "…"
    return Conversation(conversation_id=conversation_id, title=title, created_ms=asked_ms, updated_ms=asked_ms)


def knows(conversation: Conversation, request_id: str) -> bool:
    """Whether it has a request, recorded or not."""
    names = {turn.request_id for turn in conversation.turns} | {one.request_id for one in conversation.running}
    return request_id in names


def before(conversation: Conversation, key: str) -> list[RunningTurn]:
    """The requests that run or wait and were let in before this one; all of them where it is not among them."""
    found = []
    for one in conversation.running:
        if one.key == key:
            break
        found.append(one)
    return found


def entered(conversation: Conversation, one: RunningTurn) -> Conversation:
    """With one more request that runs, or waits for those before it. One that is there already keeps its place."""
    if any(other.key == one.key for other in conversation.running):
        return conversation
    return msgspec.structs.replace(
        conversation, running=[*conversation.running, one], updated_ms=max(conversation.updated_ms, one.since_ms)
    )


def left(conversation: Conversation, keys: Collection[str]) -> Conversation:
    """Without these requests among those that run: there is nothing to record of them."""
    running = [one for one in conversation.running if one.key not in keys]
    return msgspec.structs.replace(conversation, running=running)


def recorded(conversation: Conversation, turn: ConversationTurn, ended_ms: int) -> Conversation:
    """With a request that ran, and ended then, as its newest turn; the oldest go beyond `MAX_TURNS` and `MAX_BYTES`.
    As it was where the request does not run here: it is recorded already, or its owner has deleted it."""
    running = [one for one in conversation.running if one.request_id != turn.request_id]
    if len(running) == len(conversation.running):
        return conversation
    earlier = [one for one in conversation.turns if one.request_id != turn.request_id]
    turns = _fitting([*earlier, _bounded(turn)])
    return msgspec.structs.replace(
        conversation,
        running=running,
        turns=turns,
        dropped=conversation.dropped + len(earlier) + 1 - len(turns),
        updated_ms=max(conversation.updated_ms, ended_ms),
    )


def _bounded(turn: ConversationTurn) -> ConversationTurn:
    """A turn of a size that always fits; what a client would look for first goes last."""
    answer, citations = turn.answer, turn.citations
    if answer is not None and len(answer) > ANSWER_CHARS:
        answer = answer[:ANSWER_CHARS]
        citations = [one for one in citations if one.end <= ANSWER_CHARS]
    turn = msgspec.structs.replace(
        turn, answer=answer, citations=citations, standalone=turn.standalone[:STANDALONE_CHARS]
    )
    if _size(turn) > MAX_BYTES - FRAME_BYTES:
        turn = msgspec.structs.replace(turn, sources=[], citations=[])
    return turn


def _fitting(turns: list[ConversationTurn]) -> list[ConversationTurn]:
    """The newest turns, as many as fit."""
    room = MAX_BYTES - FRAME_BYTES
    kept: list[ConversationTurn] = []
    for turn in reversed(turns[-MAX_TURNS:]):
        room -= _size(turn)
        if room < 0:
            break
        kept.append(turn)
    return kept[::-1]


def _size(turn: ConversationTurn) -> int:
    return len(msgspec.msgpack.encode(turn))


def turn_of(item: WorkItem, frames: Sequence[LogFrame], standalone: str = "") -> ConversationTurn:
    """The turn that a whole log which has ended amounts to: what its client has seen.

    Args:
        item: that of the log's first frame.
    """
    text, sources = text_and_sources(frames)
    cited: list[int] = []
    citations: list[Citation] = []
    outcome = "internal"
    answer: str | None = None
    last = frames[-1]
    if isinstance(last, Done):
        outcome, cited, citations, answer = last.finish_reason, last.cited, last.citations, text
    elif isinstance(last, Error):
        outcome, sources = last.code, []
    return ConversationTurn(
        request_id=item.request_id,
        asked_ms=item.received_ms,
        query=item.query,
        outcome=outcome,
        standalone=standalone,
        answer=answer,
        sources=sources,
        cited=cited,
        citations=citations,
    )


def history(conversation: Conversation) -> list[PastTurn]:
    """The newest turns that fit `HISTORY_TOKENS`, oldest first. A question that failed is among them, without an
    answer: the next one may speak of it."""
    found: list[PastTurn] = []
    room = HISTORY_TOKENS
    for turn in reversed(conversation.turns):
        past = _past(turn)
        room -= sum(estimate_tokens(text) for text in (past.query, past.standalone, past.answer))
        if room < 0:
            break
        found.append(past)
    return found[::-1]


def _past(turn: ConversationTurn) -> PastTurn:
    answer = without_marks(turn.answer or "", {source.n for source in turn.sources})
    return PastTurn(
        query=cut(turn.query, HISTORY_QUESTION_TOKENS),
        answer=cut(answer, HISTORY_ANSWER_TOKENS),
        standalone=cut(turn.standalone, HISTORY_QUESTION_TOKENS),
    )


def without_marks(answer: str, numbers: Collection[int]) -> str:
    """An answer without its `[n]`: these numbers mean nothing, or something else, beside another turn's sources."""
    return _MARK.sub(lambda mark: "" if int(mark[1]) in numbers else mark[0], answer).strip()


def cut(text: str, tokens: int) -> str:
    """The beginning of a text, by the estimate of `estimate_tokens`; what is cut ends in `…`."""
    if (count := estimate_tokens(text)) <= tokens:
        return text
    while count > tokens and text:
        text = text[: (len(text) - 1) * tokens // count]
        count = estimate_tokens(text) + 1
    return text + "…"
