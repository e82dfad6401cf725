"""What only a tools worker promises (5)."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from baton_proto import subjects
from baton_proto.messages import ToolCall, ToolCalled, ToolResult, ToolTurn, WorkItem
from conformance.frames import ending, tag, told
from conformance.kit import Kit
from conformance.promise import Broken, promise
from conformance.request import Request

from .items import passed_on

TEXT = "Let me look that up."


async def _returned(one: Request) -> ToolTurn:
    """The turn of a request whose calls were run."""
    handed = await passed_on(one)
    written = await one.written()
    if handed is None or handed[0].stage != subjects.GENERATE:
        raise Broken(f"it ended with {ending(written[-1])}, and not with a hand-off to generate")
    item: WorkItem = handed[0]
    calls = msgspec.convert(one.item["calls"], list[ToolCall])
    if item.calls or item.text:
        raise Broken("the item that it handed back still has `calls` or `text`")
    if len(item.turns) != len(one.item.get("turns") or []) + 1:
        raise Broken(f"the item that it handed back has {len(item.turns)} turns")
    turn = item.turns[-1]
    wanted = {call.call_id for call in calls}
    if {call.call_id for call in turn.calls} != wanted or {result.call_id for result in turn.results} != wanted:
        raise Broken("the turn in the item does not have every call with its result")
    if item.timings.tool_calls != len(calls):
        raise Broken(f"`timings.tool_calls` is {item.timings.tool_calls} after {len(calls)} calls")
    return turn


@promise("5", "tools")
async def every_call_is_shown_and_gets_a_result(kit: Kit) -> None:
    """A tools worker writes each `tool_call` before its `tool_result`, and hands back to `generate` with the last
    result; the item has the calls and results as a turn, with the text that the model wrote before."""
    one = await kit.request({"text": TEXT})
    turn = await _returned(one)
    if turn.text != TEXT:
        raise Broken(f"the turn has the text {turn.text!r}, not what the model wrote before it asked: {TEXT!r}")
    written = await one.written()
    begun: set[str] = set()
    for frame in written:
        if isinstance(frame, ToolCalled):
            begun.add(frame.call_id)
        elif isinstance(frame, ToolResult) and frame.call_id not in begun:
            raise Broken(f"`tool_result` {frame.seq} came before its `tool_call`")
    if not isinstance(written[-1], ToolResult):
        raise Broken(f"it handed back with `{tag(written[-1])}`, not with the last `tool_result`: {told(written)}")
    shown = {frame.call_id: frame for frame in written if isinstance(frame, ToolResult)}
    for result in turn.results:
        was = shown.get(result.call_id)
        if was is None or (was.ok, was.content) != (result.ok, result.content):
            raise Broken(f"the result of {result.call_id} in the turn is another one than the user was shown")


@promise("5", "tools")
async def a_call_that_fails_has_a_result_too(kit: Kit) -> None:
    """A call that cannot be run, of a tool that is not there or with arguments that make no sense, has a result with
    `ok` false."""
    strange: list[dict[str, Any]] = [
        {"call_id": f"call_{secrets.token_hex(4)}", "name": "conformance_no_such_tool", "arguments": {}},
        {
            "call_id": f"call_{secrets.token_hex(4)}",
            "name": kit.calls()[0].name,
            "arguments": {"no such": ["argument"]},
        },
    ]
    turn = await _returned(await kit.request({"calls": strange}))
    ok = {result.call_id: result.ok for result in turn.results}
    if ok[strange[0]["call_id"]]:
        raise Broken("a tool that does not exist had a result with `ok` true")
    needs = next((spec.parameters.get("required") for spec in kit.tools() if spec.name == strange[1]["name"]), None)
    if needs and ok[strange[1]["call_id"]]:
        raise Broken(f"a call of `{strange[1]['name']}` without its {', '.join(needs)} had a result with `ok` true")


@promise("5", "tools")
async def results_that_are_there_are_kept(kit: Kit) -> None:
    """Asked to go on after another, a tools worker keeps the results that are in the log, and hands back with a
    `status` where all are there."""
    calls = kit.calls()
    kept = [
        ToolResult(call_id=call.call_id, name=call.name, ok=True, elapsed_ms=1, content="from an earlier holder")
        for call in calls
    ]
    begun = [ToolCalled(call_id=call.call_id, name=call.name, arguments=call.arguments) for call in calls]
    for results in (kept[:1], kept):
        one = await kit.request({"calls": msgspec.to_builtins(calls)}, written=[*begun, *results])
        turn = await _returned(one)
        later = (await one.written())[len(begun) + len(results) :]
        again = [frame.call_id for frame in later if isinstance(frame, ToolCalled)]
        if again or {frame.call_id for frame in later if isinstance(frame, ToolResult)} & {r.call_id for r in results}:
            raise Broken(f"it wrote again what an earlier holder had written: {told(later)}", "2.2")
        outcomes = {result.call_id: result.content for result in turn.results}
        if any(outcomes[result.call_id] != result.content for result in results):
            raise Broken("a result that was in the log is another one in the turn", "2.2")
