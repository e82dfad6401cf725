"""`search_documents`: a model searches again with its own words; what is new gets the next free numbers.

Frames: `tool_call` for every call, one `sources` with the passages that are new, then `tool_result` for every call, the
last with the hand-over to `generate`. After a fail-over the numbers of a stored `sources` frame stand: the searches are
made again only to have the texts.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from baton_proto.messages import (
    Language,
    LogFrame,
    Passage,
    Source,
    Sources,
    Status,
    ToolCall,
    ToolCalled,
    ToolOutcome,
    ToolResult,
    ToolSpec,
    ToolTurn,
    WorkItem,
)
from baton_proto.subjects import GENERATE
from services.common.arguments import ArgumentChecker
from services.common.config import RetrieverSettings
from services.common.errors import ServiceError
from services.common.job import Job
from services.common.passages import source_of
from services.common.wording import choose, shorten

from .port import Retriever, SearchRequest
from .searching import MAX_TOTAL_CHARS, cut, search

DEFAULT_TOP_K = 5
MAX_TOP_K = 10
MAX_SEARCHES = 3
"""Searches of one turn; a model that asks for more is told so."""
MAX_PASSAGES = 30
"""Most passages of one answer, those of the first search included."""
_SHOWN_CHARS = 120
_MAX_TITLE_CHARS = 160

SEARCH_DOCUMENTS = ToolSpec(
    name="search_documents",
    description=(
        "Searches the documents again with words of your own. Use it when the passages you have do not answer the "
        "question, or only a part of it. 用新的关键词再次检索文档。 "
        "The passages found come with numbers that you may cite."
    ),
    parameters={
        "type": "object",
        "properties": {
            "query": {
                "type": "string",
                "description": "What to look for: a few words or a question, in the language of the documents",
                "minLength": 1,
                "maxLength": 1000,
            },
            "top_k": {
                "type": "integer",
                "description": f"Most passages wanted; {DEFAULT_TOP_K} if left out",
                "minimum": 1,
                "maximum": MAX_TOP_K,
            },
        },
        "required": ["query"],
        "additionalProperties": False,
    },
)

_CHECKER = ArgumentChecker(SEARCH_DOCUMENTS)
_LISTED = re.compile(r"^\[(\d+)\] ", re.MULTILINE)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Search:
    """One call: what it found, or why it did not search."""

    call: ToolCall
    problem: str = ""
    found: Sequence[Passage] = field(default_factory=tuple)
    elapsed_ms: int = 0


async def search_again(job: Job, retriever: Retriever, settings: RetrieverSettings) -> None:
    """Deal with an item that holds a model's wish to search."""
    item = job.item
    calls = _unique(item.calls)
    told = {frame.call_id: frame for frame in job.written if isinstance(frame, ToolResult)}
    await _announce(job, calls)
    started = time.monotonic()
    searches = await _searched(calls, item, retriever, settings)
    elapsed_ms = round((time.monotonic() - started) * 1000)
    shown = next((frame for frame in job.written if isinstance(frame, Sources)), None)
    numbers = _Numbers(item.passages, shown.sources if shown else None)
    new = numbers.taken_in([passage for one in searches for passage in one.found])
    if new and shown is None:
        await job.write(Sources(sources=[source_of(passage) for passage in new]))
    passages = [*item.passages, *new]
    results = [_outcome(one, told.get(one.call.call_id), passages, item.language) for one in searches]
    open_results = [result for result in results if result.call_id not in told]
    last: LogFrame = _all_there(item.language, len(calls))
    for result in open_results:
        last = _result_frame(result)
        if result is not open_results[-1]:
            await job.write(last)
    await job.hand_over(last, _next_item(item, calls, results, passages, elapsed_ms))


async def _announce(job: Job, calls: Sequence[ToolCall]) -> None:
    announced = {frame.call_id for frame in job.written if isinstance(frame, ToolCalled)}
    for call in calls:
        if call.call_id not in announced:
            await job.write(ToolCalled(call_id=call.call_id, name=call.name, arguments=call.arguments))


async def _searched(
    calls: Sequence[ToolCall], item: WorkItem, retriever: Retriever, settings: RetrieverSettings
) -> list[_Search]:
    """Every call with what it found, in order; those that may run run side by side."""
    searches: list[_Search] = []
    running = 0
    for call in calls:
        problem = _problem(call, settings, item.language)
        if not problem and running >= MAX_SEARCHES:
            problem = _too_many(item.language)
        running += not problem
        searches.append(_Search(call, problem))
    await asyncio.gather(*(_run(one, item, retriever, settings) for one in searches if not one.problem))
    return searches


async def _run(one: _Search, item: WorkItem, retriever: Retriever, settings: RetrieverSettings) -> None:
    started = time.monotonic()
    arguments = one.call.arguments
    request = SearchRequest(
        query=arguments["query"].strip(),
        language=item.language,
        top_k=int(arguments.get("top_k", DEFAULT_TOP_K)),
        filters=item.filters,
    )
    try:
        one.found = await search(retriever, request, settings.timeout_s)
    except ServiceError as error:
        log.warning("searching again failed: %s", error)
        one.problem = str(error)
    one.elapsed_ms = round((time.monotonic() - started) * 1000)


class _Numbers:
    """Who has which number.

    Args:
        passages: those of the item; they keep their numbers.
        shown: the sources that a lost holder has shown already; None where it has shown none.
    """

    def __init__(self, passages: Sequence[Passage], shown: Sequence[Source] | None) -> None:
        self._known = {passage.id for passage in passages}
        self._next = max((passage.n for passage in passages), default=0) + 1
        self._count = len(passages)
        self._chars = sum(len(passage.text) for passage in passages)
        self._shown = shown

    def taken_in(self, found: Sequence[Passage]) -> list[Passage]:
        """The passages that are new, numbered; where sources have been shown already, exactly those."""
        distinct: dict[str, Passage] = {}
        for passage in found:
            if passage.id not in self._known:
                distinct.setdefault(passage.id, passage)
        if self._shown is not None:
            return [_with_text(source, distinct.get(source.id)) for source in self._shown]
        return [passage for passage in map(self._numbered, distinct.values()) if passage is not None]

    def _numbered(self, passage: Passage) -> Passage | None:
        """The passage under the next number; None where the answer has no more room."""
        passage = cut(passage)
        if self._count >= MAX_PASSAGES or self._chars + len(passage.text) > MAX_TOTAL_CHARS:
            return None
        numbered = msgspec.structs.replace(passage, n=self._next)
        self._next += 1
        self._count += 1
        self._chars += len(passage.text)
        return numbered


def _with_text(source: Source, found: Passage | None) -> Passage:
    """A source that has been shown as the passage it stands for; with its snippet where it is not found any more."""
    if found is not None:
        return msgspec.structs.replace(cut(found), n=source.n)
    return Passage(
        n=source.n,
        id=source.id,
        document_id=source.document_id,
        title=source.title,
        url=source.url,
        text=source.snippet,
        score=source.score,
        page=source.page,
        start=source.start,
        end=source.end,
    )


def _outcome(one: _Search, told: ToolResult | None, passages: Sequence[Passage], language: Language) -> ToolOutcome:
    """The result of a call: as it has been told already, or as it is now."""
    call = one.call
    if told is not None:
        offered = {passage.n for passage in passages}
        listed = [int(number) for number in _LISTED.findall(told.content)] if told.ok else []
        return ToolOutcome(
            call_id=told.call_id,
            name=told.name,
            ok=told.ok,
            content=told.content,
            elapsed_ms=told.elapsed_ms,
            passages=[number for number in listed if number in offered],
        )
    if one.problem:
        return ToolOutcome(
            call_id=call.call_id, name=call.name, ok=False, content=one.problem, elapsed_ms=one.elapsed_ms
        )
    by_id = {passage.id: passage for passage in passages}
    found = [by_id[passage.id] for passage in one.found if passage.id in by_id]
    content = "\n".join(map(_line, found)) or (_no_room(language) if one.found else _nothing(language))
    return ToolOutcome(
        call_id=call.call_id,
        name=call.name,
        ok=True,
        content=content,
        elapsed_ms=one.elapsed_ms,
        passages=[passage.n for passage in found],
    )


def _next_item(
    item: WorkItem,
    calls: list[ToolCall],
    results: list[ToolOutcome],
    passages: list[Passage],
    elapsed_ms: int,
) -> WorkItem:
    timings = msgspec.structs.replace(
        item.timings,
        tool_calls=item.timings.tool_calls + len(calls),
        retrieval_ms=item.timings.retrieval_ms + elapsed_ms,
    )
    turn = ToolTurn(calls=calls, results=results, text=item.text)
    return msgspec.structs.replace(
        item, stage=GENERATE, passages=passages, turns=[*item.turns, turn], calls=[], text="", timings=timings
    )


def _unique(calls: Sequence[ToolCall]) -> list[ToolCall]:
    """The calls without those that repeat an earlier one's id: their results could not be told apart."""
    unique: dict[str, ToolCall] = {}
    for call in calls:
        unique.setdefault(call.call_id, call)
    return list(unique.values())


def _line(passage: Passage) -> str:
    title = f"{passage.title} / {passage.heading}" if passage.heading else passage.title
    return f"[{passage.n}] {shorten(title, _MAX_TITLE_CHARS)}: {shorten(passage.text, _SHOWN_CHARS)}"


def _result_frame(result: ToolOutcome) -> ToolResult:
    return ToolResult(
        call_id=result.call_id,
        name=result.name,
        ok=result.ok,
        elapsed_ms=result.elapsed_ms,
        content=result.content,
    )


def _problem(call: ToolCall, settings: RetrieverSettings, language: Language) -> str:
    """Why a call is not run, in words from which a model can correct itself."""
    if call.name != SEARCH_DOCUMENTS.name or not settings.search_tool:
        name = shorten(call.name, 64)
        return choose(language, zh=f"这里没有名为 {name} 的工具。", en=f"There is no tool named {name} here.")
    problem = _CHECKER.problem(call.arguments, language)
    if problem is None and not _text(call.arguments).strip():
        problem = choose(
            language,
            zh="参数 query 是空白的；请写要查找的内容。",
            en="The argument query is blank; say what to look for.",
        )
    return problem or ""


def _text(arguments: Mapping[str, Any]) -> str:
    return str(arguments["query"])


def _too_many(language: Language) -> str:
    return choose(
        language,
        zh=f"一次最多检索 {MAX_SEARCHES} 次，这一次没有执行；请先看其他结果。",
        en=f"At most {MAX_SEARCHES} searches are run at once; this one was not. Look at the other results first.",
    )


def _nothing(language: Language) -> str:
    return choose(
        language,
        zh="没有找到相关段落。可以换一种说法再查，或者依据已有的段落回答。",
        en="No passage matches. Try other words, or answer from the passages you have.",
    )


def _no_room(language: Language) -> str:
    return choose(
        language,
        zh="找到了段落，但无法再加入这次回答。请依据已有的段落回答。",
        en="There are passages, but none can be added to this answer any more. Answer from those you have.",
    )


def _all_there(language: Language, count: int) -> Status:
    return Status(
        stage="tool", content=choose(language, zh="检索结果已就绪。", en="The search results are in."), count=count
    )
