"""The retriever as a stage of a request: understand the question, search, show the sources, pass the baton on.

An item that holds a model's wish to search goes another way: search_again.py.
"""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec

from baton_proto.messages import Language, Sources, Status, WorkItem
from baton_proto.readers import principals
from baton_proto.subjects import GENERATE
from services.common import metrics
from services.common.config import RetrieverSettings
from services.common.job import Handler, Job
from services.common.passages import source_of
from services.common.wording import choose

from .caching import Find, Found, Searches
from .port import Retriever, SearchRequest
from .rewriting.port import Rewriter
from .rewriting.rule import RuleRewriter, search_words
from .search_again import search_again
from .searching import bounded, search
from .steps import step

DEFAULT_TOP_K = 6
MAX_SHOWN_CHARS = 2_000
"""Longest question that a rewriter may make of another; a longer one is not used."""
_REWRITE_GRACE_S = 2.0

log = logging.getLogger(__name__)


def retrieve_handler(
    retriever: Retriever,
    settings: RetrieverSettings,
    rewriter: Rewriter | None = None,
    searches: Searches | None = None,
) -> Handler:
    """The handler for `retrieve` work: `status` frames, then `sources` with the hand-over to `generate`.

    On a fail-over it goes on behind the frames that are already written.

    Args:
        rewriter: makes follow-ups stand alone; the rule if there is none.
        searches: those that were made before; without them every question is searched for.
    """
    rewriter = rewriter or RuleRewriter()
    known = searches or Searches(retriever, settings.retriever)

    async def find(item: WorkItem, request: SearchRequest) -> Found:
        found = await known.find(item, request, lambda: search(retriever, request, settings.timeout_s))
        metrics.SEARCHES.labels("found" if found.passages else "nothing").inc()
        return found

    async def handle(job: Job) -> None:
        if job.item.calls:
            await search_again(job, find, settings)
        else:
            await _first_search(job, await _understood(job, rewriter, settings), find)

    return handle


async def _understood(job: Job, rewriter: Rewriter, settings: RetrieverSettings) -> WorkItem:
    """The item with its question made to stand alone, and told where that is another one."""
    item = job.item
    told = [status for status in _statuses(job) if status.stage == "understanding"]
    if not told:
        await job.write(_understanding(item.language))
    if not item.history:
        return item
    if len(told) > 1:
        return msgspec.structs.replace(item, standalone=_read_back(told[1], item.language))
    if any(status.stage == "retrieving" for status in _statuses(job)):
        return item  # an earlier holder has found that the question stands alone
    standalone = await _rewritten(item, rewriter, settings.rewrite_timeout_s)
    if standalone == item.query:
        return item
    await job.write(_understood_as(item.language, standalone))
    return msgspec.structs.replace(item, standalone=standalone)


async def _rewritten(item: WorkItem, rewriter: Rewriter, timeout_s: float) -> str:
    """The question on one line as the rewriter puts it; as it is where that fails, for it can be searched for too."""
    try:
        with step("rewrite"):
            async with asyncio.timeout(timeout_s + _REWRITE_GRACE_S):
                text = " ".join((await rewriter.rewrite(item.query, item.history, item.language)).split())
    except TimeoutError:
        log.error("the rewriter has not answered within %g s", timeout_s + _REWRITE_GRACE_S)
    except Exception:
        log.exception("the rewriter failed")
    else:
        if text and text != " ".join(item.query.split()) and len(text) <= MAX_SHOWN_CHARS:
            return text
    return item.query


async def _first_search(job: Job, item: WorkItem, find: Find) -> None:
    if not any(status.stage == "retrieving" for status in _statuses(job)):
        await job.write(_retrieving(item.language))
    started = time.monotonic()
    found = await find(item, _request(item))
    passages = bounded(found.passages)
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


def _request(item: WorkItem) -> SearchRequest:
    return SearchRequest(
        query=search_words(item.standalone) if item.standalone else item.query,
        language=item.language,
        top_k=item.top_k or DEFAULT_TOP_K,
        filters=item.filters,
        readers=principals(item.owner, item.claims),
    )


def _statuses(job: Job) -> list[Status]:
    return [frame for frame in job.written if isinstance(frame, Status)]


def _understanding(language: Language) -> Status:
    return Status(stage="understanding", content=choose(language, zh="正在理解问题", en="Understanding the question"))


def _retrieving(language: Language) -> Status:
    return Status(stage="retrieving", content=choose(language, zh="正在查找资料", en="Searching the documents"))


def _understood_as(language: Language, standalone: str) -> Status:
    return Status(stage="understanding", content=_lead(language) + standalone)


def _read_back(status: Status, language: Language) -> str:
    """The question that an earlier holder has told, so that the answer stays about what the user was shown."""
    return status.content.removeprefix(_lead(language))


def _lead(language: Language) -> str:
    return choose(language, zh="理解为：", en="Understood as: ")


def _found(language: Language, count: int, elapsed_ms: int) -> Status:
    if language == "zh":
        content = f"找到 {count} 段相关内容" if count else "没有找到相关内容"
    elif count:
        content = f"Found {count} passage{'' if count == 1 else 's'}"
    else:
        content = "Found no matching passages"
    return Status(stage="retrieving", content=content, count=count, elapsed_ms=elapsed_ms)
