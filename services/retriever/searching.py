"""One search: tried again where its failure may pass, and bounded in time and size."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

import msgspec

from baton_proto.messages import Passage
from services.common.errors import ServiceError

from .port import Retriever, SearchRequest

MAX_PASSAGE_CHARS = 8_000
MAX_TOTAL_CHARS = 60_000
"""Most text of all passages together; with it a hand-off stays far below the size of a message, in Chinese too."""
TRIES = 3
_FIRST_PAUSE_S = 0.25


async def search(retriever: Retriever, request: SearchRequest, timeout_s: float) -> Sequence[Passage]:
    """Search, and again where the failure may pass and time is left: a Milvus that restarts costs a moment only.

    Raises:
        ServiceError
    """
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


def cut(passage: Passage) -> Passage:
    """The passage with no more text than one may have."""
    if len(passage.text) <= MAX_PASSAGE_CHARS:
        return passage
    return msgspec.structs.replace(passage, text=passage.text[:MAX_PASSAGE_CHARS])


def bounded(passages: Sequence[Passage]) -> list[Passage]:
    """The first passages whose texts, each cut to its bound, stay below the bound for all; always at least one."""
    kept: list[Passage] = []
    total = 0
    for passage in map(cut, passages):
        total += len(passage.text)
        if kept and total > MAX_TOTAL_CHARS:
            break
        kept.append(passage)
    return kept
