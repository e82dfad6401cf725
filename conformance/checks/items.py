"""Good items, in whatever form they come (2.2, 2.6, 7): they are answered, and nothing of them is lost on the way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection
from typing import Any

from baton_proto import codec
from baton_proto.messages import MAX_ENTRY_BYTES, Error, WorkItem
from conformance.frames import ending
from conformance.kit import Kit
from conformance.promise import Broken, promise
from conformance.request import Request

PARALLEL = 16
LARGE = "Nothing of this is about the question. " * (MAX_ENTRY_BYTES // 38)
LATER: dict[str, Any] = {"conformance_later": {"a": [1, {"b": "二"}]}}
"""Fields of an item that nobody knows."""
KEPT = (
    "v",
    "key",
    "shard",
    "request_id",
    "owner",
    "query",
    "language",
    "received_ms",
    "deadline_ms",
    "claims",
    "conversation_id",
    "top_k",
    "filters",
    "sampling",
    "variant",
    "varied",
    "place",
    "lane",
    "on_disconnect",
)
"""What a hand-off hands on as it was."""


async def passed_on(one: Request, changing: Collection[str] = ()) -> tuple[WorkItem, dict[str, Any]] | None:
    """Let the worker deal with a request; the item that it handed on, None where it ended the log itself.

    Args:
        changing: fields of `KEPT` that another value may be handed on of.

    Raises:
        Broken: it failed, or what it handed on is not what it should be.
    """
    await one.tell()
    last = (await one.finished())[-1]
    if isinstance(last, Error):
        raise Broken(f"a good item ended with {ending(last)}: {last.message}", "5")
    if last.handoff is None:
        return None
    item, raw = await one.next_item(last)
    before = codec.item_from_map(one.item)
    for name in KEPT:
        if name not in changing and (now := getattr(item, name)) != (was := getattr(before, name)):
            raise Broken(f"the item that it handed on has {name}={now!r:.200}, not {was!r:.200}", "2.6")
    if item.stage != last.handoff.stage:
        raise Broken(f"the item that it handed to {last.handoff.stage} says `stage` {item.stage!r}", "2.6")
    if item.queued_ms < one.item["queued_ms"]:
        raise Broken("the item that it handed on has the `queued_ms` of before, or an earlier one", "2.6")
    if item.timings.ttfb_ms is None:
        raise Broken("the item that it handed on has no `timings.ttfb_ms`: the first worker sets it", "5")
    return item, raw


@promise("5")
async def good_items_are_dealt_with(kit: Kit) -> None:
    """A good item is dealt with, its frames stored one after the other, its end told: the terminal frame, or the
    hand-off with its reference, comes before the acknowledgement."""
    await passed_on(await kit.request())


def check_survived(handed: dict[str, Any]) -> None:
    """`LATER` is in an item that was handed on.

    Raises:
        Broken
    """
    if any(handed.get(name) != value for name, value in LATER.items()):
        raise Broken(f"the fields {', '.join(LATER)} of the item did not survive the hand-off", "7")


@promise("7")
async def unknown_fields_are_ignored_and_survive(kit: Kit) -> None:
    """Fields that a worker does not know are ignored, and those at the top of an item survive its hand-off."""
    handed = await passed_on(await kit.request(LATER, unknown=True))
    if handed is not None:
        check_survived(handed[1])


@promise("2.2")
async def items_in_the_object_store_are_found(kit: Kit) -> None:
    """An item too large for a message comes from the object store, and goes there again when it is handed on."""
    handed = await passed_on(await kit.request({"conformance_large": LARGE}, as_object=True))
    if handed is not None and handed[1].get("conformance_large") != LARGE:
        raise Broken("the large item did not survive the hand-off whole", "2.6")


@promise("2.1")
async def many_items_at_once_are_kept_apart(kit: Kit) -> None:
    """Requests that run at once do not disturb each other: each log gets its own frames, and every one ends."""
    requests = [await kit.request(among=PARALLEL) for _ in range(PARALLEL)]
    await asyncio.gather(*(passed_on(one) for one in requests))
    used = Counter(append_id for one in requests for append_id in {each.entry.append_id for each in one.attempts})
    if again := [append_id for append_id, logs in used.items() if logs > 1]:
        raise Broken(f"the `append_id` {again[0]!r} was used in {used[again[0]]} logs: it is not random", "2.4")
