"""Golden vectors of messages that must be read, and of frames about a connection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from baton_proto import codec
from baton_proto.messages import (
    Accepted,
    Announcement,
    CancelOrder,
    Citation,
    Conversation,
    ConversationTurn,
    DeadWork,
    FileRecord,
    Handoff,
    HeldItem,
    Hello,
    Holdings,
    IngestItem,
    Limits,
    LogEntry,
    Message,
    PastTurn,
    Pong,
    Resumed,
    Returned,
    RunningTurn,
    Sampling,
    StoredAnswer,
    ToolOutcome,
    ToolTurn,
    WorkRef,
)

from .samples import (
    CALL,
    ENTRY,
    FRAMES,
    FULL_ITEM,
    FULL_SOURCE,
    INLINE,
    ITEM,
    KEY,
    NOW,
    REF,
    STORED,
    TIME,
    TOOL,
    VARIED_ITEM,
    Case,
    entry,
    pack,
    plain,
)


def _messages() -> Iterator[tuple[str, Any]]:
    for name, frame in FRAMES.items():
        yield f"entry: {name}", entry(frame, first=0 if isinstance(frame, Accepted) else 3)
    yield "entry: several frames", entry(*(FRAMES[name] for name in ("status", "answer_chunk", "done")))
    yield "work reference", REF
    yield "work reference for tools", WorkRef(stage="tools.default", key=KEY, shard=0, seq=70_000)
    yield "work reference for a variant", WorkRef(stage="generate", variant="b", key=KEY, shard=0, seq=3)
    varied = Handoff(stage="retrieve", variant="b", item=codec.item_to_map(VARIED_ITEM))
    yield (
        "entry: accepted with a hand-off to a variant",
        entry(Accepted(conversation_id="conv-1", variant="b", handoff=varied), first=0),
    )
    yield (
        "announcement of a variant",
        Announcement(worker="generator-8a", stage="generate", variant="b", slots=16, running=0),
    )
    yield "announcement", Announcement(worker="generator-7f", stage="generate", slots=16, running=0)
    yield (
        "announcement of a draining tools worker",
        Announcement(worker="t", stage="tools.default", slots=4, running=4, draining=True, tools=[TOOL]),
    )
    yield (
        "announcement of a tool that must not be repeated",
        Announcement(
            worker="t", stage="tools.x", slots=1, running=0, tools=[msgspec.structs.replace(TOOL, idempotent=False)]
        ),
    )
    yield "cancel order", CancelOrder(key=KEY, requested_ms=NOW)
    yield "dead work", DeadWork(ref=REF, request_id="r-1", reason="no worker survived it", deliveries=5, at_ms=NOW)
    for name, handoff in (("dead work with its item", INLINE), ("dead work with its item in the object store", STORED)):
        yield name, DeadWork(ref=REF, request_id="r-1", reason="none", deliveries=5, at_ms=NOW, handoff=handoff)
    yield "returned", Returned(key=KEY, seq=3, deliveries=2)
    yield "holdings, none", Holdings(worker="generator-7f", stage="generate", total=0, items=[])
    held = HeldItem(key=KEY, request_id="r-1", seq=3, since_ms=NOW, deliveries=1)
    yield "holdings", Holdings(worker="generator-7f", stage="generate", total=1, items=[held])
    yield "stored answer, only how it ended", StoredAnswer(request_id="r-1", outcome="deadline", ended_ms=NOW)
    yield (
        "stored answer",
        StoredAnswer(
            request_id="r-1",
            outcome="stop",
            ended_ms=NOW,
            finish_reason="stop",
            conversation_id="conv-1",
            answer="Ten days [1].",
            sources=[FULL_SOURCE],
        ),
    )
    yield (
        "announcement of a tool for some groups",
        Announcement(
            worker="r", stage="retrieve", slots=1, running=0, tools=[msgspec.structs.replace(TOOL, groups=["hr"])]
        ),
    )
    yield (
        "conversation that has just begun",
        Conversation(
            conversation_id="conv-1",
            title="How many days of leave?",
            created_ms=NOW,
            updated_ms=NOW,
            running=[RunningTurn(key=KEY, request_id="r-1", since_ms=NOW)],
        ),
    )
    yield (
        "conversation",
        Conversation(
            conversation_id="conv-1",
            title="年假",
            created_ms=NOW,
            updated_ms=NOW + 9_000,
            turns=[
                ConversationTurn(
                    request_id="r-2",
                    asked_ms=NOW,
                    query="那试用期呢？",
                    outcome="stop",
                    standalone="试用期的年假",
                    answer="年假十天 [1]。",
                    sources=[FULL_SOURCE],
                    cited=[1],
                    citations=[Citation(n=1, start=5, end=8)],
                ),
                ConversationTurn(request_id="r-3", asked_ms=NOW + 1, query="为什么？", outcome="deadline"),
            ],
            dropped=12,
        ),
    )
    yield (
        "ingest item",
        IngestItem(
            action="add",
            file=KEY,
            owner="ann",
            name="handbook/年假.md",
            upload="0" * 32,
            readers=["user:ann", "group:hr"],
            metadata={"year": 2026},
            bytes=1_024,
            content_hash="ab" * 32,
        ),
    )
    yield (
        "ingest item to remove",
        IngestItem(action="remove", file=KEY, owner="", name="a.md", upload="1" * 32, readers=["everybody"]),
    )
    yield (
        "file record that is being written",
        FileRecord(
            file=KEY,
            owner="ann",
            name="handbook/年假.md",
            upload="0" * 32,
            state="writing",
            updated_ms=NOW,
            readers=["user:ann"],
            document_id="2" * 32,
            title="年假",
            media_type="text/markdown",
            content_hash="ab" * 32,
            passages=3,
            bytes=1_024,
            done=128,
            total=300,
        ),
    )
    yield (
        "file record that has failed",
        FileRecord(
            file=KEY,
            owner="",
            name="scan.pdf",
            upload="0" * 32,
            state="failed",
            updated_ms=NOW,
            readers=["everybody"],
            error="there is no text in it; is it a scan? Run OCR first",
        ),
    )


def _accepted(name: str, kind: str, data: bytes, meaning: dict[str, Any], *, written: bool) -> Case:
    return {"name": name, "kind": kind, "hex": data.hex(), "meaning": meaning, "written_so": written}


def accepted_cases() -> list[Case]:
    """Messages that must be read. `written_so`: this binding writes exactly these bytes; others may differ."""
    cases = []
    for name, message in _messages():
        case = _accepted(name, type(message).__name__, codec.encode(message), plain(message), written=True)
        if isinstance(message, LogEntry):
            case["shown"] = [codec.client_map(message.request_id, frame) for frame in message.frames]
        cases.append(case)
    for name, item in (("item", ITEM), ("item in full", FULL_ITEM), ("item of a variant", VARIED_ITEM)):
        cases.append(_accepted(name, "WorkItem", codec.pack_item(item), codec.item_to_map(item), written=True))
    placed = msgspec.structs.replace(ITEM, place=70_001)
    cases.append(
        _accepted("item with a place", "WorkItem", codec.pack_item(placed), codec.item_to_map(placed), written=True)
    )
    waiting = msgspec.structs.replace(ITEM, lane=ITEM.key)
    cases.append(
        _accepted("item with a lane", "WorkItem", codec.pack_item(waiting), codec.item_to_map(waiting), written=True)
    )
    talk = msgspec.structs.replace(
        FULL_ITEM,
        stage="generate",
        calls=[],
        text="",
        query="那试用期呢？",
        standalone="试用期的年假",
        history=[
            PastTurn(query="有几天年假？", answer="年假十天。"),
            PastTurn(query="然后？", answer="", standalone="年假"),
        ],
        after=KEY,
        corpus="c1",
        retriever="r1",
        sampling=Sampling(top_p=0.9, presence_penalty=-1.5, frequency_penalty=0.5, stop=["。", "\n"]),
        turns=[
            ToolTurn(
                calls=[CALL],
                results=[ToolOutcome(call_id="c-1", name="search_documents", ok=True, content="1", passages=[1])],
            )
        ],
    )
    name = "item of a conversation"
    cases.append(_accepted(name, "WorkItem", codec.pack_item(talk), codec.item_to_map(talk), written=True))
    newer = {**codec.item_to_map(ITEM), "priority": 3, "hints": {"mood": ["curious"]}}
    cases.append(_accepted("item with unknown fields, all kept", "WorkItem", pack(newer), newer, written=False))
    unknown = {**plain(ENTRY), "zone": "eu", "weights": [1, {"a": 2}]}
    unknown["frames"] = [{**frame, "colour": "red"} for frame in unknown["frames"]]
    cases.append(_accepted("entry: unknown fields are ignored", "LogEntry", pack(unknown), plain(ENTRY), written=False))
    more = {**plain(REF), "priority": 1}
    cases.append(_accepted("work reference with an unknown field", "WorkRef", pack(more), plain(REF), written=False))
    nil = {**plain(FRAMES["status"]), "seq": 3, "timestamp": TIME, "count": None, "handoff": None}
    expected = plain(entry(FRAMES["status"]))
    packed = pack({**expected, "frames": [nil]})
    cases.append(_accepted("entry: nil in an optional field is absent", "LogEntry", packed, expected, written=False))
    cases.append(
        _accepted("work reference in the widest encodings", "WorkRef", _wide(plain(REF)), plain(REF), written=False)
    )
    return cases


def _wide(fields: dict[str, Any]) -> bytes:
    """msgpack that spends as many bytes as it may: map 32, str 32, uint 64. Readers must not mind."""
    data = b"\xdf" + len(fields).to_bytes(4, "big")
    for name, value in fields.items():
        for part in (name, value):
            if isinstance(part, str):
                data += b"\xdb" + len(part.encode()).to_bytes(4, "big") + part.encode()
            else:
                data += b"\xcf" + int(part).to_bytes(8, "big")
    return data


def connection_cases() -> list[Case]:
    """Frames about the connection, as JSON and as msgpack."""
    limits = Limits(message_bytes=10_000_000, query_bytes=32_768, requests_per_connection=64, idle_seconds=300)
    frames: dict[str, Message] = {
        "hello": Hello(protocol="baton.v1", heartbeat_ms=20_000, limits=limits, auth="off", server="0.1.0"),
        "resumed": Resumed(request_id="r-1", recovered=True, next_seq=4),
        "resumed from the stored answer": Resumed(
            request_id="r-1",
            recovered=False,
            next_seq=4,
            answer="Ten days [1].",
            sources=[FULL_SOURCE],
            finish_reason="stop",
        ),
        "pong": Pong(),
    }
    cases = [_shown(name, type(frame).__name__, frame) for name, frame in frames.items()]
    refusal = {"type": "error", "code": "unknown_type", "message": "there is no message type", "retryable": False}
    cases.append(_shown("error about a message", "ConnectionError", refusal))
    refusal = {**refusal, "code": "too_large", "message": "`query` is too long", "request_id": "r-1"}
    cases.append(_shown("error about a message with a request", "ConnectionError", refusal))
    return cases


def _shown(name: str, kind: str, frame: Message | dict[str, Any]) -> Case:
    text = codec.client_bytes(frame, binary=False).decode()
    return {"name": name, "kind": kind, "json": text, "msgpack": codec.client_bytes(frame, binary=True).hex()}
