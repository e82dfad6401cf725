"""`baton work`: what waits, what runs and who has it, what was set aside; and what to do with that."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from .direct import FAILED, OK, run_direct

if TYPE_CHECKING:
    from services.common.bus import Bus

    from .work_lines import Snapshot

WATCH_S = 2.0


def register(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "work",
        help="show the work queue, who holds what, and what was set aside",
        description="Shows the backlog of each stage with its live workers, the items that run with their holders, and "
        "those that no worker survived, straight from NATS (BATON_NATS_URL). It shows ids, never what was said.",
        epilog="Exit status: 0 done, 1 there is no such item or it could not be done, 2 wrong arguments or settings, "
        "3 NATS cannot be reached, 130 stopped.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, with everything")
    parser.add_argument("--watch", action="store_true", help="show it again and again, until Ctrl-C")
    parser.set_defaults(func=main)
    actions = parser.add_subparsers(title="what to do with an item that was set aside", metavar="ACTION")
    for name, func, text in (
        ("retry", retry, "begin a new request of the same user where this one failed"),
        ("discard", discard, "throw it away"),
    ):
        action = actions.add_parser(name, help=text, description=f"{text.capitalize()}.")
        action.add_argument("key", metavar="KEY", help="its key, or the first 6 digits or more, or its request id")
        action.add_argument("--json", action="store_true", help="print a JSON object")
        action.set_defaults(func=func)


def main(arguments: argparse.Namespace) -> int:
    if arguments.watch:
        return run_direct("work", lambda bus: _watch(bus, as_json=arguments.json))
    return run_direct("work", lambda bus: _show(bus, as_json=arguments.json))


def retry(arguments: argparse.Namespace) -> int:
    return run_direct("work", lambda bus: _one(bus, arguments.key, _retry, as_json=arguments.json))


def discard(arguments: argparse.Namespace) -> int:
    return run_direct("work", lambda bus: _one(bus, arguments.key, _discard, as_json=arguments.json))


async def _show(bus: Bus, *, as_json: bool) -> int:
    from .work_snapshot import take_snapshot

    snapshot = await take_snapshot(bus)
    print(_text(snapshot, as_json=as_json))
    return OK


def _text(snapshot: Snapshot, *, as_json: bool) -> str:
    from .work_lines import snapshot_lines, snapshot_map

    if as_json:
        return json.dumps(snapshot_map(snapshot), ensure_ascii=False)
    return "\n".join(snapshot_lines(snapshot))


async def _watch(bus: Bus, *, as_json: bool) -> int:
    """In a terminal one screen that changes; elsewhere, and as JSON, one snapshot after the other. NATS may be away for
    a while: it says so and goes on."""
    from rich.live import Live
    from rich.text import Text

    from services.common.bus import Unconfirmed

    from .work_snapshot import take_snapshot

    live = Live(auto_refresh=False, screen=False) if sys.stdout.isatty() and not as_json else None
    if live is not None:
        live.start()
    try:
        while True:
            try:
                text = _text(await take_snapshot(bus), as_json=as_json)
            except Unconfirmed as error:
                text = json.dumps({"error": str(error)}) if as_json else f"NATS does not answer ({error})"
            if live is None:
                print(text, flush=True)
            else:
                live.update(Text(text, no_wrap=True, overflow="crop"), refresh=True)
            await asyncio.sleep(WATCH_S)
    finally:
        if live is not None:
            live.stop()


async def _one(
    bus: Bus, name: str, act: Callable[[Bus, Any], Coroutine[Any, Any, dict[str, str]]], *, as_json: bool
) -> int:
    """Do something with the one item that `name` means, and tell it."""
    from services.common.setaside import NotThat, find_dead

    try:
        told = await act(bus, await find_dead(bus, name))
    except NotThat as error:
        print(f"baton work: {error}", file=sys.stderr)
        return FAILED
    text = told.pop("text")
    print(json.dumps(told) if as_json else text)
    return OK


async def _retry(bus: Bus, dead: Any) -> dict[str, str]:
    from services.common.setaside import retry

    item = await retry(bus, dead)
    old = dead.work.request_id
    text = (
        f"{old} has ended and stays so. It is tried again at stage {item.stage} as a new request of the same user:\n"
        f"  request  {item.request_id}\n"
        f"  key      {item.key}\n"
        f"  follow   baton log --follow {item.key}\n"
        f"Its user can follow it with `resume` and the new request id."
    )
    return {"text": text, "retried": old, "request_id": item.request_id, "key": item.key, "stage": item.stage}


async def _discard(bus: Bus, dead: Any) -> dict[str, str]:
    from services.common.setaside import discard

    await discard(bus, dead)
    key, request_id = dead.work.ref.key, dead.work.request_id
    return {"text": f"Discarded {request_id} ({key}).", "discarded": request_id, "key": key}
