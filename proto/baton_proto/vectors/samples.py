"""The messages that golden vectors are made of."""

from __future__ import annotations

from typing import Any

import msgspec

from baton_proto import codec
from baton_proto.messages import (
    Accepted,
    AnswerChunk,
    AnswerReset,
    Citation,
    Done,
    Error,
    Handoff,
    LogEntry,
    LogFrame,
    Passage,
    Sampling,
    Source,
    Sources,
    Status,
    Timings,
    ToolCall,
    ToolCalled,
    ToolOutcome,
    ToolResult,
    ToolSpec,
    ToolTurn,
    Usage,
    WorkItem,
    WorkRef,
)
from baton_proto.subjects import address, handoff_object, request_key

Case = dict[str, Any]

OWNER = "u-17"
KEY = request_key(OWNER, "r-1")
SHARD = address(KEY).shard
TIME = "2026-11-22T07:00:00.123Z"
NOW = 1_795_330_800_123
CALL = ToolCall(call_id="c-1", name="date_time", arguments={"city": "上海", "n": 2, "deep": [{"x": None}, 1.5, True]})
SOURCE = Source(
    n=1, id="p-1", document_id="d-1", title="Leave policy", url="/documents/d-1", snippet="年假", score=7.25
)
FULL_SOURCE = msgspec.structs.replace(SOURCE, page=3, start=120, end=320)
PASSAGE = Passage(
    n=1, id="p-1", document_id="d-1", title="Leave policy", url="/documents/d-1", text="年假十天", score=7.25
)
FULL_PASSAGE = msgspec.structs.replace(PASSAGE, page=3, start=120, end=320, heading="Annual leave")
TOOL = ToolSpec(name="date_time", description="Date and time in a city.", parameters={"type": "object"})
USAGE = Usage(prompt_tokens=812, completion_tokens=64)
TIMINGS = Timings(
    queue_ms=3, retrieval_ms=41, ttfb_ms=9, ttft_ms=203, generation_ms=900, tokens_per_second=71.5, tool_calls=1
)
ITEM = WorkItem(
    stage="retrieve",
    key=KEY,
    shard=SHARD,
    request_id="r-1",
    owner=OWNER,
    query="How many days of leave?",
    language="en",
    received_ms=NOW,
    deadline_ms=NOW + 120_000,
    queued_ms=NOW + 1,
)
FULL_ITEM = msgspec.structs.replace(
    ITEM,
    stage="tools.default",
    query="我有几天年假？",
    language="zh",
    claims={"sub": OWNER, "groups": ["staff"]},
    conversation_id="conv-1",
    top_k=6,
    filters={"department": "hr"},
    sampling=Sampling(seed=7, temperature=0.2, max_tokens=512),
    cache=False,
    passages=[FULL_PASSAGE],
    turns=[
        ToolTurn(
            calls=[CALL],
            results=[ToolOutcome(call_id="c-1", name="date_time", ok=False, content="timed out", elapsed_ms=20_000)],
            text="Let me look. ",
        )
    ],
    calls=[msgspec.structs.replace(CALL, call_id="c-2")],
    text="One moment. ",
    timings=TIMINGS,
    usage=USAGE,
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    variant="b",
)
VARIED_ITEM = msgspec.structs.replace(ITEM, variant="b", varied=["retrieve", "generate"])
REF = WorkRef(stage="retrieve", key=KEY, shard=SHARD, seq=0)
INLINE = Handoff(stage="retrieve", item=codec.item_to_map(ITEM))
STORED = Handoff(stage="generate", object=handoff_object(KEY, 3))

FRAMES: dict[str, LogFrame] = {
    "accepted": Accepted(conversation_id="conv-1"),
    "accepted with a hand-off": Accepted(conversation_id="conv-1", handoff=INLINE),
    "status": Status(stage="understanding", content="Reading the question"),
    "status in full": Status(stage="tool", content="正在查询", count=6, elapsed_ms=41, call_id="c-1"),
    "sources, none found, item in the object store": Sources(sources=[], handoff=STORED),
    "sources": Sources(sources=[SOURCE, msgspec.structs.replace(FULL_SOURCE, n=2)]),
    "answer_chunk": AnswerChunk(content="You have ten days [1]. 😀"),
    "answer_chunk, empty": AnswerChunk(content=""),
    "tool_call": ToolCalled(call_id="c-1", name="date_time", arguments=CALL.arguments),
    "tool_call without arguments": ToolCalled(call_id="c-1", name="date_time", arguments={}),
    "tool_result": ToolResult(call_id="c-1", name="date_time", ok=True, elapsed_ms=12, content="15:00"),
    "tool_result of a failed call": ToolResult(
        call_id="c-1", name="date_time", ok=False, elapsed_ms=0, content="interrupted"
    ),
    "answer_reset": AnswerReset(),
    "done": Done(finish_reason="cancelled", cited=[], citations=[], usage=Usage(), timings=Timings()),
    "done in full": Done(
        finish_reason="stop",
        cited=[1],
        citations=[Citation(n=1, start=18, end=21)],
        usage=USAGE,
        timings=TIMINGS,
        fingerprint="fp_44709d6fcb",
        cache="miss",
        variant="b",
    ),
    "error": Error(code="model_failed", message="The model answered with an error.", retryable=False),
    "error in full": Error(code="overloaded", message="Try again soon.", retryable=True, retry_after_ms=1500),
}


def entry(*frames: LogFrame, first: int = 3) -> LogEntry:
    stamped = [msgspec.structs.replace(frame, seq=first + at, timestamp=TIME) for at, frame in enumerate(frames)]
    return LogEntry(request_id="r-1", append_id="5f2c8a90d1e3b764", writer="generator-7f", frames=stamped)


ENTRY = entry(FRAMES["answer_chunk"])


def plain(message: Any) -> dict[str, Any]:
    """A message as maps and lists."""
    fields: dict[str, Any] = msgspec.to_builtins(message)
    return fields


def pack(value: Any) -> bytes:
    """msgpack of anything, without the checks that `codec.encode` makes."""
    return msgspec.msgpack.encode(value)
