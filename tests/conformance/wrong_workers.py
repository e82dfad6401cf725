"""Generators that keep all promises but one: the worker of examples/foreign_worker, with one thing broken on purpose.

python -m tests.conformance.wrong_workers NAME nats://127.0.0.1:4222
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

from examples.foreign_worker import echo_generator as echo

PAUSE_S = 0.03
"""Before each frame, so that it can be met in the middle of its work."""

_append, _answer, _hold, _serve = echo.Log.append, echo.answer, echo.hold, echo.serve


async def slowly(log: Any, frame: dict[str, Any]) -> None:
    await asyncio.sleep(PAUSE_S)
    await _append(log, frame)


async def leaving_out_a_number(log: Any, frame: dict[str, Any]) -> None:
    await slowly(log, frame)
    log.next_seq += frame["type"] == "status"


async def writing_on_when_replaced(log: Any, frame: dict[str, Any]) -> None:
    try:
        await slowly(log, frame)
    except echo.Replaced:
        await log.read(whole=False)
        await _append(log, frame)


async def without_the_fence(log: Any, frame: dict[str, Any]) -> None:
    asking = echo.ask

    async def unconditionally(nc: Any, subject: str, data: bytes, headers: Any = None, seconds: float = 2.0) -> Any:
        return await asking(nc, subject, data, None if subject == log.subject else headers, seconds)

    echo.ask = unconditionally
    try:
        await slowly(log, frame)
    finally:
        echo.ask = asking


async def with_a_frame_too_large(log: Any, frame: dict[str, Any]) -> None:
    await slowly(log, {**frame, "content": "x" * 800_000} if frame["type"] == "answer_chunk" else frame)


async def stamping_local_time(log: Any, frame: dict[str, Any]) -> None:
    pack = echo.msgpack.packb
    echo.msgpack.packb = lambda entry: pack(_with_local_time(entry))
    try:
        await slowly(log, frame)
    finally:
        echo.msgpack.packb = pack


def _with_local_time(entry: dict[str, Any]) -> dict[str, Any]:
    frames = [{**frame, "timestamp": frame["timestamp"].replace("Z", "+00:00")} for frame in entry["frames"]]
    return {**entry, "frames": frames}


def citing_what_was_not_given(item: dict[str, Any], written: list[Any]) -> Iterator[dict[str, Any]]:
    for frame in _answer(item, written):
        yield {**frame, "cited": [99], "citations": []} if frame["type"] == "done" else frame


def beginning_again(item: dict[str, Any], written: list[Any]) -> Iterator[dict[str, Any]]:
    return _answer(item, [])


async def deaf_to_cancels(nc: Any, log: Any, lease: Any, item: dict[str, Any], written: list[Any]) -> None:
    await _hold(nc, log, lease, {**item, "key": "0" * 32}, written)


async def acknowledging_first(nc: Any, message: Any, ack_wait: float) -> None:
    await echo.ask(nc, message.reply, b"+ACK")
    await _serve(nc, message, ack_wait)


async def dying_of_garbage(nc: Any, message: Any, ack_wait: float) -> None:
    if echo.read(message.data) is None:
        print("cannot read this", flush=True)
        sys.exit(3)
    await _serve(nc, message, ack_wait)


WRONG: dict[str, tuple[Any, str, Any]] = {
    "leaving_out_a_number": (echo.Log, "append", leaving_out_a_number),
    "writing_on_when_replaced": (echo.Log, "append", writing_on_when_replaced),
    "without_the_fence": (echo.Log, "append", without_the_fence),
    "with_a_frame_too_large": (echo.Log, "append", with_a_frame_too_large),
    "stamping_local_time": (echo.Log, "append", stamping_local_time),
    "citing_what_was_not_given": (echo, "answer", citing_what_was_not_given),
    "beginning_again": (echo, "answer", beginning_again),
    "deaf_to_cancels": (echo, "hold", deaf_to_cancels),
    "acknowledging_first": (echo, "serve", acknowledging_first),
    "dying_of_garbage": (echo, "serve", dying_of_garbage),
    "none": (echo, "answer", _answer),
}

if __name__ == "__main__":
    place, name, wrong = WRONG[sys.argv[1]]
    echo.Log.append = slowly  # type: ignore[method-assign]
    setattr(place, name, wrong)
    asyncio.run(echo.main(sys.argv[2]))
