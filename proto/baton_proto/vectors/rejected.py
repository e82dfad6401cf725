"""Golden vectors of bytes that a reader must refuse, each with the rule it breaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from baton_proto import codec
from baton_proto.messages import MAX_ENTRY_BYTES, AnswerChunk

from .samples import ENTRY, FRAMES, ITEM, KEY, REF, SOURCE, TIME, Case, entry, pack, plain


def _with(message: Any, **changes: Any) -> bytes:
    """The bytes of a message with fields replaced, `...` takes one away."""
    fields = {**plain(message), **changes}
    return pack({name: value for name, value in fields.items() if value is not ...})


def _frames(**changes: Any) -> bytes:
    """The bytes of the small entry whose frame has fields replaced, `...` takes one away."""
    frame = {**plain(ENTRY)["frames"][0], **changes}
    return _with(ENTRY, frames=[{name: value for name, value in frame.items() if value is not ...}])


def _call(arguments: Any) -> bytes:
    return _frames(type="tool_call", call_id="c-1", name="n", content=..., arguments=arguments)


def _nested(levels: int) -> bytes:
    inner: Any = 1
    for _ in range(levels):
        inner = {"a": inner}
    return _call(inner)


def _broken_entries() -> Iterator[tuple[str, str, bytes]]:
    good = codec.encode(ENTRY)
    chunk = plain(ENTRY)["frames"][0]
    done = {**plain(FRAMES["done"]), "seq": 3, "timestamp": TIME}
    yield "empty", "not one whole msgpack value", b""
    yield "truncated", "not one whole msgpack value", good[:-1]
    yield "trailing byte", "not one whole msgpack value", good + b"\xc0"
    yield "the byte that msgpack never uses", "not one whole msgpack value", b"\xc1"
    yield "not a map: array", "a message is a map", b"\x90"
    yield "not a map: text", "a message is a map", b"\xa2hi"
    yield "not a map: nil", "a message is a map", b"\xc0"
    yield "key that is no string", "keys are strings", pack({**plain(ENTRY), 5: 1})
    yield "invalid UTF-8", "text is UTF-8", good.replace(b"You", b"\xffou")
    yield "half a surrogate pair", "text is UTF-8", good.replace(b"You", b"\xed\xa0\x80")
    yield "version missing", "`v` is missing", _with(ENTRY, v=...)
    yield "version from the future", "another wire version", _with(ENTRY, v=2)
    yield "version 0", "another wire version", _with(ENTRY, v=0)
    yield "version is text", "`v` is an integer", _with(ENTRY, v="1")
    yield "version is true", "`v` is an integer", _with(ENTRY, v=True)
    yield "version is a list", "`v` is an integer", _with(ENTRY, v=[1])
    yield "request_id missing", "a required field is missing", _with(ENTRY, request_id=...)
    yield "request_id with a space", "`request_id` has a fixed form", _with(ENTRY, request_id="r 1")
    yield "request_id with a line feed", "`request_id` has a fixed form", _with(ENTRY, request_id="r-1\n")
    yield "request_id too long", "`request_id` has a fixed form", _with(ENTRY, request_id="r" * 65)
    yield "append_id empty", "`append_id` has 1 to 128 characters", _with(ENTRY, append_id="")
    yield "no frames", "an entry has a frame", _with(ENTRY, frames=[])
    yield "frames is a map", "`frames` is a list", _with(ENTRY, frames={})
    yield "frame of unknown type", "unknown frame type", _frames(type="song")
    yield "frame without type", "a frame has a type", _frames(type=...)
    yield "frame without seq", "a stored frame has `seq`", _frames(seq=...)
    yield "frame with negative seq", "`seq` is at least 0", _frames(seq=-1)
    yield "frame without timestamp", "a stored frame has `timestamp`", _frames(timestamp=...)
    yield "content is a number", "a field of the wrong type", _frames(content=5)
    yield "content is binary", "a field of the wrong type", _frames(content=b"You")
    yield "seq is a fraction", "a field of the wrong type", _frames(seq=3.5)
    yield "seq skips", "frames of an entry follow each other", _with(ENTRY, frames=[chunk, {**chunk, "seq": 5}])
    yield "seq repeats", "frames of an entry follow each other", _with(ENTRY, frames=[chunk, chunk])
    yield "frame after the end", "a terminal frame is the last", _with(ENTRY, frames=[done, {**chunk, "seq": 4}])
    passed = {**chunk, "handoff": {"stage": "generate", "object": "o"}}
    yield "frame after a hand-off", "a hand-off is the last", _with(ENTRY, frames=[passed, {**chunk, "seq": 4}])
    yield "hand-off of nothing", "either `item` or `object`", _frames(handoff={"stage": "generate"})
    both = {"stage": "generate", "item": {}, "object": "o"}
    yield "hand-off of an item and an object", "either `item` or `object`", _frames(handoff=both)
    yield "hand-off to no stage", "unknown stage", _frames(handoff={"stage": "tools.*", "object": "o"})
    ending = {**done, "handoff": {"stage": "generate", "object": "o"}}
    yield "terminal frame with a hand-off", "a terminal frame hands nothing over", _with(ENTRY, frames=[ending])
    yield "score is NaN", "numbers are finite", _with(ENTRY, frames=[_source(score=float("nan"))])
    yield "score is infinite", "numbers are finite", _with(ENTRY, frames=[_source(score=float("inf"))])
    yield "snippet too long", "a snippet has at most 500 characters", _with(ENTRY, frames=[_source(snippet="字" * 501)])
    yield "source number 0", "`n` is at least 1", _with(ENTRY, frames=[_source(n=0)])
    yield "error with an unknown code", "unknown error code", _with(ENTRY, frames=[{**_error(), "code": "oops"}])
    yield "arguments: NaN", "free-form parts hold what JSON can", _call({"a": float("nan")})
    yield "arguments: binary", "free-form parts hold what JSON can", _call({"a": b"raw"})
    yield "arguments: number as key", "keys are strings", _call({"a": {1: 2}})
    yield "arguments: extension type", "no extension types", _call({"a": msgspec.msgpack.Ext(7, b"x")})
    yield "arguments: timestamp extension", "no extension types", _call({"a": msgspec.msgpack.Ext(-1, b"\0\0\0\1")})
    yield "arguments: 17 levels", "at most 16 levels", _nested(17)


def _source(**changes: Any) -> dict[str, Any]:
    return {"type": "sources", "seq": 3, "timestamp": TIME, "sources": [{**plain(SOURCE), **changes}]}


def _error() -> dict[str, Any]:
    return {**plain(FRAMES["error"]), "seq": 3, "timestamp": TIME}


def rejected_cases() -> list[Case]:
    """Bytes that a reader must refuse, each with the rule it breaks."""
    cases: list[Case] = [
        {"name": f"entry: {name}", "kind": "LogEntry", "breaks": rule, "hex": data.hex()}
        for name, rule, data in _broken_entries()
    ]
    others: list[tuple[str, str, str, bytes]] = [
        ("work reference: stage with a wildcard", "WorkRef", "unknown stage", _with(REF, stage="tools.>")),
        ("work reference: variant with a dot", "WorkRef", "no such variant", _with(REF, variant="b.c")),
        ("work reference: key too short", "WorkRef", "a key is 32 lower-case hex digits", _with(REF, key=KEY[:31])),
        ("work reference: key in capitals", "WorkRef", "a key is 32 lower-case hex digits", _with(REF, key="A" * 32)),
        ("work reference: seq missing", "WorkRef", "a required field is missing", _with(REF, seq=...)),
        ("work reference: negative shard", "WorkRef", "`shard` is at least 0", _with(REF, shard=-1)),
        ("item: version missing", "WorkItem", "`v` is missing", _with(ITEM, v=...)),
        ("item: version from the future", "WorkItem", "another wire version", _with(ITEM, v=2)),
        ("item: query missing", "WorkItem", "a required field is missing", _with(ITEM, query=...)),
        ("item: language it does not know", "WorkItem", "unknown language", _with(ITEM, language="fr")),
        ("item: passages is a map", "WorkItem", "a field of the wrong type", _with(ITEM, passages={})),
        ("item: unknown field with NaN", "WorkItem", "numbers are finite", _with(ITEM, hint=float("nan"))),
        ("item: truncated", "WorkItem", "not one whole msgpack value", codec.pack_item(ITEM)[:-1]),
        ("item: not a map", "WorkItem", "a message is a map", b"\x01"),
    ]
    cases += [{"name": name, "kind": kind, "breaks": rule, "hex": data.hex()} for name, kind, rule, data in others]
    repeated = {"prefix": "", "repeat": "91", "times": 100_000, "suffix": "c0"}
    cases.append({"name": "entry: 100,000 levels", "kind": "LogEntry", "breaks": "not a map", "build": repeated})
    text = codec.encode(entry(AnswerChunk(content="x" * 70_000)))
    prefix, suffix = text.split(b"x" * 70_000)
    size = MAX_ENTRY_BYTES
    prefix = prefix[: -5 if prefix[-5:-4] == b"\xdb" else len(prefix)] + b"\xdb" + size.to_bytes(4, "big")
    large = {"prefix": prefix.hex(), "repeat": "78", "times": size, "suffix": suffix.hex()}
    cases.append({"name": "entry: oversized", "kind": "LogEntry", "breaks": f"at most {size} bytes", "build": large})
    return cases
