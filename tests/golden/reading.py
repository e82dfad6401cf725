"""Reads messages with the `baton_proto` that is on the path: this version's or, run as a program, the one before's.

As a program it takes a JSON list of `[kind, hex]` and prints for each the meaning and the bytes that it would write
again, or what is wrong with it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

from baton_proto import codec, messages


def read(kind: str, data: bytes) -> dict[str, Any]:
    """The meaning of a message as this binding understands it. Raises WireError."""
    if kind == "WorkItem":
        return codec.item_to_map(codec.unpack_item(data))
    return msgspec.to_builtins(codec.decode(data, getattr(messages, kind)))


def write(kind: str, meaning: dict[str, Any]) -> bytes:
    if kind == "WorkItem":
        return codec.pack_item(codec.item_from_map(meaning))
    return codec.encode(msgspec.convert(meaning, getattr(messages, kind)))


def _answer(kind: str, data: bytes) -> dict[str, Any]:
    try:
        meaning = read(kind, data)
    except codec.WireError as error:
        return {"refused": str(error)}
    return {"meaning": meaning, "again": write(kind, meaning).hex()}


if __name__ == "__main__":
    json.dump([_answer(kind, bytes.fromhex(data)) for kind, data in json.load(sys.stdin)], sys.stdout)
