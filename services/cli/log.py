"""`baton log REQUEST`: what has happened to a request, frame by frame."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from baton_proto.messages import KEY_PATTERN, REQUEST_ID_PATTERN, TERMINAL
from services.common.clock import now_ms

from .direct import FAILED, OK, USAGE, run_direct

if TYPE_CHECKING:
    from baton_proto.subjects import LogAddress
    from services.common.bus import Bus
    from services.common.inspection import Whereabouts
    from services.common.log import StoredEntry

    from .log_lines import Placed

ANONYMOUS = "anonymous"
"""The owner of all requests of a gateway without authentication."""
FLUSH_S = 1.0
LOOKS = 3


def register(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "log",
        help="show what has happened to a request",
        description="Shows the log of a request, frame by frame, straight from NATS (BATON_NATS_URL). What users, "
        "documents and tools have said is not shown unless --content asks for it.",
        epilog="Exit status: 0 shown, 1 there is no such log and nothing was kept of it, 2 wrong arguments or "
        "settings, 3 NATS cannot be reached, 130 stopped.",
    )
    parser.add_argument("request", metavar="REQUEST", help="a request id, or a key of 32 hex digits")
    parser.add_argument("--owner", help=f"whose request id it is: the token's subject (default: {ANONYMOUS})")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the request ends")
    parser.add_argument("--all", action="store_true", help="a line for each piece of the answer, none folded")
    parser.add_argument(
        "--content", action="store_true", help="show questions, answers, sources and tool calls too: sensitive"
    )
    parser.add_argument(
        "--json", action="store_true", help="print each frame as a line of JSON, and the summary as the last line"
    )
    parser.set_defaults(func=main)


def main(arguments: argparse.Namespace) -> int:
    if not re.search(REQUEST_ID_PATTERN, arguments.request):
        print(
            "baton log: REQUEST is a request id (1 to 64 letters, digits, - or _) or a key of 32 hex digits",
            file=sys.stderr,
        )
        return USAGE
    return run_direct("log", lambda bus: _show(bus, arguments))


def candidate_keys(request: str, owner: str | None) -> list[str]:
    """The keys that `request` may mean. What looks like a key may be a request id: the page makes such ones."""
    from baton_proto.subjects import request_key

    by_id = request_key(owner or ANONYMOUS, request)
    is_key = owner is None and re.search(KEY_PATTERN, request.lower()) is not None
    return [request.lower(), by_id] if is_key else [by_id]


async def _show(bus: Bus, arguments: argparse.Namespace) -> int:
    keys = candidate_keys(arguments.request, arguments.owner)
    for key in keys:
        if await bus.tail(bus.address(key)) is not None:
            return await _show_log(bus, bus.address(key), arguments)
    return await _show_kept(bus, keys, arguments)


async def _show_log(bus: Bus, at: LogAddress, arguments: argparse.Namespace) -> int:
    from baton_proto.codec import WireError

    screen = _Screen(at, arguments)
    try:
        await _read(bus, at, screen, follow=arguments.follow)
    except WireError as error:
        print(f"baton log: the log {at.key} cannot be read: {error}", file=sys.stderr)
        return FAILED
    if not screen.frames:
        print(f"baton log: the log {at.key} expired in this moment", file=sys.stderr)
        return FAILED
    await _summarize(bus, at, screen)
    return OK


async def _read(bus: Bus, at: LogAddress, screen: _Screen, *, follow: bool) -> None:
    from services.common.following import follow_entries

    if not follow:
        await _read_on(bus, at, screen)
        return
    shown = time.monotonic()
    async for one in follow_entries(bus, at):
        screen.read_ms = now_ms()
        if one is not None:
            screen.entry(one)
        if one is None or time.monotonic() - shown >= FLUSH_S:
            screen.flush()
            shown = time.monotonic()
    screen.flush()


async def _read_on(bus: Bus, at: LogAddress, screen: _Screen) -> bool:
    """Show what the log has that the screen has not; whether there was anything."""
    from services.common.log import read_entries

    entries = await read_entries(bus, at, screen.last)
    screen.read_ms = now_ms()
    for entry in entries:
        screen.entry(entry)
    screen.flush()
    return bool(entries)


class _Screen:
    """Prints entries, and remembers their frames for the summary."""

    def __init__(self, at: LogAddress, arguments: argparse.Namespace) -> None:
        from .log_lines import LogLines

        self.at = at
        self.frames: list[Placed] = []
        self.last = 0
        self.read_ms = 0
        self.json: bool = arguments.json
        self._content: bool = arguments.content
        self._lines = LogLines(content=arguments.content, fold=not arguments.all)

    @property
    def ended(self) -> bool:
        return bool(self.frames) and isinstance(self.frames[-1].frame, TERMINAL)

    def entry(self, entry: StoredEntry) -> None:
        from .log_lines import frame_map, placed

        if not self.frames and not self.json:
            self._heading(entry)
        self.frames += placed(entry)
        self.last = entry.stream_seq
        if self.json:
            for frame in entry.entry.frames:
                print(json.dumps(frame_map(entry, frame, content=self._content), ensure_ascii=False))
            sys.stdout.flush()
        else:
            self._print(self._lines.entry(entry))

    def flush(self) -> None:
        self._print(self._lines.flush())

    def _heading(self, entry: StoredEntry) -> None:
        from .log_lines import HEADING

        day = entry.entry.frames[0].timestamp[:10]
        self._print([f"request  {entry.entry.request_id}", f"key      {self.at.key}", f"day      {day} (UTC)", HEADING])

    def _print(self, lines: list[str]) -> None:
        for line in lines:
            print(line)
        sys.stdout.flush()


async def _whereabouts(bus: Bus, at: LogAddress, screen: _Screen) -> Whereabouts | None:
    """Where the work item is; None when the log has ended. A request that goes on while we look is read on."""
    from baton_proto.subjects import queue_name
    from services.common.inspection import find_item

    from .log_summary import latest_handoff

    where = None
    for _ in range(LOOKS):
        handed = latest_handoff(screen.frames)
        if screen.ended or handed is None or handed.frame.handoff is None:
            return None
        queue = queue_name(handed.frame.handoff.stage, handed.frame.handoff.variant)
        where = await find_item(bus, at.key, queue, handed.frame.seq)
        if where.state != "nowhere" or not await _read_on(bus, at, screen):
            return where
    return where


async def _summarize(bus: Bus, at: LogAddress, screen: _Screen) -> None:
    from .log_summary import longest_pause, state, summary_lines

    where, frames = await _whereabouts(bus, at, screen), screen.frames
    now = screen.read_ms
    if not screen.json:
        print("", *summary_lines(frames, where, now), sep="\n")
        return
    pause = longest_pause(frames)
    summary = {
        "type": "summary",
        "key": at.key,
        "state": state(frames, where, now),
        "ended": screen.ended,
        "item": asdict(where) if where else None,
        "total_ms": (frames[-1].at_ms if where is None else now) - frames[0].at_ms,
        "longest_pause": {"ms": pause.ms, "before_seq": pause.after.frame.seq} if pause else None,
    }
    print(json.dumps(summary, ensure_ascii=False))


async def _show_kept(bus: Bus, keys: list[str], arguments: argparse.Namespace) -> int:
    """The log is gone: what was kept of it, or else why there may be nothing."""
    import msgspec

    from services.common.endings import stored_answer

    from .log_summary import kept_lines

    for key in keys:
        if (kept := await stored_answer(bus, key)) is None:
            continue
        if arguments.json:
            fields: dict[str, Any] = msgspec.to_builtins(kept)
            shown = fields if arguments.content else {**fields, "answer": None, "sources": len(kept.sources)}
            print(json.dumps({"type": "kept", "key": key, **shown}, ensure_ascii=False))
        else:
            print(*kept_lines(kept, content=arguments.content), sep="\n")
        return OK
    print(*await _why_nothing(bus, keys, arguments), sep="\n", file=sys.stderr)
    return FAILED


async def _why_nothing(bus: Bus, keys: list[str], arguments: argparse.Namespace) -> list[str]:
    from services.common.bus import Unconfirmed
    from services.common.inspection import dead_items, log_shards

    owner = arguments.owner or ANONYMOUS
    lines = [
        f"baton log: there is no log of {arguments.request!r} (owner {owner!r}, key {keys[-1]}). Possible reasons:"
    ]
    shards = await log_shards(bus)
    if shards == 0:
        return [*lines, f"  - no Baton uses this NATS ({bus.settings.shown_url}): check BATON_NATS_URL"]
    if shards != bus.settings.shards:
        lines.append(f"  - this NATS has {shards} log streams, but BATON_LOG_SHARDS is {bus.settings.shards} here")
    lines += [
        "  - the request id is somebody else's: name the owner, the subject of the token, with --owner",
        "  - there never was such a request: a typing error, or the question was refused before it became one",
        "  - it has ended, its log has expired (BATON_LOG_MAX_AGE_S), and nothing was kept of it",
        "  - logs were kept in memory (BATON_LOG_STORAGE) and NATS was restarted",
    ]
    try:
        dead = [one for one in await dead_items(bus) if one.work.ref.key in keys]
    except Unconfirmed:
        dead = []
    if dead:
        lines.append(f"It was set aside: {dead[0].work.reason}. `baton work` shows it.")
    return lines
