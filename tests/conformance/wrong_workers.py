"""Generators that keep all promises but one: the worker of examples/foreign_worker, with one thing broken on purpose.

python -m tests.conformance.wrong_workers NAME nats://127.0.0.1:4222
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
from collections.abc import Iterator
from typing import Any

from examples.foreign_worker import echo_generator as echo

PAUSE_S = 0.03
"""Before each frame, so that it can be met in the middle of its work."""

_append, _answer, _hold, _serve = echo.Log.append, echo.answer, echo.hold, echo.serve
_ask, _pack = echo.ask, echo.msgpack.packb


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


async def without_the_fence(nc: Any, subject: str, data: bytes, headers: Any = None, seconds: float = 2.0) -> Any:
    return await _ask(nc, subject, data, None if subject.startswith("baton.v1.log.") else headers, seconds)


async def with_a_frame_too_large(log: Any, frame: dict[str, Any]) -> None:
    await slowly(log, {**frame, "content": "x" * 800_000} if frame["type"] == "answer_chunk" else frame)


def stamping_local_time(message: dict[str, Any]) -> bytes:
    if "frames" in message:
        frames = [{**one, "timestamp": one["timestamp"].replace("Z", "+00:00")} for one in message["frames"]]
        message = {**message, "frames": frames}
    return _pack(message)


def with_another_append_each_time(message: dict[str, Any]) -> bytes:
    return _pack({**message, "append_id": secrets.token_hex(8)} if "frames" in message else message)


async def never_renewing(lease: Any) -> None:
    await asyncio.Event().wait()


def citing_what_was_not_given(item: dict[str, Any], written: list[Any]) -> Iterator[dict[str, Any]]:
    for frame in _answer(item, written):
        yield {**frame, "cited": [99], "citations": []} if frame["type"] == "done" else frame


def beginning_again(item: dict[str, Any], written: list[Any]) -> Iterator[dict[str, Any]]:
    return _answer(item, [])


async def deaf_to_cancels(nc: Any, log: Any, lease: Any, item: dict[str, Any], written: list[Any]) -> None:
    await _hold(nc, log, lease, {**item, "key": "0" * 32}, written)


async def acknowledging_when_replaced(nc: Any, log: Any, lease: Any, item: dict[str, Any], written: list[Any]) -> None:
    with contextlib.suppress(echo.Replaced):
        await _hold(nc, log, lease, item, written)


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
    "without_the_fence": (echo, "ask", without_the_fence),
    "with_a_frame_too_large": (echo.Log, "append", with_a_frame_too_large),
    "never_renewing": (echo.Lease, "renew", never_renewing),
    "with_another_append_each_time": (echo.msgpack, "packb", with_another_append_each_time),
    "stamping_local_time": (echo.msgpack, "packb", stamping_local_time),
    "citing_what_was_not_given": (echo, "answer", citing_what_was_not_given),
    "beginning_again": (echo, "answer", beginning_again),
    "deaf_to_cancels": (echo, "hold", deaf_to_cancels),
    "acknowledging_when_replaced": (echo, "hold", acknowledging_when_replaced),
    "acknowledging_first": (echo, "serve", acknowledging_first),
    "dying_of_garbage": (echo, "serve", dying_of_garbage),
    "none": (echo, "answer", _answer),
}

if __name__ == "__main__":
    place, name, wrong = WRONG[sys.argv[1]]
    echo.Log.append = slowly  # type: ignore[method-assign]
    setattr(place, name, wrong)
    asyncio.run(echo.main(sys.argv[2]))
