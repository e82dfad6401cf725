"""The retriever as a stage of a request: tell what is being looked for, search, show the sources, pass the baton on."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

import msgspec

from baton_proto.messages import Language, Passage, Sources, Status, WorkItem
from baton_proto.subjects import GENERATE
from services.common.config import RetrieverSettings
from services.common.errors import ServiceError
from services.common.job import Handler, Job
from services.common.passages import source_of

from .caching import Searches
from .port import Retriever, SearchRequest

DEFAULT_TOP_K = 6
MAX_PASSAGE_CHARS = 8_000
MAX_TOTAL_CHARS = 60_000
"""Most text of all passages together; with it a hand-off stays far below the size of a message, in Chinese too."""
TRIES = 3
_FIRST_PAUSE_S = 0.25


def retrieve_handler(retriever: Retriever, settings: RetrieverSettings, searches: Searches | None = None) -> Handler:
    """The handler for `retrieve` work: `status` frames, then `sources` with the hand-over to `generate`.

    On a fail-over it goes on behind the frames that are already written.

    Args:
        searches: those that were made before; without them every question is searched for.
    """
    known = searches or Searches(retriever, settings.retriever)

    async def handle(job: Job) -> None:
        item = job.item
        for status in _opening(item.language)[len(_statuses(job)) :]:
            await job.write(status)
        started = time.monotonic()
        request = _request(item)
        found = await known.find(item, request, lambda: _search(retriever, request, settings.timeout_s))
        passages = _bounded(found.passages)
        elapsed_ms = round((time.monotonic() - started) * 1000)
        if not any(status.count is not None for status in _statuses(job)):
            await job.write(_found(item.language, len(passages), elapsed_ms))
        await job.hand_over(
            Sources(sources=[source_of(passage) for passage in passages]),
            msgspec.structs.replace(
                item,
                stage=GENERATE,
                passages=passages,
                corpus=found.corpus,
                retriever=found.retriever,
                timings=msgspec.structs.replace(item.timings, retrieval_ms=elapsed_ms),
            ),
        )

    return handle


async def _search(retriever: Retriever, request: SearchRequest, timeout_s: float) -> Sequence[Passage]:
    """Search, and again where the failure may pass and time is left: a Milvus that restarts costs a moment only."""
    deadline = time.monotonic() + timeout_s
    pause = _FIRST_PAUSE_S
    for _ in range(TRIES - 1):
        try:
            return await _within(retriever, request, deadline, timeout_s)
        except ServiceError as error:
            if not error.retryable or time.monotonic() + 2 * pause > deadline:
                raise
        await asyncio.sleep(random.uniform(0.75, 1.25) * pause)
        pause *= 3
    return await _within(retriever, request, deadline, timeout_s)


async def _within(retriever: Retriever, request: SearchRequest, deadline: float, timeout_s: float) -> Sequence[Passage]:
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            return await retriever.retrieve(request)
    except TimeoutError:
        message = f"The document store has not answered within {timeout_s:g} s. Try again in a moment."
        raise ServiceError("retrieval_failed", message, retryable=True) from None


def _request(item: WorkItem) -> SearchRequest:
    return SearchRequest(
        query=item.query, language=item.language, top_k=item.top_k or DEFAULT_TOP_K, filters=item.filters
    )


def _statuses(job: Job) -> list[Status]:
    return [frame for frame in job.written if isinstance(frame, Status)]


def _bounded(passages: Sequence[Passage]) -> list[Passage]:
    """The first passages whose texts, each cut to its bound, stay below the bound for all; always at least one."""
    kept: list[Passage] = []
    total = 0
    for passage in passages:
        if len(passage.text) > MAX_PASSAGE_CHARS:
            passage = msgspec.structs.replace(passage, text=passage.text[:MAX_PASSAGE_CHARS])
        total += len(passage.text)
        if kept and total > MAX_TOTAL_CHARS:
            break
        kept.append(passage)
    return kept


def _opening(language: Language) -> list[Status]:
    words = {"zh": ("正在理解问题", "正在查找资料"), "en": ("Understanding the question", "Searching the documents")}
    understanding, retrieving = words[language]
    return [Status(stage="understanding", content=understanding), Status(stage="retrieving", content=retrieving)]


def _found(language: Language, count: int, elapsed_ms: int) -> Status:
    if language == "zh":
        content = f"找到 {count} 段相关内容" if count else "没有找到相关内容"
    elif count:
        content = f"Found {count} passage{'' if count == 1 else 's'}"
    else:
        content = "Found no matching passages"
    return Status(stage="retrieving", content=content, count=count, elapsed_ms=elapsed_ms)
