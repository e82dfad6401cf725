"""One holder after another (1, 2.2, 2.4): what was written stays and is continued, and who was replaced stops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from baton_proto.messages import (
    AnswerReset,
    Done,
    Error,
    LogFrame,
    Sources,
    Stage,
    Status,
    ToolCalled,
    ToolResult,
)
from conformance.frames import ending, ends, text_of, told
from conformance.kit import Kit
from conformance.promise import Broken, InDoubt, Kind, NotSeen, promise
from conformance.request import Request
from services.common.clock import now_ms

from .endings import MORE_TO_DO

HELD_TWICE = 4
NOTICED_S = 1.0
"""A holder whose append was refused still has to read the tail."""
QUIET_SHARE = 0.75
"""Of the ack wait: who is heard behind it may be the next holder. The rest is for what we heard late."""
BLOCKED_S = 2.5
"""Long enough for two renewals, and short enough for the pauses between two tries to stay short."""
RENEWED_S = 1.0
"""More, for a renewal that is late or is heard late."""
LEAST_REPEATED = 8
"""So many characters of the text again, at its beginning, are no accident."""


def check_continues(earlier: Sequence[LogFrame], later: Sequence[LogFrame]) -> None:
    """`later` goes on from `earlier` and does not say it again.

    Raises:
        Broken
    """
    for frame in later:
        for before in earlier:
            if _same(before, frame):
                raise Broken(f"frame {frame.seq} says again what an earlier holder had written: {_said(frame)}", "2.2")
    if any(isinstance(frame, AnswerReset) for frame in later):
        return
    if not later:
        return
    text, more = text_of(earlier), text_of(later)
    if len(text) >= LEAST_REPEATED and more.startswith(text[: max(LEAST_REPEATED, len(text) // 2)]):
        raise Broken(f"it wrote the text that was there once more, without `answer_reset`: {more[:60]!r}", "2.2")
    check_citations(text + more, later)


def check_citations(text: str, frames: Sequence[LogFrame]) -> None:
    """Where `done` says that `[n]` stands in the answer, it does.

    Raises:
        Broken
    """
    done = frames[-1]
    for one in done.citations if isinstance(done, Done) else ():
        if text[one.start : one.end] != f"[{one.n}]":
            raise Broken(
                f"`done.citations` says that [{one.n}] stands at {one.start} to {one.end}; "
                f"there is {text[one.start : one.end]!r}",
                "5",
            )


def _same(a: LogFrame, b: LogFrame) -> bool:
    if isinstance(a, ToolCalled | ToolResult) and type(a) is type(b):
        return a.call_id == b.call_id
    if isinstance(a, Status) and isinstance(b, Status):
        return (a.stage, a.content, a.call_id) == (b.stage, b.content, b.call_id)
    return isinstance(a, Sources) and isinstance(b, Sources) and bool(a.sources) and a.sources == b.sources


def _said(frame: LogFrame) -> str:
    text = getattr(frame, "content", "") or getattr(frame, "call_id", "")
    return f"`{frame.__struct_config__.tag}` {text!r:.80}"


def another_holder(kit: Kit) -> Status:
    """A frame as another holder of the item might write."""
    stages: dict[Kind, Stage] = {"retriever": "retrieving", "generator": "generating", "tools": "tool"}
    return Status(stage=stages[kit.kind], content="Another holder goes on")


@promise("2.2")
async def a_log_half_written_is_continued(kit: Kit) -> None:
    """What an earlier holder of the item has written stays: the next one goes on from it, and does not write it
    again."""
    first = await kit.request()
    await first.tell()
    whole = await first.finished()
    if not isinstance(whole[-1], Done) and whole[-1].handoff is None:
        raise Broken(f"a good item ended with {ending(whole[-1])}", "5")
    half = [frame for frame in whole[: (len(whole) + 1) // 2] if not ends(frame)]
    if not half:
        raise NotSeen("it writes nothing before its last frame, so nothing can be half written")
    second = await kit.request({"calls": first.item.get("calls", [])}, written=half)
    await second.tell()
    later = (await second.finished())[len(half) :]
    if isinstance(later[-1], Error):
        raise Broken(f"it ended with {ending(later[-1])} what it should have continued")
    check_continues(half, later)


@promise("1")
async def two_holders_at_once_write_one_log(kit: Kit) -> None:
    """A redelivery does not mean that the earlier holder is dead: of two holders of one item the log decides, and the
    other one stops."""
    requests = [await kit.request(among=HELD_TWICE) for _ in range(HELD_TWICE)]
    for one in requests:
        await one.tell()
        await one.tell()
    for one in requests:
        written = await one.ended()
        await one.acknowledged(kit.again_s)
        await one.checked()
        statuses = [frame for frame in written if isinstance(frame, Status)]
        for at, frame in enumerate(statuses):
            check_continues(statuses[:at], [frame])


@promise("2.4")
async def who_was_replaced_stops(kit: Kit) -> None:
    """A holder that finds somebody else's frame at the tail has been replaced: it appends nothing more, and never
    acknowledges, refuses or renews that item again. Who has it next goes on from there."""
    for attempt in range(kit.options.attempts):
        one = await kit.request()
        other = another_holder(kit)
        async with kit.unblocked():
            if attempt % 2 and kit.alone:
                async with kit.blocked(one):  # too quick to be met: let it wait before its first frame
                    await kit.met(one)
                met = True
            else:
                await one.tell()
                met = await one.begun()
            if replaced := met and await one.replace(other):
                await _watch_replaced(kit, one)
        if not replaced:
            await one.finished()
            continue
        written = await one.ended(kit.again_s)
        await one.acknowledged()
        await one.checked()
        at = next(
            at for at, frame in enumerate(written) if isinstance(frame, Status) and frame.content == other.content
        )
        check_continues(written[: at + 1], written[at + 1 :])
        return
    raise NotSeen(f"every answer was over before anybody could get in between; {MORE_TO_DO}")


@promise("2.4")
async def an_append_that_is_not_stored_is_repeated(kit: Kit) -> None:
    """When an append has no good answer and the tail is the message that was expected, the same append is made again,
    with the same `append_id`; the item is renewed every second meanwhile, and not acknowledged, though it be the last
    frame that is not stored."""
    over = await kit.request({"deadline_ms": now_ms() - 1_000})
    async with kit.blocked(over):
        await kit.met(over)
        await kit.witness.until(lambda: len(over.attempts) > 1, kit.patience_s)
        await over.looked_at()  # what it was acknowledged at: soon the log takes the append
    await over.finished()
    one = await kit.request()
    async with kit.blocked(one):
        await kit.met(one)
        await kit.witness.until(lambda: len(one.attempts) > 1, kit.patience_s)
        await asyncio.sleep(BLOCKED_S)
        renewed = await kit.witness.until(lambda: len(one.settlings()) > len(one.settled()), RENEWED_S)
        made = list(one.attempts)  # before the log takes the append, and the worker makes its next one
    await one.ended(kit.again_s)
    if not renewed:
        raise InDoubt(f"it held the item for {BLOCKED_S:g} s and did not renew it", "2.3")
    if len(made) < 2:
        raise InDoubt(f"while the log took nothing, it tried {len(made)} times in {BLOCKED_S:g} s")
    await one.acknowledged()
    # More than one where it stood still for longer than the ack wait.
    holders = max((each.delivery for each in one.settlings()), default=1)
    if len({each.entry.append_id for each in made}) > holders:
        raise InDoubt("it did not repeat the append that failed, but made another one")
    await one.finished()


async def _watch_replaced(kit: Kit, one: Request) -> None:
    """Until its item can have been delivered again, the worker that was replaced is silent.

    Raises:
        Broken
    """
    replaced_at, ours = time.monotonic(), one.last
    delivered = max([one.told_at, *(each.at for each in one.settlings())])
    ends = delivered + kit.ack_wait_s * QUIET_SHARE

    def too_far() -> bool:
        return any((each.expected or 0) >= ours and each.at < ends for each in one.attempts)

    if await kit.witness.until(lambda: too_far() or bool(_after_notice(one, replaced_at, ends)), ends - replaced_at):
        if too_far():
            written = [frame for frame in await one.written() if frame.seq >= one.next_seq]
            raise InDoubt(f"it went on behind the other holder's frame, and wrote {told(written)}")
        raise InDoubt(f"it sent {_after_notice(one, replaced_at, ends)} for the item that it no longer held")


def _after_notice(one: Request, replaced_at: float, ends: float) -> str:
    """What it sent for its item until then, although an append that it made since it was replaced had been refused."""
    stored = {entry.append_id for entry, _ in one.live}
    refused = [each.at for each in one.attempts if each.at >= replaced_at and each.entry.append_id not in stored]
    if not refused:
        return ""
    late = [each for each in one.settlings(min(refused) + NOTICED_S) if each.at < ends]
    return ", ".join(each.what.split()[0] for each in late)
