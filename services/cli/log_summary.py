"""What became of a request, in a few lines. No I/O."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from baton_proto.messages import Done, Error, StoredAnswer
from services.common.inspection import Whereabouts

from .display import printable
from .log_lines import Placed, clock, counted, frame_type, one_line, seconds


@dataclass(frozen=True, slots=True)
class Pause:
    """The time between two frames that follow each other."""

    ms: int
    before: Placed
    after: Placed


def longest_pause(frames: Sequence[Placed]) -> Pause | None:
    """The longest time between two neighbours; None for fewer than two frames. Writers' clocks may differ, so a later
    frame may seem to be earlier: that counts as no pause."""
    pauses = [Pause(b.at_ms - a.at_ms, a, b) for a, b in itertools.pairwise(frames)]
    return max(pauses, key=lambda pause: pause.ms, default=None)


def latest_handoff(frames: Iterable[Placed]) -> Placed | None:
    return next((one for one in reversed(list(frames)) if one.frame.handoff is not None), None)


def summary_lines(frames: Sequence[Placed], where: Whereabouts | None, now_ms: int) -> list[str]:
    """What became of the request, how long it took, and where the time went.

    Args:
        where: where its work item is; None where the log has ended.
    """
    first, last = frames[0], frames[-1]
    writers = len({one.writer for one in frames})
    until = last.at_ms if where is None else now_ms
    made = f"{counted(len(frames), 'frame')} by {counted(writers, 'writer')}"
    lines = [f"state    {state(frames, where, now_ms)}", f"time     {seconds(until - first.at_ms)} in all, {made}"]
    if (pause := longest_pause(frames)) is not None:
        a, b = pause.before, pause.after
        whose = f"{a.writer}" if a.writer == b.writer else f"{a.writer} and {b.writer}"
        between = f"between {a.frame.seq} ({frame_type(a.frame)}) and {b.frame.seq} ({frame_type(b.frame)})"
        lines.append(f"pause    {seconds(pause.ms)} at the longest, {between}, {whose}")
    if where is not None:
        lines.append(f"silence  {seconds(now_ms - last.at_ms)} since the last frame, {last.frame.seq} by {last.writer}")
    return lines


def state(frames: Sequence[Placed], where: Whereabouts | None, now_ms: int) -> str:
    """How the request ended, or who has it, in one sentence."""
    last = frames[-1].frame
    if isinstance(last, Done):
        return f"ended with done ({last.finish_reason})"
    if isinstance(last, Error):
        return f"ended with error {last.code}: {one_line(last.message)}"
    handed = latest_handoff(frames)
    stage = handed.frame.handoff.stage if handed and handed.frame.handoff else "unknown"
    if where is None:
        return f"running at stage {stage}"
    since = f" since {clock(where.since_ms)} ({seconds(now_ms - where.since_ms)})" if where.since_ms is not None else ""
    match where.state:
        case "held":
            held = f"running at stage {stage}, held by {where.worker}{since}"
            return f"{held}, {where.deliveries} {'delivery' if where.deliveries == 1 else 'deliveries'}"
        case "delivered":
            return (
                f"at stage {stage}{since}: a worker took it, but none that answers holds it. Its holder is dead, "
                "frozen, or one that does not answer; it is delivered again when it is not renewed in time"
            )
        case "waiting":
            return (
                f"waiting for stage {stage}{since}, not taken by any worker yet, {where.ahead} in the queue before it"
            )
        case "nowhere":
            return (
                f"stuck before stage {stage}: it is not in the work queue. A `resume` from its client puts it there "
                "again; otherwise it ends with its deadline when somebody follows it"
            )


def kept_lines(kept: StoredAnswer, *, content: bool) -> list[str]:
    """What is left of a request whose log is gone."""
    ended = datetime.fromtimestamp(kept.ended_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    lines = [f"The log has expired. What was kept: it ended with {kept.outcome} at {ended}."]
    if kept.answer is not None:
        sources = counted(len(kept.sources), "source")
        lines.append(f"answer   {counted(len(kept.answer), 'character')}, {sources}")
        if content:
            lines += ["", printable(kept.answer)]
    return lines
