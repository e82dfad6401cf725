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
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from baton_proto.messages import (
    Language,
    LogFrame,
    Passage,
    Sources,
    Status,
    ToolCall,
    ToolCalled,
    ToolOutcome,
    ToolResult,
    ToolTurn,
    WorkItem,
)
from baton_proto.readers import principals
from baton_proto.subjects import GENERATE
from services.common.calls import observing, outcome_of, result_frame, unique_calls
from services.common.config import RetrieverSettings
from services.common.errors import ServiceError
from services.common.job import Job
from services.common.passages import source_of
from services.common.wording import choose, shorten

from .caching import UNKNOWN, Find
from .numbering import Numbers
from .port import SearchRequest
from .search_tool import DEFAULT_TOP_K, MAX_SEARCHES, no_room, nothing_found, problem_of, too_many

_SHOWN_CHARS = 120
_MAX_TITLE_CHARS = 160

_LISTED = re.compile(r"^\[(\d+)\] ", re.MULTILINE)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Search:
    """One call: what it found, or why it did not search."""

    call: ToolCall
    problem: str = ""
    found: Sequence[Passage] = field(default_factory=tuple)
    corpus: str = ""
    elapsed_ms: int = 0


async def search_again(job: Job, find: Find, settings: RetrieverSettings) -> None:
    """Deal with an item that holds a model's wish to search."""
    item = job.item
    calls = unique_calls(item.calls)
    told = {frame.call_id: frame for frame in job.written if isinstance(frame, ToolResult)}
    await _announce(job, calls)
    started = time.monotonic()
    searches = await _searched(calls, item, find, settings)
    elapsed_ms = round((time.monotonic() - started) * 1000)
    shown = next((frame for frame in job.written if isinstance(frame, Sources)), None)
    numbers = Numbers(item.passages, shown.sources if shown else None)
    new = numbers.taken_in([passage for one in searches for passage in one.found])
    if new and shown is None:
        await job.write(Sources(sources=[source_of(passage) for passage in new]))
    passages = [*item.passages, *new]
    results = [_outcome(one, told.get(one.call.call_id), passages, item.language) for one in searches]
    open_results = [result for result in results if result.call_id not in told]
    last: LogFrame = _all_there(item.language, len(calls))
    for result in open_results:
        last = result_frame(result)
        if result is not open_results[-1]:
            await job.write(last)
    next_item = _next_item(item, calls, results, passages, elapsed_ms)
    if any(one.corpus not in ("", item.corpus) for one in searches):
        # Documents have changed since the first search: the answer is about no one state of them.
        next_item = msgspec.structs.replace(next_item, corpus=UNKNOWN)
    await job.hand_over(last, next_item)


async def _announce(job: Job, calls: Sequence[ToolCall]) -> None:
    announced = {frame.call_id for frame in job.written if isinstance(frame, ToolCalled)}
    for call in calls:
        if call.call_id not in announced:
            await job.write(ToolCalled(call_id=call.call_id, name=call.name, arguments=call.arguments))


async def _searched(
    calls: Sequence[ToolCall], item: WorkItem, find: Find, settings: RetrieverSettings
) -> list[_Search]:
    """Every call with what it found, in order; those that may run run side by side."""
    searches: list[_Search] = []
    running = 0
    for call in calls:
        problem = problem_of(call, settings, item.language)
        if not problem and running >= MAX_SEARCHES:
            problem = too_many(item.language)
        running += not problem
        searches.append(_Search(call, problem))
    await asyncio.gather(*(_run(one, item, find) for one in searches if not one.problem))
    return searches


async def _run(one: _Search, item: WorkItem, find: Find) -> None:
    started = time.monotonic()
    arguments = one.call.arguments
    request = SearchRequest(
        query=arguments["query"].strip(),
        language=item.language,
        top_k=int(arguments.get("top_k", DEFAULT_TOP_K)),
        filters=item.filters,
        readers=principals(item.owner, item.claims),
    )
    with observing(one.call) as observed:
        try:
            found = await find(item, request)
            one.found, one.corpus = found.passages, found.corpus
        except ServiceError as error:
            log.warning("searching again failed: %s", error)
            one.problem = str(error)
        observed.ended(ok=not one.problem, result=one.problem or f"{len(one.found)} passages")
    one.elapsed_ms = round((time.monotonic() - started) * 1000)


def _outcome(one: _Search, told: ToolResult | None, passages: Sequence[Passage], language: Language) -> ToolOutcome:
    """The result of a call: as it has been told already, or as it is now."""
    call = one.call
    if told is not None:
        offered = {passage.n for passage in passages}
        listed = [int(number) for number in _LISTED.findall(told.content)] if told.ok else []
        return msgspec.structs.replace(outcome_of(told), passages=[number for number in listed if number in offered])
    if one.problem:
        return ToolOutcome(
            call_id=call.call_id, name=call.name, ok=False, content=one.problem, elapsed_ms=one.elapsed_ms
        )
    by_id = {passage.id: passage for passage in passages}
    found = [by_id[passage.id] for passage in one.found if passage.id in by_id]
    content = "\n".join(map(_line, found)) or (no_room(language) if one.found else nothing_found(language))
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


def _line(passage: Passage) -> str:
    title = f"{passage.title} / {passage.heading}" if passage.heading else passage.title
    return f"[{passage.n}] {shorten(title, _MAX_TITLE_CHARS)}: {shorten(passage.text, _SHOWN_CHARS)}"


def _all_there(language: Language, count: int) -> Status:
    return Status(
        stage="tool", content=choose(language, zh="检索结果已就绪。", en="The search results are in."), count=count
    )
