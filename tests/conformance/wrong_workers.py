"""Generators that keep all promises but one: the worker of examples/foreign_worker, with one thing broken on purpose.

python -m tests.conformance.wrong_workers NAME nats://127.0.0.1:4222
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

from examples.foreign_worker import echo_generator as echo

TOOLS = "tools.conformance"
THINKS_S = 1.0
STILL_S = 3.2
"""Longer than the ack wait of the tests."""
PAUSE_S = 0.03
"""Before each frame, so that it can be met in the middle of its work."""
UNHEARD_S = 0.1
WRONG_S = 1.5
"""For which what is wrong can be seen, also by a kit that hears of it late."""

_append, _answer, _hold, _serve, _take = echo.Log.append, echo.answer, echo.hold, echo.serve, echo.take
_ask, _pack, _say, _consumer = echo.ask, echo.msgpack.packb, echo.say, echo.consumer
_publish_ref, _acknowledge = echo.publish_ref, echo.Lease.acknowledge

KNOWN = ("v", "key", "shard", "request_id", "owner", "query", "language", "received_ms", "deadline_ms", "passages")


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


def reusing_the_append_id(message: dict[str, Any]) -> bytes:
    return _pack({**message, "append_id": "mine"} if "frames" in message else message)


async def never_renewing(lease: Any) -> None:
    await asyncio.Event().wait()


def citing_what_was_not_given(item: dict[str, Any], written: list[Any]) -> Iterator[dict[str, Any]]:
    for frame in _answer(item, written):
        yield {**frame, "cited": [99], "citations": []} if frame["type"] == "done" else frame


def beginning_again(item: dict[str, Any], written: list[Any]) -> Iterator[dict[str, Any]]:
    return _answer(item, [])


async def deaf_to_cancels(nc: Any, log: Any, item: dict[str, Any], written: list[Any]) -> None:
    await _hold(nc, log, {**item, "key": "0" * 32}, written)


async def deaf_to_cancels_once_it_works(nc: Any, log: Any, item: Any, written: list[Any]) -> None:
    class Deaf:
        async def subscribe(self, *_: Any, **__: Any) -> Any:
            return await nc.subscribe(nc.new_inbox())

        def __getattr__(self, name: str) -> Any:
            return getattr(nc, name)

    await _hold(Deaf(), log, item, written)


async def acknowledging_before_the_end_is_stored(nc: Any, log: Any, item: Any, written: list[Any]) -> None:
    async def append(frame: dict[str, Any]) -> None:
        settling = log.lease.acknowledge() if frame["type"] in ("done", "error") else asyncio.sleep(PAUSE_S)
        await asyncio.gather(_append(log, frame), settling)

    log.append = append
    await _hold(nc, log, item, written)


async def standing_still_to_compute(nc: Any, log: Any, item: Any, written: list[Any]) -> None:
    async def append(frame: dict[str, Any]) -> None:
        if frame.get("finish_reason") == "cancelled":
            time.sleep(STILL_S)  # noqa: ASYNC251  # computing, say, and nothing else goes on meanwhile
        await slowly(log, frame)

    echo.Lease.held, log.append = True, append  # type: ignore[method-assign, assignment]
    await _hold(nc, log, item, written)


def handing_over(*, forgetful: bool = False, hasty: bool = False, telling: str = "variant") -> Any:
    """Who has the kit's calculator called first, as a generator does whose model wants it.

    Args:
        forgetful: what it does not know of the item does not survive.
        hasty: the next stage is told before the hand-off is stored.
        telling: what of a variant it knows: all, that it stands in the hand-off, or nothing.
    """

    async def hold(nc: Any, log: Any, item: dict[str, Any], written: list[Any]) -> None:
        if not item["query"].startswith("What is") or item.get("turns"):
            await _hold(nc, log, item, written)
            return
        call = {"call_id": secrets.token_hex(8), "name": "calculator", "arguments": {"expression": "1+1"}}
        timings = {**(item.get("timings") or {}), "ttfb_ms": 1}
        stage = next(iter(item.get("varied") or []), TOOLS)
        variant = item["variant"] if stage != TOOLS and telling != "nothing" else ""
        changes = {"stage": stage, "queued_ms": int(time.time() * 1000), "calls": [call], "timings": timings}
        kept = {name: value for name, value in item.items() if name in KNOWN or not forgetful}
        handoff = {"stage": stage, "variant": variant, "item": {**kept, **changes}}
        frame = {"type": "status", "stage": "tool", "content": "Calling tools", "handoff": handoff}
        ref = {"v": 1, "stage": stage, "key": item["key"], "shard": item["shard"], "seq": log.next_seq}
        if telling == "variant":
            ref["variant"] = variant
        if hasty:
            await echo.publish_ref(nc, ref)
            await asyncio.sleep(WRONG_S)
            await _append(log, frame)
        else:
            await _append(log, frame)
            await echo.publish_ref(nc, ref)

    return hold


async def taking_it_for_the_variants(nc: Any, log: Any, ref: dict[str, Any]) -> Any:
    taken = await _take(nc, log, ref)
    return taken and (taken[0], taken[0]["item"], taken[2])


async def of_the_version_before(nc: Any) -> Any:
    """Nothing is wrong with one from before an item said where its variant serves."""

    async def publish_ref(nc: Any, ref: dict[str, Any]) -> None:
        await _publish_ref(nc, {**ref, "variant": ""})

    echo.publish_ref, echo.take = publish_ref, taking_it_for_the_variants
    echo.hold = handing_over(telling="nothing")
    return await _consumer(nc)


async def announcing_slots_that_it_lacks(nc: Any, running: Any, stopping: Any) -> None:
    said, echo.SLOTS = echo.SLOTS, 2 * echo.SLOTS
    await _say(nc, running, stopping)
    echo.SLOTS = said


async def alone_and_thinking(nc: Any) -> Any:
    """Nothing is wrong with one that serves a single request at a time, and thinks before the first word."""

    async def append(log: Any, frame: dict[str, Any]) -> None:
        await asyncio.sleep(THINKS_S if frame["type"] == "answer_chunk" and frame["content"] == "Found: " else 0)
        await _append(log, frame)

    echo.SLOTS, echo.Log.append = 1, append  # type: ignore[method-assign]
    return await _consumer(nc)


async def acknowledging_twice(nc: Any) -> Any:
    """Nothing is wrong with one that does not hear the answer to its acknowledgement in time."""

    async def acknowledge(lease: Any) -> None:
        await _acknowledge(lease)
        await asyncio.sleep(UNHEARD_S)
        await _acknowledge(lease)

    echo.Lease.acknowledge = acknowledge  # type: ignore[method-assign]
    echo.hold = handing_over()
    return await _consumer(nc)


async def leaving_at_once(nc: Any, log: Any, item: dict[str, Any], written: list[Any]) -> None:
    async def append(frame: dict[str, Any]) -> None:
        await _append(log, frame)
        await asyncio.sleep(WRONG_S if frame["type"] == "status" else PAUSE_S)

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    log.append = append
    await _hold(nc, log, item, written)


async def acknowledging_when_replaced(nc: Any, log: Any, item: dict[str, Any], written: list[Any]) -> None:
    with contextlib.suppress(echo.Replaced):
        await _hold(nc, log, item, written)


async def acknowledging_first(nc: Any, message: Any, ack_wait: float) -> None:
    await echo.ask(nc, message.reply, b"+ACK")
    await asyncio.sleep(WRONG_S if echo.read(message.data) else 0)
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
    "reusing_the_append_id": (echo.msgpack, "packb", reusing_the_append_id),
    "deaf_to_cancels_once_it_works": (echo, "hold", deaf_to_cancels_once_it_works),
    "acknowledging_before_the_end_is_stored": (echo, "hold", acknowledging_before_the_end_is_stored),
    "standing_still_to_compute": (echo, "hold", standing_still_to_compute),
    "dropping_unknown_fields": (echo, "hold", handing_over(forgetful=True)),
    "telling_the_others_of_a_variants": (echo, "hold", handing_over(telling="hand-off")),
    "taking_it_for_the_variants": (echo, "take", taking_it_for_the_variants),
    "of_the_version_before": (echo, "consumer", of_the_version_before),
    "telling_before_it_is_stored": (echo, "hold", handing_over(hasty=True)),
    "announcing_slots_that_it_lacks": (echo, "say", announcing_slots_that_it_lacks),
    "leaving_at_once": (echo, "hold", leaving_at_once),
    "appending_when_it_wakes": (echo.Lease, "held", True),
    "alone_and_thinking": (echo, "consumer", alone_and_thinking),
    "acknowledging_twice": (echo, "consumer", acknowledging_twice),
    "handing_over": (echo, "hold", handing_over()),
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
