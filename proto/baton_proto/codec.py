"""Bytes to messages and back: msgpack between processes, JSON or msgpack towards clients.

Decoding checks everything once, here, so that no other code has to: size, msgpack form, wire version, field types.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgpack
import msgspec

from .messages import (
    MAX_ENTRY_BYTES,
    WIRE_VERSION,
    Announcement,
    CancelOrder,
    DeadWork,
    LogEntry,
    LogFrame,
    Message,
    WorkItem,
    WorkRef,
)

ACCEPTED_VERSIONS = frozenset({WIRE_VERSION, WIRE_VERSION - 1}) - {0}
_ITEM_FIELDS = frozenset(field.encode_name for field in msgspec.structs.fields(WorkItem))

M = TypeVar("M", LogEntry, WorkRef, Announcement, CancelOrder, DeadWork)


class WireError(ValueError):
    """Bytes that are no message of this contract; the text says what is wrong with them."""


def encode(message: LogEntry | WorkRef | Announcement | CancelOrder | DeadWork) -> bytes:
    """The msgpack bytes of a message between processes.

    Raises:
        WireError: they would be larger than `MAX_ENTRY_BYTES`.
    """
    data: bytes = msgpack.packb(msgspec.to_builtins(message), use_bin_type=True)
    if len(data) > MAX_ENTRY_BYTES:
        raise WireError(f"a {type(message).__name__} of {len(data)} bytes is over the limit of {MAX_ENTRY_BYTES}")
    return data


def decode(data: bytes, kind: type[M]) -> M:
    """The message in `data`.

    Raises:
        WireError: oversized, truncated, not a map, another wire version, an unknown frame type or a wrong field.
    """
    return _convert(_unpack(data), kind)


def item_to_map(item: WorkItem) -> dict[str, Any]:
    """A work item as the map that travels in a hand-off; its unknown fields stand where they came from."""
    fields: dict[str, Any] = msgspec.to_builtins(item)
    extra = fields.pop("extra", {})
    return {**extra, **fields}


def item_from_map(raw: dict[str, Any]) -> WorkItem:
    """The work item in a hand-off's map; fields that this version does not know are kept in `extra`."""
    known = {name: value for name, value in raw.items() if name in _ITEM_FIELDS and name != "extra"}
    extra = {name: value for name, value in raw.items() if name not in _ITEM_FIELDS}
    _check_version(known)
    try:
        item = msgspec.convert(known, WorkItem)
    except msgspec.ValidationError as error:
        raise WireError(f"not a WorkItem: {error}") from None
    return msgspec.structs.replace(item, extra=extra)


def pack_item(item: WorkItem) -> bytes:
    """The item alone, as it lies in the object store when it is too large for a hand-off."""
    data: bytes = msgpack.packb(item_to_map(item), use_bin_type=True)
    return data


def unpack_item(data: bytes) -> WorkItem:
    return item_from_map(_unpack(data, limit=64 * MAX_ENTRY_BYTES))


def client_map(request_id: str, frame: LogFrame) -> dict[str, Any]:
    """A log frame as a client sees it: with its request, without the hand-off."""
    fields: dict[str, Any] = msgspec.to_builtins(frame)
    fields.pop("handoff", None)
    fields["request_id"] = request_id
    return fields


def client_bytes(message: Message | dict[str, Any], *, binary: bool) -> bytes:
    """What goes to a client: UTF-8 JSON, or msgpack for the subprotocol `baton.v1.msgpack`."""
    if binary:
        data: bytes = msgpack.packb(msgspec.to_builtins(message), use_bin_type=True)
        return data
    return msgspec.json.encode(message)


def _unpack(data: bytes, limit: int = MAX_ENTRY_BYTES) -> dict[str, Any]:
    if len(data) > limit:
        raise WireError(f"{len(data)} bytes are over the limit of {limit}")
    try:
        raw = msgpack.unpackb(data, raw=False, strict_map_key=True, max_ext_len=0)
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise WireError(f"not one whole msgpack value: {error or type(error).__name__}") from None
    if not isinstance(raw, dict):
        raise WireError(f"a message is a map, not {type(raw).__name__}")
    return raw


def _check_version(raw: dict[str, Any]) -> None:
    version = raw.get("v")
    if version not in ACCEPTED_VERSIONS or isinstance(version, bool):
        readable = ", ".join(map(str, sorted(ACCEPTED_VERSIONS)))
        raise WireError(f"wire version {version!r} is not one this program reads ({readable})")


def _convert(raw: dict[str, Any], kind: type[M]) -> M:
    _check_version(raw)
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise WireError(f"not a {kind.__name__}: {error}") from None
