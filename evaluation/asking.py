"""Asks the questions of a set over the WebSocket, like a user, and keeps what came."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from .by_variant import NONE
from .dataset import Entry, entry_map
from .frames import Frame, answer_text
from .measures import TIMES, Answered
from .reaching import Reaching
from .replay import Run, ask, reach

MAX_TRIES = 5
MAX_PAUSE_S = 30.0
FIRST_PAUSE_S = 0.5


async def ask_all(
    url: str,
    entries: Sequence[Entry],
    names: Mapping[str, str],
    *,
    token: str = "",
    at_once: int = 4,
    top_k: int | None = None,
    seed: int | None = None,
    reaching: Reaching | None = None,
    on_answer: Callable[[], None] = lambda: None,
) -> list[Answered]:
    """The answers, in the order of the entries. Answers never come from the cache.

    Args:
        names: the document's name for each `document_id`; others keep their title as a name.
        seed: that of the sampling, sent with each question; None sends none.
        reaching: asks until one variant has answered; questions that it has not answered are left out.
        on_answer: called when an entry is done.

    Raises:
        CannotAsk: nobody answers at `url`.
    """
    await reach(url, token)
    places = asyncio.Semaphore(at_once)

    async def one(entry: Entry) -> Answered | None:
        def once() -> Awaitable[Answered]:
            return _asked(url, entry, names, token, _wishes(entry, top_k, seed))

        async with places:
            answered = await (reaching.answer(entry.id, once) if reaching else once())
        on_answer()
        return answered

    return [answered for answered in await asyncio.gather(*map(one, entries)) if answered is not None]


def answered_from(entry: Entry, run: Run, names: Mapping[str, str]) -> Answered:
    """What the frames of an answer say."""
    frames = run.frames
    sources = [source for frame in frames if frame["type"] == "sources" for source in frame["sources"]]
    timings = run.done.get("timings") or {}
    times = {name: timings.get(name) for name in TIMES}
    times["total_ms"] = run.elapsed_ms
    return Answered(
        id=entry.id,
        question=entry.question,
        language=entry.language or "",
        entry=entry_map(entry),
        failed=run.failed,
        answer=answer_text(frames),
        sources=[{**source, "name": names.get(source["document_id"], source["title"])} for source in sources],
        cited=list(run.done.get("cited") or ()),
        citations=[dict(mark) for mark in run.done.get("citations") or ()],
        tool_calls=sum(frame["type"] == "tool_call" for frame in frames),
        finish_reason=run.done.get("finish_reason", ""),
        fingerprint=run.done.get("fingerprint") or "",
        variant=_variant(run),
        times=times,
    )


def _variant(run: Run) -> str:
    """The variant whose workers gave an answer; of one that failed, that which it tried, if it became a request."""
    if not run.failed:
        return run.done.get("variant") or NONE
    return next((frame.get("variant") or NONE for frame in run.frames if frame["type"] == "accepted"), "")


async def _asked(url: str, entry: Entry, names: Mapping[str, str], token: str, wishes: Mapping[str, Any]) -> Answered:
    if entry.conversation:
        wishes = {**wishes, "conversation_id": f"eval-{secrets.token_hex(8)}", "if_busy": "enqueue"}
    for earlier in entry.conversation:
        run = await _patiently(url, {**wishes, "question": earlier}, token)
        if run.failed:
            failed = f"the conversation's question {earlier!r} failed: {run.failed}"
            return answered_from(entry, Run([], run.elapsed_ms, failed), names)
    return answered_from(entry, await _patiently(url, {**wishes, "question": entry.question}, token), names)


async def _patiently(url: str, query: Mapping[str, Any], token: str) -> Run:
    """Ask again where the server says that it may work later; that is for us to bear, not the answer's fault."""
    for attempt in range(MAX_TRIES):
        run = await ask(url, query, token)
        pause_s = _pause_s(run, attempt)
        if pause_s is None or attempt == MAX_TRIES - 1:
            break
        await asyncio.sleep(pause_s)
    return run


def _pause_s(run: Run, attempt: int) -> float | None:
    last: Frame = run.last
    if last.get("type") != "error" or last.get("code") not in ("overloaded", "rate_limited", "no_worker"):
        return None
    told: float = last.get("retry_after_ms") or 0
    return min(MAX_PAUSE_S, told / 1000 or FIRST_PAUSE_S * float(2**attempt)) * random.uniform(1, 1.2)


def _wishes(entry: Entry, top_k: int | None, seed: int | None) -> dict[str, Any]:
    wishes = {"language": entry.language or None, "top_k": top_k, "seed": seed, "cache": False}
    return {name: value for name, value in wishes.items() if value is not None}
