"""What only a retriever promises (2.2, 5)."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from baton_proto import codec, subjects
from baton_proto.messages import (
    MAX_SNIPPET_CHARS,
    Done,
    LogFrame,
    PastTurn,
    RunningTurn,
    Sources,
    Timings,
    ToolCall,
    ToolCalled,
    ToolResult,
    Usage,
    WorkItem,
)
from conformance.frames import ending, told
from conformance.kit import Kit
from conformance.promise import Broken, NotSeen, promise
from services.common.clock import now_ms
from services.common.taking import returned

from .endings import conversation_of
from .items import passed_on

TOP_K = 2
SEARCH = "search_documents"


async def _handed(kit: Kit, item: dict[str, Any]) -> tuple[list[LogFrame], WorkItem]:
    one = await kit.request(item)
    handed = await passed_on(one)
    written = await one.written()
    if handed is None or not isinstance(written[-1], Sources) or handed[0].stage != subjects.GENERATE:
        raise Broken(f"its last frame was {ending(written[-1])}, not `sources` with a hand-off to generate")
    return written, handed[0]


def _check_sources(written: list[LogFrame], item: WorkItem) -> None:
    """The numbers of the sources are those of the item's passages, each once."""
    sources = [source for frame in written if isinstance(frame, Sources) for source in frame.sources]
    numbers = [source.n for source in sources]
    if numbers != [passage.n for passage in item.passages] or len(set(numbers)) != len(numbers):
        raise Broken(
            f"the sources have the numbers {numbers}, and the item's passages {[one.n for one in item.passages]}"
        )
    for source, passage in zip(sources, item.passages, strict=True):
        if (source.id, source.document_id) != (passage.id, passage.document_id):
            raise Broken(f"source {source.n} is {source.id!r}, and passage {passage.n} is {passage.id!r}")
        if len(source.snippet) > MAX_SNIPPET_CHARS:
            raise Broken(f"the snippet of source {source.n} has {len(source.snippet)} characters", "4")


@promise("5", "retriever")
async def sources_and_passages_have_the_same_numbers(kit: Kit) -> None:
    """A retriever ends with `sources` and hands over to `generate`; the item's passages have the same numbers, and are
    as many as `top_k` at most."""
    written, item = await _handed(kit, {"top_k": TOP_K})
    _check_sources(written, item)
    if len(item.passages) > TOP_K:
        raise Broken(f"{len(item.passages)} passages where `top_k` was {TOP_K}")


@promise("5", "retriever")
async def nothing_found_is_handed_over_too(kit: Kit) -> None:
    """A retriever writes `sources` and hands over also when it found nothing."""
    words = f"{secrets.token_hex(12)} {secrets.token_hex(12)}"
    written, item = await _handed(kit, {"query": words, "filters": {"no_such": "x"}})
    _check_sources(written, item)
    if item.passages:
        raise NotSeen(f"it found {len(item.passages)} passages for words and a filter that fit nothing")


@promise("2.11", "retriever")
async def what_a_user_may_not_read_is_not_found(kit: Kit) -> None:
    """A retriever gives only what one of the request's principals may read: a document of a group is found for who has
    the group in the claim `groups`, and for nobody else."""
    if kit.options.restricted is None:
        raise NotSeen("name a document that the question finds, and that one group may read: --restricted GROUP=ID")
    group, document_id = kit.options.restricted
    strangers: list[dict[str, Any]] = [{}, {"groups": []}, {"groups": [f"{group}-not"]}, {"group": [group]}]
    for claims in ({"groups": [group]}, *strangers):  # first who may: what was found for him is not kept for others
        _, item = await _handed(kit, {"claims": claims})
        found = any(passage.document_id == document_id for passage in item.passages)
        if not found and claims not in strangers:
            raise NotSeen(f"{document_id} is not found for who is in {group} either; --question can ask for it")
        if found and claims in strangers:
            raise Broken(f"{document_id}, which only {group} may read, was found for a user with the claims {claims}")


@promise("5", "retriever")
async def a_follow_up_is_handed_over_with_its_meaning(kit: Kit) -> None:
    """Where the item has a `history`, the question is made to stand alone; the history goes on with the item."""
    past = PastTurn(query=kit.options.question, answer="Twenty days.")
    history = [{"query": past.query, "answer": past.answer}]
    _, item = await _handed(kit, {"query": "And for part-time employees?", "history": history})
    if item.history != [past]:
        raise Broken(f"the history that it handed on is {item.history}", "2.6")


@promise("2.2", "retriever")
async def a_request_waits_for_the_one_before(kit: Kit) -> None:
    """An item with `after` is given back, and that is counted, until the requests before it have ended; then it is
    worked on, without `after`."""
    conversation = f"conformance-{secrets.token_hex(4)}"
    first = await kit.request({"conversation_id": conversation})
    second = await kit.request({"conversation_id": conversation, "after": first.key})
    running = [
        RunningTurn(key=one.key, request_id=one.item["request_id"], since_ms=now_ms()) for one in (first, second)
    ]
    subject = subjects.conversation_subject(kit.owner, conversation)
    await kit.bus.store(subject, codec.encode(conversation_of(conversation, running)))
    try:
        await second.tell()
        await kit.witness.until(lambda: second.attempts or second.settled(), kit.patience_s)
        if written := await second.written():
            raise Broken(f"the request before had not ended, and it wrote {told(written)}")
        if not await returned(kit.bus, second.key, second.handed_at):
            raise Broken("it did not count on `baton.v1.returned` that it gave the item back")
        await first.append(Done(finish_reason="cancelled", cited=[], citations=[], usage=Usage(), timings=Timings()))
        last = (await second.finished())[-1]
        if last.handoff is not None and (await second.next_item(last))[0].after is not None:
            raise Broken("the item that it handed on still has its `after`")
    finally:
        await asyncio.shield(kit.bus.purge(f"KV_{subjects.CONVERSATIONS_BUCKET}", subject))


@promise("5", "retriever")
async def a_search_that_a_model_wants_is_made(kit: Kit) -> None:
    """An item with calls of `search_documents` is dealt with as by a tools worker; what is new gets the next free
    numbers."""
    if SEARCH not in {spec.name for said, _ in kit.witness.announced for spec in said.tools}:
        raise NotSeen(f"the worker does not announce `{SEARCH}`")
    call = ToolCall(call_id=f"call_{secrets.token_hex(4)}", name=SEARCH, arguments={"query": kit.options.question})
    one = await kit.request({"calls": [{"call_id": call.call_id, "name": call.name, "arguments": call.arguments}]})
    handed = await passed_on(one)
    written = await one.written()
    if not [frame for frame in written if isinstance(frame, ToolCalled)] or handed is None:
        raise Broken(f"it wrote {told(written)}")
    if not any(isinstance(frame, ToolResult) and frame.call_id == call.call_id for frame in written):
        raise Broken("the call has no `tool_result`")
    item = handed[0]
    if item.calls or not item.turns or [result.call_id for result in item.turns[-1].results] != [call.call_id]:
        raise Broken("the item that it handed on lacks the turn with the call's result, or still has the call")
    _check_sources(written, item)
    numbers = {passage.n for passage in item.passages}
    if strange := set(item.turns[-1].results[0].passages) - numbers:
        raise Broken(f"the result names passages {sorted(strange)}, which the item does not have")
