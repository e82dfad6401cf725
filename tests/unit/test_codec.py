"""Bytes to messages and back: what is accepted comes back the same, and nothing else gets through."""

from __future__ import annotations

import contextlib

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton_proto import codec
from baton_proto.codec import WireError
from baton_proto.messages import (
    MAX_ENTRY_BYTES,
    MAX_FRAME_BYTES,
    Announcement,
    AnswerChunk,
    CancelOrder,
    DeadWork,
    Done,
    Handoff,
    LogEntry,
    LogFrame,
    Passage,
    Source,
    Sources,
    Status,
    Timings,
    ToolCalled,
    ToolSpec,
    Usage,
    WorkItem,
    WorkRef,
)

KEY = "0123456789abcdef0123456789abcdef"
TIME = "2026-11-22T07:00:00.000Z"
KINDS = (LogEntry, WorkRef, Announcement, CancelOrder, DeadWork)

ids = st.text("abcXYZ019_-", min_size=1, max_size=64)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
plain = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
maps = st.dictionaries(texts, plain, max_size=3)
keys = st.text("0123456789abcdef", min_size=32, max_size=32)
counts = st.integers(0, 2**31)
refs = st.builds(
    WorkRef, stage=st.sampled_from(["retrieve", "generate", "tools.x"]), key=keys, shard=counts, seq=counts
)
frames = st.one_of(
    st.builds(AnswerChunk, content=texts),
    st.builds(Status, stage=st.sampled_from(["retrieving", "tool"]), content=texts, count=st.none() | counts),
    st.builds(ToolCalled, call_id=names, name=names, arguments=maps),
)
items = st.builds(
    WorkItem,
    stage=st.just("generate"),
    key=keys,
    shard=counts,
    request_id=ids,
    owner=texts,
    query=texts,
    language=st.sampled_from(["zh", "en"]),
    received_ms=counts,
    deadline_ms=counts,
    queued_ms=counts,
    claims=maps,
    filters=st.none() | maps,
    passages=st.lists(
        st.builds(
            Passage,
            n=st.integers(1, 50),
            id=texts,
            document_id=texts,
            title=texts,
            url=texts,
            text=texts,
            score=st.floats(-1e6, 1e6),
        ),
        max_size=3,
    ),
)


@st.composite
def entries(draw: st.DrawFn) -> LogEntry:
    first = draw(counts)
    written = [
        msgspec.structs.replace(frame, seq=first + at, timestamp=TIME)
        for at, frame in enumerate(draw(st.lists(frames, min_size=1, max_size=5)))
    ]
    return LogEntry(request_id=draw(ids), append_id=draw(names), writer=draw(names), frames=written)


messages = st.one_of(
    entries(),
    refs,
    st.builds(
        Announcement,
        worker=names,
        stage=st.just("tools.x"),
        slots=counts,
        running=counts,
        tools=st.lists(st.builds(ToolSpec, name=ids, description=texts, parameters=maps), max_size=2),
    ),
    st.builds(CancelOrder, key=keys, requested_ms=counts),
    st.builds(DeadWork, ref=refs, request_id=ids, reason=texts, deliveries=counts, at_ms=counts),
)


def entry(*frames: LogFrame, **changes: object) -> LogEntry:
    return LogEntry(request_id="r1", append_id="a1", writer="w1", frames=list(frames), **changes)


def chunk(seq: int = 0, content: str = "hello", **changes: object) -> AnswerChunk:
    return AnswerChunk(seq=seq, timestamp=TIME, content=content, **changes)


def raw(**changes: object) -> bytes:
    """The bytes of a small entry with top-level fields replaced; None takes one away."""
    fields = {**msgspec.to_builtins(entry(chunk())), **changes}
    return msgpack.packb({name: value for name, value in fields.items() if value is not None})


def item(**changes: object) -> WorkItem:
    fields = {
        "stage": "retrieve",
        "key": KEY,
        "shard": 3,
        "request_id": "r1",
        "owner": "o",
        "query": "问",
        "language": "zh",
    }
    return WorkItem(**{**fields, "received_ms": 1, "deadline_ms": 2, "queued_ms": 1, **changes})


@given(messages)
def test_every_message_comes_back_as_it_was(message) -> None:
    assert codec.decode(codec.encode(message), type(message)) == message


@given(messages)
def test_any_msgpack_reader_can_read_a_message(message) -> None:
    assert msgpack.unpackb(codec.encode(message)) == msgspec.to_builtins(message)


@given(st.binary(max_size=200), st.sampled_from(KINDS))
def test_arbitrary_bytes_raise_nothing_but_a_wire_error(data: bytes, kind: type) -> None:
    with contextlib.suppress(WireError):
        codec.decode(data, kind)


@given(messages, st.data())
def test_damaged_bytes_raise_nothing_but_a_wire_error(message, data: st.DataObject) -> None:
    packed = bytearray(codec.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(WireError):
        codec.decode(bytes(packed), type(message))


@given(messages, st.data())
def test_a_truncated_message_is_refused(message, data: st.DataObject) -> None:
    packed = codec.encode(message)
    with pytest.raises(WireError, match="msgpack value"):
        codec.decode(packed[: data.draw(st.integers(0, len(packed) - 1))], type(message))


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_no_work_item_and_raise_nothing_else(data: bytes) -> None:
    with pytest.raises(WireError):
        codec.unpack_item(data)


@given(items, maps)
def test_unknown_fields_of_an_item_survive_a_hand_off(given_item: WorkItem, unknown: dict) -> None:
    newer = {**codec.item_to_map(given_item), **{f"x_{name}": value for name, value in unknown.items()}}
    read = codec.unpack_item(msgpack.packb(newer))
    handed_over = msgspec.structs.replace(read, stage="tools.x", text="so far")
    assert codec.item_to_map(handed_over) == {**newer, "stage": "tools.x", "text": "so far"}
    assert msgpack.unpackb(codec.pack_item(handed_over)) == codec.item_to_map(handed_over)


def test_an_item_never_writes_its_extra_field() -> None:
    assert "extra" not in codec.item_to_map(item(extra={"colour": "red"}))
    assert codec.item_to_map(item(extra={"colour": "red"}))["colour"] == "red"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (raw() + b"\x00", "trailing"),
        (b"\x90", "map"),
        (b"\xc0", "map"),
        (raw(v=None), "version None"),
        (raw(v=2), "version 2"),
        (raw(v=True), "version True"),
        (raw(v=[]), r"version \[\]"),
        (raw(v="1"), "version '1'"),
        (raw(request_id="a b"), "request_id"),
        (raw(request_id="r1\n"), "request_id"),
        (raw(frames=[]), "frames"),
        (raw(frames=None), "frames"),
        (raw(frames=[{"type": "song", "seq": 0, "timestamp": TIME}]), "song"),
        (raw(frames=[{"type": "answer_chunk", "seq": 0, "timestamp": TIME, "content": 5}]), "content"),
        (raw(frames=[{"type": "answer_chunk", "timestamp": TIME, "content": ""}]), "no seq"),
        (raw(frames=[{"type": "answer_chunk", "seq": 0, "content": ""}]), "timestamp"),
        (raw(frames=msgspec.to_builtins([chunk(4), chunk(6)])), "found 6, not 5"),
        (raw(frames=msgspec.to_builtins([chunk(4), chunk(4)])), "found 4, not 5"),
        (raw(frames=msgspec.to_builtins([chunk(0)] * 513)), "512"),
        (msgpack.packb({**msgpack.unpackb(raw()), 5: 1}), "key"),
        (raw(append_id=""), "append_id"),
    ],
)
def test_an_entry_that_breaks_the_contract_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        codec.decode(data, LogEntry)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"a": b"bytes"}, "bytes"),
        ({"a": {5: 1}}, "key"),
        ({"a": float("nan")}, "finite"),
        ({"a": float("inf")}, "finite"),
        ({"a": msgpack.Timestamp(5)}, "datetime"),
        ({"a": msgpack.ExtType(7, b"x")}, "extension type 7"),
    ],
)
def test_free_form_parts_hold_only_what_json_can(arguments: dict, reason: str) -> None:
    call = {"type": "tool_call", "seq": 0, "timestamp": TIME, "call_id": "c", "name": "n", "arguments": arguments}
    with pytest.raises(WireError, match=reason):
        codec.decode(raw(frames=[call]), LogEntry)


def test_deep_nesting_is_refused_whatever_its_depth() -> None:
    for depth in (17, 500, 100_000):
        nested = b"\x81\xa1a" * depth + b"\x01"
        packed = codec.encode(entry(ToolCalled(seq=0, timestamp=TIME, call_id="c", name="n", arguments={"marker": 0})))
        with pytest.raises(WireError):
            codec.decode(packed.replace(b"\x81\xa6marker\x00", nested), LogEntry)


def test_an_oversized_message_is_refused_before_it_is_read() -> None:
    with pytest.raises(WireError, match="limit"):
        codec.decode(b"\xc1" * (MAX_ENTRY_BYTES + 1), LogEntry)
    with pytest.raises(WireError, match="limit"):
        codec.encode(entry(chunk(content="x" * MAX_ENTRY_BYTES)))


def test_the_largest_frame_fits_into_an_entry_with_the_longest_names() -> None:
    overhead = codec.check_frame(chunk(content="")) + 4
    largest = chunk(content="x" * (MAX_FRAME_BYTES - overhead))
    codec.check_frame(largest)
    longest = LogEntry(request_id="r" * 64, append_id="字" * 128, writer="字" * 128, frames=[largest])
    assert len(codec.encode(longest)) <= MAX_ENTRY_BYTES
    with pytest.raises(WireError, match="limit"):
        codec.check_frame(chunk(content="x" * MAX_FRAME_BYTES))


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (chunk(content="\ud800"), "surrogate"),
        (chunk(content=5), "content"),
        (ToolCalled(seq=0, timestamp=TIME, call_id="c", name="n", arguments={"a": 2**70}), "Integer|int"),
        (ToolCalled(seq=0, timestamp=TIME, call_id="c", name="n", arguments={"a": object()}), "object"),
        (
            Sources(
                seq=0,
                timestamp=TIME,
                sources=[Source(n=1, id="p", document_id="d", title="t", url="", snippet="x" * 501, score=1.0)],
            ),
            "500",
        ),
        (
            Sources(
                seq=0,
                timestamp=TIME,
                sources=[Source(n=1, id="p", document_id="d", title="t", url="", snippet="x", score=float("nan"))],
            ),
            "score",
        ),
        (chunk(handoff=Handoff(stage="generate")), "either"),
        (chunk(handoff=Handoff(stage="generate", item={}, object="o")), "either"),
        (chunk(handoff=Handoff(stage="nowhere.>", item={})), "stage"),
    ],
)
def test_a_frame_that_readers_would_refuse_cannot_be_written(frame: LogFrame, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        codec.check_frame(frame)
    with pytest.raises(WireError):
        codec.encode(entry(frame))


def test_nothing_follows_a_terminal_frame_or_a_hand_off_in_an_entry() -> None:
    done = Done(seq=0, timestamp=TIME, finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=Timings())
    for last in (done, chunk(handoff=Handoff(stage="generate", object="o"))):
        codec.encode(entry(last))
        with pytest.raises(WireError, match="another follows"):
            codec.encode(entry(last, chunk(1)))


@pytest.mark.parametrize("field", ["key", "stage", "language", "request_id"])
def test_an_item_with_a_wrong_field_is_refused_by_its_name(field: str) -> None:
    broken = {**codec.item_to_map(item()), field: "no such thing"}
    with pytest.raises(WireError, match=field):
        codec.item_from_map(broken)


def test_a_client_sees_a_frame_with_its_request_and_without_the_hand_off() -> None:
    shown = codec.client_map("r1", chunk(3, handoff=Handoff(stage="generate", object="o")))
    assert shown == {"type": "answer_chunk", "seq": 3, "timestamp": TIME, "content": "hello", "request_id": "r1"}
    assert msgspec.json.decode(codec.client_bytes(shown, binary=False)) == shown
    assert msgpack.unpackb(codec.client_bytes(shown, binary=True)) == shown
