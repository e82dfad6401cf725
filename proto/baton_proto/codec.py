"""Bytes to messages and back: msgpack between processes, JSON or msgpack towards clients.

Decoding checks everything once, here, so that no other code has to: size, msgpack form, wire version, field types, and
the shape of a log entry. Encoding checks the same, so that no program writes what the others refuse to read.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import msgspec

from .messages import (
    MAX_ENTRY_BYTES,
    MAX_FRAME_BYTES,
    MAX_FREE_FORM_DEPTH,
    MAX_ITEM_BYTES,
    MAX_ITEM_DEPTH,
    TERMINAL,
    WIRE_VERSION,
    Announcement,
    CancelOrder,
    Conversation,
    DeadWork,
    FileRecord,
    Holdings,
    IngestItem,
    LogEntry,
    LogFrame,
    Message,
    Returned,
    StoredAnswer,
    ToolCalled,
    WorkItem,
    WorkRef,
)

ACCEPTED_VERSIONS = frozenset({WIRE_VERSION, WIRE_VERSION - 1}) - {0}
_ITEM_FIELDS = frozenset(field.encode_name for field in msgspec.structs.fields(WorkItem))

M = TypeVar(
    "M",
    LogEntry,
    WorkRef,
    Announcement,
    CancelOrder,
    Returned,
    DeadWork,
    Holdings,
    StoredAnswer,
    Conversation,
    IngestItem,
    FileRecord,
)


class WireError(ValueError):
    """Bytes that are no message of this contract; the text says what is wrong with them."""


class _Head(msgspec.Struct):
    v: int


def _refuse_extension(code: int, _: memoryview) -> Any:
    raise WireError(f"msgpack extension type {code} has no place in a message")


_head = msgspec.msgpack.Decoder(_Head)
_decoders: dict[type, msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(kind, ext_hook=_refuse_extension) for kind in M.__constraints__
}
_map_decoder: msgspec.msgpack.Decoder[dict[str, Any]] = msgspec.msgpack.Decoder(
    dict[str, Any], ext_hook=_refuse_extension
)
_frame_decoder: msgspec.msgpack.Decoder[LogFrame] = msgspec.msgpack.Decoder(LogFrame, ext_hook=_refuse_extension)


def encode(message: M) -> bytes:
    """The msgpack bytes of a message between processes.

    Raises:
        WireError: no reader would accept them, and why.
    """
    data = _pack(message)
    decode(data, type(message))
    return data


def decode(data: bytes, kind: type[M]) -> M:
    """The message in `data`.

    Raises:
        WireError: oversized, truncated, not a map, another wire version, an unknown frame type, a wrong field, or an
            entry whose frames do not follow each other.
    """
    if len(data) > MAX_ENTRY_BYTES:
        raise WireError(f"a {kind.__name__} of {len(data)} bytes is over the limit of {MAX_ENTRY_BYTES}")
    try:
        _check_version(_head.decode(data).v)
        message: M = _decoders[kind].decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable(data, kind, error) from None
    if isinstance(message, LogEntry):
        _check_entry(message)
    elif isinstance(message, Announcement):
        for tool in message.tools:
            _check_plain(tool.parameters, "parameters", MAX_FREE_FORM_DEPTH)
    return message


def check_frame(frame: LogFrame) -> int:
    """The size of a frame in bytes, if a log can carry it.

    Raises:
        WireError: a field of the wrong type or outside its bounds, text that is not Unicode, or too large.
    """
    data = _pack(frame)
    try:
        _check_free_form(_frame_decoder.decode(data))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise WireError(f"not a {type(frame).__name__} frame: {error}") from None
    if len(data) > MAX_FRAME_BYTES:
        raise WireError(f"a frame of {len(data)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return len(data)


def item_to_map(item: WorkItem) -> dict[str, Any]:
    """A work item as the map that travels in a hand-off; its unknown fields stand where they came from."""
    fields: dict[str, Any] = msgspec.to_builtins(item)
    extra = fields.pop("extra", {})
    return {**extra, **fields}


def item_from_map(raw: dict[str, Any]) -> WorkItem:
    """The work item in a hand-off's map; fields that this version does not know are kept in `extra`.

    Raises:
        WireError: another wire version, or a wrong field.
    """
    known = {name: value for name, value in raw.items() if name in _ITEM_FIELDS and name != "extra"}
    extra = {name: value for name, value in raw.items() if name not in _ITEM_FIELDS}
    _check_version(known.get("v"))
    _check_plain(raw, "item", MAX_ITEM_DEPTH)
    try:
        item = msgspec.convert(known, WorkItem)
    except msgspec.ValidationError as error:
        raise WireError(f"not a WorkItem: {error}") from None
    return msgspec.structs.replace(item, extra=extra)


def pack_item(item: WorkItem) -> bytes:
    """The item alone, as it lies in the object store when it is too large for a hand-off.

    Raises:
        WireError: a worker would refuse it.
    """
    data = _pack(item_to_map(item))
    unpack_item(data)
    return data


def unpack_item(data: bytes) -> WorkItem:
    """The work item in the bytes of an object.

    Raises:
        WireError: oversized, truncated, not a map, another wire version, or a wrong field.
    """
    if len(data) > MAX_ITEM_BYTES:
        raise WireError(f"a WorkItem of {len(data)} bytes is over the limit of {MAX_ITEM_BYTES}")
    try:
        raw = _map_decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable(data, WorkItem, error) from None
    return item_from_map(raw)


def client_map(request_id: str, frame: LogFrame) -> dict[str, Any]:
    """A log frame as a client sees it: with its request, without the hand-off."""
    fields: dict[str, Any] = msgspec.to_builtins(frame)
    fields.pop("handoff", None)
    fields["request_id"] = request_id
    return fields


def client_bytes(message: Message | dict[str, Any], *, binary: bool) -> bytes:
    """What goes to a client: UTF-8 JSON, or msgpack for the subprotocol `baton.v1.msgpack`."""
    return msgspec.msgpack.encode(message) if binary else msgspec.json.encode(message)


def _pack(message: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(message)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"a {type(message).__name__} that msgpack cannot carry: {error}") from None


def _check_version(version: Any) -> None:
    if type(version) is not int or version not in ACCEPTED_VERSIONS:
        readable = ", ".join(map(str, sorted(ACCEPTED_VERSIONS)))
        raise WireError(f"wire version {version!r:.40} is not one this program reads ({readable})")


def _unreadable(data: bytes, kind: type, error: Exception) -> WireError:
    """What is wrong with bytes that did not decode; the wrong version is named first, since it explains the rest."""
    try:
        raw = msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as broken:
        return WireError(f"not one whole msgpack value: {broken}")
    if not isinstance(raw, dict):
        return WireError(f"a message is a map, not {type(raw).__name__}")
    try:
        _check_version(raw.get("v"))
    except WireError as wrong:
        return wrong
    return WireError(f"not a {kind.__name__}: {error}")


def _check_entry(entry: LogEntry) -> None:
    """The frames of an entry follow each other without a gap, and only the last may end the writer's part."""
    frames = entry.frames
    first, last = frames[0].seq, len(frames) - 1
    if first < 0:
        raise WireError("a frame has no seq, or a negative one")
    for at, frame in enumerate(frames):
        if frame.seq != first + at:
            raise WireError(f"frames of an entry are numbered without gaps: found {frame.seq}, not {first + at}")
        if not frame.timestamp:
            raise WireError(f"frame {frame.seq} has no timestamp")
        if at < last and (isinstance(frame, TERMINAL) or frame.handoff is not None):
            raise WireError(f"frame {frame.seq} ends its writer's part, but another follows it in the entry")
        _check_free_form(frame)


def _check_free_form(frame: LogFrame) -> None:
    if isinstance(frame, ToolCalled):
        _check_plain(frame.arguments, "arguments", MAX_FREE_FORM_DEPTH)
    if frame.handoff is not None:
        if (frame.handoff.item is None) == (frame.handoff.object is None):
            raise WireError("a hand-off has either an item or the name of an object")
        if isinstance(frame, TERMINAL):
            raise WireError("a terminal frame cannot hand over")
        _check_plain(frame.handoff.item, "item", MAX_ITEM_DEPTH)


def _check_plain(value: Any, name: str, levels: int) -> None:
    """Free-form parts hold what JSON can hold, so that every language and every client can read them."""
    if isinstance(value, dict | list):
        if levels == 0:
            raise WireError(f"`{name}` is nested too deeply")
        if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
            raise WireError(f"`{name}` has a key that is not a string")
        for inner in value.values() if isinstance(value, dict) else value:
            _check_plain(inner, name, levels - 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise WireError(f"`{name}` holds a number that is not finite")
    elif not isinstance(value, str | int | None):
        raise WireError(f"`{name}` holds {type(value).__name__}, which JSON cannot")
