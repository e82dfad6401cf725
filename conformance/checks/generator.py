"""What only a generator promises (5)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from baton_proto import codec, subjects
from baton_proto.messages import (
    Announcement,
    Done,
    Status,
    ToolCalled,
    ToolOutcome,
    ToolSpec,
    ToolTurn,
    WorkItem,
)
from conformance.frames import ending, text_of
from conformance.kit import Kit
from conformance.promise import Broken, NotSeen, promise
from conformance.request import Request
from services.common.bus import end_tasks
from services.common.calls import result_frame

from .items import LATER, check_survived, passed_on
from .succession import check_citations

SET = "tools.conformance"
HEARD_S = 0.5
"""After which a worker has heard of the tool."""
CALCULATOR = ToolSpec(
    name="calculator",
    description="Works out an arithmetic expression exactly.",
    parameters={"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
)


@promise("5", "generator")
async def an_answer_cites_only_what_was_given(kit: Kit) -> None:
    """A generator streams the answer's text and ends with `done`; what it cites is in the item's passages, and stands
    in the text where `done` says."""
    some: list[dict[str, Any]] = [{}, {"passages": []}]
    for item in some:
        one = await kit.request(item)
        await one.tell()
        written = await one.finished()
        done, numbers = written[-1], {passage["n"] for passage in one.item["passages"]}
        if not isinstance(done, Done):
            raise Broken(f"a good item ended with {ending(done)}")
        if not text_of(written).strip():
            raise Broken("`done` came without any text")
        if strange := ({*done.cited} | {each.n for each in done.citations}) - numbers:
            raise Broken(f"it cites {sorted(strange)}; the passages it was given are {sorted(numbers) or 'none'}")
        check_citations(text_of(written), written)


@promise("5", "generator")
async def a_generator_uses_what_tools_gave(kit: Kit) -> None:
    """To have tools called a generator sets the item's `calls`, of one tool set only, and hands over; with the results
    in `turns` it goes on."""
    async with calculator(kit, SET):
        await _with_a_tool(kit)


@asynccontextmanager
async def calculator(kit: Kit, stage: str, variant: str = "") -> AsyncIterator[None]:
    """Workers of this stage and variant, as far as can be heard, serve `CALCULATOR` meanwhile.

    Raises:
        NotSeen: it is somebody else's NATS.
    """
    if not kit.alone:
        raise NotSeen("other generators would see the kit's tool: leave out --nats")
    said = Announcement(worker=kit.bus.name, stage=stage, variant=variant, slots=1, running=0, tools=[CALCULATOR])
    subject = subjects.presence_subject(subjects.queue_name(stage, variant))

    async def announce() -> None:
        while True:
            await kit.bus.publish(subject, codec.encode(said))
            await asyncio.sleep(0.2)

    async with kit.announcing:
        announcing = asyncio.create_task(announce())
        try:
            await asyncio.sleep(HEARD_S)
            yield
        finally:
            await end_tasks(announcing)
            await kit.bus.publish(subject, codec.encode(msgspec.structs.replace(said, draining=True)))


async def asked_to_multiply(
    kit: Kit, a: int, b: int, fields: dict[str, Any]
) -> tuple[Request, tuple[WorkItem, dict[str, Any]]]:
    """A request for which the worker wants `CALCULATOR` called, and what it handed on.

    Raises:
        Broken, NotSeen
    """
    for _ in range(2):
        one = await kit.request({"query": f"What is {a} * {b}?", **fields})
        if (handed := await passed_on(one)) is not None:
            return one, handed
    raise NotSeen("it answered an arithmetic question without the calculator that was there")


async def _with_a_tool(kit: Kit) -> None:
    a, b = 1_000 + secrets.randbelow(9_000), 1_000 + secrets.randbelow(9_000)
    one, (item, raw) = await asked_to_multiply(kit, a, b, LATER)
    last = (await one.written())[-1]
    check_survived(raw)
    if raw.get("passages") != one.item["passages"]:
        raise Broken("the item that it handed on has other `passages`", "2.6")
    if not isinstance(last, Status) or last.stage != "tool" or item.stage != SET:
        raise Broken(f"it handed over to {item.stage} with {ending(last)}, and not to {SET} with a `tool` status")
    if not item.calls or {call.name for call in item.calls} != {CALCULATOR.name}:
        raise Broken(f"the item has the calls {[call.name for call in item.calls]}; {SET} serves only `calculator`")
    results = [ToolOutcome(call_id=call.call_id, name=call.name, ok=True, content=str(a * b)) for call in item.calls]
    turn = msgspec.to_builtins(ToolTurn(calls=item.calls, results=results, text=item.text))
    back: dict[str, Any] = {**raw, "stage": subjects.GENERATE, "calls": [], "text": "", "turns": [turn]}
    one.last = one.live[-1][1]
    one.next_seq = last.seq + 1
    for call in item.calls:
        await one.append(ToolCalled(call_id=call.call_id, name=call.name, arguments=call.arguments))
    *before, final = [result_frame(result) for result in results]
    for frame in before:
        await one.append(frame)
    await one.hand_over(final, back)
    await one.tell()
    written = await one.finished()
    if not isinstance(written[-1], Done):
        raise Broken(f"with the tool's result it ended with {ending(written[-1])}")
