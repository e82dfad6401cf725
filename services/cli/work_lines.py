"""The state of the work queue as lines for people, and as a map for programs. No I/O."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from .log_lines import counted, one_line, seconds

KEY_SHOWN = 12
MAX_ROWS = 50


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: its live workers, and what of its work is in the queue. `oldest_ms` is when the oldest was queued."""

    stage: str
    workers: int
    slots: int
    running: int
    waiting: int
    delivered: int
    oldest_ms: int | None


@dataclass(frozen=True, slots=True)
class Running:
    """An item that a worker says it holds."""

    key: str
    request_id: str
    stage: str
    worker: str
    since_ms: int
    deliveries: int


@dataclass(frozen=True, slots=True)
class Unanswered:
    """An item that was delivered, but no worker that answers says it holds. It is delivered again within
    `redelivery_s` of its holder's last sign of life."""

    key: str
    request_id: str
    stage: str
    queued_ms: int
    last_frame_ms: int | None
    last_writer: str
    redelivery_s: float


@dataclass(frozen=True, slots=True)
class Poisoned:
    """An item that was set aside. `retryable`: it is kept, so `baton work retry` can try it again."""

    key: str
    request_id: str
    stage: str
    at_ms: int
    deliveries: int
    reason: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The work of the whole system at one moment. `waiting_for_turn` are requests that no queue has yet, because their
    `users_waiting` users have many; `silent` are live workers that say they run something, but did not tell what."""

    at_ms: int
    stages: Sequence[Stage] = ()
    waiting_for_turn: int = 0
    users_waiting: int = 0
    running: Sequence[Running] = ()
    unanswered: Sequence[Unanswered] = ()
    poisoned: Sequence[Poisoned] = ()
    silent: Sequence[str] = field(default=())


def snapshot_map(snapshot: Snapshot) -> dict[str, Any]:
    """All of it, for programs: times are Unix ms, unless their name ends in `_s`."""
    return asdict(snapshot)


def snapshot_lines(snapshot: Snapshot) -> list[str]:
    now = snapshot.at_ms
    lines = _stages(snapshot.stages, now)
    if snapshot.waiting_for_turn:
        waiting, users = counted(snapshot.waiting_for_turn, "request"), counted(snapshot.users_waiting, "user")
        lines += ["", f"before the first stage: {waiting} of {users} wait for their turn"]
    lines += _section("running", _running(snapshot.running, now), len(snapshot.running))
    if snapshot.silent:
        lines.append(f"  not told what they hold: {', '.join(snapshot.silent)}")
    if snapshot.unanswered:
        title = "delivered, but held by nobody who answers (a frozen or dead holder, or one that does not answer)"
        lines += _section(title, _unanswered(snapshot.unanswered, now), len(snapshot.unanswered))
    lines += _section("poisoned (set aside)", _poisoned(snapshot.poisoned, now), len(snapshot.poisoned))
    if snapshot.poisoned:
        lines.append("  try again: baton work retry KEY    throw away: baton work discard KEY")
    return lines


def _stages(stages: Sequence[Stage], now: int) -> list[str]:
    if not stages:
        return ["no stage has work or workers: is this the right NATS (BATON_NATS_URL)?"]
    rows: list[tuple[str, ...]] = [("stage", "workers", "slots", "running", "waiting", "taken", "oldest", "")]
    for one in stages:
        oldest = seconds(now - one.oldest_ms) if one.oldest_ms is not None else "-"
        numbers = map(str, (one.workers, one.slots, one.running, one.waiting, one.delivered))
        absent = one.workers == 0 and one.waiting + one.delivered > 0
        rows.append((one.stage, *numbers, oldest, "NO WORKER" if absent else ""))
    return columns(rows, right={1, 2, 3, 4, 5, 6})


def _running(running: Sequence[Running], now: int) -> list[str]:
    rows = [("key", "request", "stage", "worker", "for", "deliveries")]
    for one in running:
        since = seconds(now - one.since_ms)
        rows.append((one.key[:KEY_SHOWN], one.request_id, one.stage, one.worker, since, str(one.deliveries)))
    return columns(rows, right={4, 5})


def _unanswered(unanswered: Sequence[Unanswered], now: int) -> list[str]:
    rows = [("key", "request", "stage", "queued", "last frame", "by", "delivered again")]
    for one in unanswered:
        last = f"{seconds(now - one.last_frame_ms)} ago" if one.last_frame_ms is not None else "-"
        again = f"within {one.redelivery_s:.1f} s"
        queued = f"{seconds(now - one.queued_ms)} ago"
        rows.append(
            (one.key[:KEY_SHOWN], one.request_id or "-", one.stage, queued, last, one.last_writer or "-", again)
        )
    return columns(rows)


def _poisoned(poisoned: Sequence[Poisoned], now: int) -> list[str]:
    rows = [("key", "request", "stage", "when (UTC)", "deliveries", "why")]
    for one in poisoned:
        when = datetime.fromtimestamp(one.at_ms / 1000, UTC).strftime("%m-%d %H:%M:%S")
        why = one_line(one.reason) + ("" if one.retryable else " (the item was not kept)")
        rows.append((one.key[:KEY_SHOWN], one.request_id, one.stage, when, str(one.deliveries), why))
    return columns(rows, right={4})


def _section(title: str, lines: list[str], number: int) -> list[str]:
    if number == 0:
        return ["", f"{title}: none"]
    more = [f"  and {number - MAX_ROWS} more; --json has them all"] if number > MAX_ROWS else []
    return ["", f"{title}: {counted(number, 'item')}", *(f"  {line}" for line in lines[: MAX_ROWS + 1]), *more]


def columns(rows: Iterable[Sequence[str]], right: set[int] | frozenset[int] = frozenset()) -> list[str]:
    """Rows as lines with aligned columns; those in `right` are aligned at the right."""
    table = [list(row) for row in rows]
    widths = [max(_width(row[at]) for row in table) for at in range(len(table[0]))]
    lines = []
    for row in table:
        cells = []
        for at, cell in enumerate(row):
            padding = " " * (widths[at] - _width(cell))
            cells.append(padding + cell if at in right else cell + padding)
        lines.append("  ".join(cells).rstrip())
    return lines


def _width(text: str) -> int:
    """Columns in a terminal: Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
