"""What shows only when a worker dies, stands still or is told to go (2.2, 2.4, 2.7, 2.8)."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import time
from collections.abc import Callable

import msgspec

from baton_proto import subjects
from baton_proto.messages import Error, LogFrame
from conformance.frames import ending, ends, told
from conformance.kit import Kit
from conformance.process import STOP_S, End
from conformance.promise import Advice, Broken, InDoubt, NotSeen, promise
from conformance.request import Request
from services.common.bus import end_tasks
from services.common.clock import from_rfc3339, now_ms
from services.common.inspection import dead_items
from services.common.queue import Delivery
from services.common.setaside import discard
from services.common.taking import returned

from .succession import another_holder, check_continues

AT_ONCE = 4
STOPPED = 4
MAX_DELIVERIES = 5
WOKEN_S = 1.0
LAST_WORDS_S = 1.0
"""What a worker has said last may be heard after its end is known."""


async def start(kit: Kit) -> None:
    """Start the worker, and wait until it is heard.

    Raises:
        Broken: it is not.
    """
    assert kit.process is not None
    start_s = kit.options.start_s
    kit.witness.workers.clear()
    kit.process.start()
    await _unless_it_ends(kit, kit.witness.present, start_s)
    if (end := await kit.process.ended(0)) is not None:
        raise Broken(f"it {ended_so(end)}", "3")
    if not kit.witness.present():
        where = kit.witness.presence
        raise Broken(f"it was not heard on {where} within {start_s:g} s of its start{kit.witness.others()}", "3")


async def _unless_it_ends(kit: Kit, condition: Callable[[], object], within_s: float) -> None:
    """Wait until the condition holds, but no longer than the worker runs."""
    assert kit.process is not None
    waiting = asyncio.create_task(kit.witness.until(condition, within_s))
    ending = asyncio.create_task(kit.process.ended())
    await asyncio.wait([waiting, ending], return_when=asyncio.FIRST_COMPLETED)
    await end_tasks(waiting, ending)


def ended_so(end: End | None) -> str:
    """How a worker's process ended, for people."""
    status, lines = end or (0, [])
    how = f"ended with status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"
    return f"{how}; its last lines: {' | '.join(lines[-3:]) or 'none'}"


async def _held(kit: Kit) -> list[Request]:
    """Requests that the worker has begun and not ended."""
    requests = [await kit.request() for _ in range(min(AT_ONCE, kit.slots))]
    await asyncio.gather(*(one.tell() for one in requests))
    await asyncio.gather(*(one.begun() for one in requests))
    return requests


async def _met(kit: Kit, stack: contextlib.AsyncExitStack) -> list[Request]:
    """Requests that the worker holds. It may be too quick for that, so the logs of two more take nothing until `stack`
    ends, and it waits with their first frame."""
    requests = await _held(kit)
    if not kit.alone:
        return requests
    stopped = [await kit.request(among=AT_ONCE + STOPPED) for _ in range(min(STOPPED, kit.slots))]
    await stack.enter_async_context(kit.blocked(*stopped))
    await kit.met(*stopped)
    return [*requests, *stopped]


async def _over(one: Request) -> bool:
    return any(ends(frame) for frame in await one.written())


@promise("2.2", needs_process=True)
async def a_worker_that_is_killed_loses_nothing(kit: Kit) -> None:
    """When a worker dies, its items are delivered again, and every log goes on to its end without a gap or a
    duplicate."""
    assert kit.process is not None
    async with contextlib.AsyncExitStack() as stack:
        requests = await _met(kit, stack)
        await kit.process.kill()
    broken = [one for one in requests if not await _over(one)]
    lengths = [len(await one.written()) for one in requests]
    await start(kit)
    for one, length in zip(requests, lengths, strict=True):
        written = await one.ended(kit.again_s)
        await one.acknowledged(kit.again_s)
        await one.checked()
        if isinstance(written[-1], Error):
            raise Broken(f"a request that was held when the worker died ended with {ending(written[-1])}")
        check_continues(written[:length], written[length:])
    if not broken:
        raise NotSeen("every answer was over before the worker could be killed")


@promise("2.4", needs_process=True)
async def a_worker_that_stood_still_lets_go(kit: Kit) -> None:
    """A holder that has stood still for longer than the ack wait has lost its lease: it appends nothing when it wakes,
    although the log would take it."""
    assert kit.process is not None
    async with contextlib.AsyncExitStack() as stack:
        requests = await _met(kit, stack)
        kit.process.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(0.2)  # what it had sent arrives
        held = [one for one in requests if not await _over(one)]
        if not held:
            raise NotSeen("every answer was over before the worker could be frozen")
        await asyncio.sleep(kit.ack_wait_s * 1.2)
        taken = held[1:] or held
        for one in taken:  # as the one who has them now
            await one.replace(another_holder(kit), _failed())
        before = {one.key: len(one.attempts) for one in held}
        woken_ms = now_ms()
    finally:
        kit.process.signal(signal.SIGCONT)

    def woke_up() -> list[LogFrame]:
        again = [frame for one in held for frame in _made_again(one, before[one.key])]
        return again or [frame for one in taken for frame in _made_since(one, woken_ms)]

    try:
        if not await kit.witness.until(woke_up, WOKEN_S):
            for one in held:
                await one.ended(kit.again_s)
                await one.acknowledged(kit.again_s)
                await one.checked()
    finally:
        if frames := woke_up():  # or later, where it was slow to wake
            raise InDoubt(f"it woke, and tried to append {told(frames)}")


def _made_since(one: Request, since_ms: int) -> list[LogFrame]:
    """The frames that it tried to append and made since then. What it had sent before may come late."""
    made = [frame for attempt in one.attempts for frame in attempt.entry.frames]
    return [frame for frame in made if from_rfc3339(frame.timestamp) >= since_ms]


def _made_again(one: Request, before: int) -> list[LogFrame]:
    """The frames of an append that it had tried already, among so many, and tried again behind them."""
    tried = {attempt.entry.append_id for attempt in one.attempts[:before]}
    again = [attempt.entry for attempt in one.attempts[before:] if attempt.entry.append_id in tried]
    return [frame for entry in again for frame in entry.frames]


def _failed() -> Error:
    return Error(code="internal", message="Ended by another holder.", retryable=True)


@promise("2.7", needs_process=True)
async def a_worker_that_is_told_to_go_leaves_nothing_undone(kit: Kit) -> None:
    """On SIGTERM a worker announces that it is draining, takes nothing more, ends what it holds or gives it back, and
    exits with 0."""
    assert kit.process is not None
    late = await kit.request()
    for _ in range(kit.options.attempts):
        requests = await _held(kit)
        if not all(one.over() for one in requests):
            break  # a quick worker, or one that we look at late, may have nothing left to end
    since, stop_s = time.monotonic(), max(STOP_S, kit.patience_s)
    kit.process.signal(signal.SIGTERM)
    await _unless_it_ends(kit, lambda: _draining(kit, since), stop_s)
    await late.tell()
    end = await kit.process.ended(stop_s)
    if end is None:
        await kit.process.kill()
        await start(kit)
        raise Broken(f"it was still there {stop_s:g} s after SIGTERM")
    await kit.witness.until(
        lambda: _draining(kit, since) and not any(_undone(one) for one in [*requests, late]), LAST_WORDS_S
    )
    problem = await _left_behind(kit, [*requests, late], end, since)
    try:
        await start(kit)
        for one in [*requests, late]:
            await one.ended(kit.again_s)
            await one.acknowledged(kit.again_s)
    finally:
        if problem is not None:
            raise problem


def _undone(one: Request) -> bool:
    """Whether the worker has had it, and neither acknowledged it nor given it back."""
    return bool(one.settlings() or one.attempts) and not one.settled()


def _draining(kit: Kit, since: float) -> bool:
    return any(said.draining for said, at in kit.witness.announced if at >= since)


async def _left_behind(kit: Kit, requests: list[Request], end: End, since: float) -> Broken | Advice | None:
    if end[0] == -signal.SIGTERM:
        return Broken(f"it {ended_so(end)}; if that was only what started it, name the worker's own program")
    if end[0] != 0:
        return Broken(f"it {ended_so(end)}")
    for one in requests:
        if _undone(one):
            return InDoubt("it left an item neither acknowledged nor given back")
        settled = one.settled()
        if settled and settled[-1].startswith("-NAK") and not await returned(kit.bus, one.key, one.handed_at):
            return InDoubt("it gave an item back without counting that on `baton.v1.returned`", "2.10")
    if not _draining(kit, since):
        return Advice("no announcement said that it was draining: it is counted on for four seconds more")
    return None


@promise("2.8", needs_process=True)
async def an_item_that_nobody_survives_is_set_aside(kit: Kit) -> None:
    """An item that comes with more deliveries than the limit is put on `baton.v1.dead.<stage>`, its log ends with
    `poisoned`, and it is acknowledged."""
    assert kit.process is not None
    await kit.process.stop()
    one = await kit.request()
    await one.tell()
    for _ in range(MAX_DELIVERIES):
        await _take_and_leave(kit, one)
    await asyncio.sleep(kit.ack_wait_s)  # a log that moved just now might have a holder who lives
    await start(kit)
    last = (await one.finished())[-1]
    if not isinstance(last, Error) or last.code != "poisoned":
        raise Broken(f"after {MAX_DELIVERIES} deliveries that came to nothing it ended the log with {ending(last)}")
    noted = [dead for dead in await dead_items(kit.bus) if dead.work.ref.key == one.key]
    if not noted:
        raise Broken(f"there is no `DeadWork` on {subjects.dead_subject(kit.stage)}")
    await discard(kit.bus, noted[0])


async def _take_and_leave(kit: Kit, one: Request) -> None:
    """Take the item from the queue as a worker does, and let it go as if that worker had died."""
    taken: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
    inbox = f"_INBOX.{secrets.token_hex(11)}"
    wanted = msgspec.json.encode({"batch": 1, "expires": int(kit.patience_s * 1e9)})

    async def ask() -> None:
        await kit.bus.publish(f"$JS.API.CONSUMER.MSG.NEXT.{kit.witness.consumer}", wanted, inbox)

    async def on_message(message: Delivery) -> None:
        if message.reply and one.key.encode() in message.data and not taken.done():
            taken.set_result(message)
        elif message.reply:  # left over from another check
            await ask()

    subscription = await kit.bus.subscribe(inbox, on_message)
    try:
        await ask()
        async with asyncio.timeout(kit.patience_s):
            message = await taken
        await kit.bus.request(message.reply, b"-NAK")
    except TimeoutError:
        raise NotSeen("the queue did not deliver the item to the kit") from None
    finally:
        await subscription.unsubscribe()
