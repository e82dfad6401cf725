"""What a worker says of itself (2.10, 3)."""

from __future__ import annotations

import time

from baton_proto import subjects
from baton_proto.messages import PRESENCE_TTL_MS
from conformance.kit import Kit
from conformance.promise import Advice, Broken, InDoubt, promise
from conformance.request import Request
from services.common.inspection import gather_holdings

ASKED = 3
AT_ONCE_S = 1.5
"""For all answers to `ASKED` questions; who only speaks every second needs two at least."""
MAX_SLOTS = 16
"""Most slots that are filled to see whether they are there."""


@promise("3")
async def it_announces_itself(kit: Kit) -> None:
    """A worker announces itself every second: one that has not been heard for four is taken for absent."""
    since = time.monotonic()
    name = kit.witness.announced[-1][0].worker

    def again() -> bool:
        return sum(said.worker == name and at > since for said, at in kit.witness.announced) >= 2

    if not await kit.witness.until(again, PRESENCE_TTL_MS / 1000):
        raise InDoubt(f"it was not heard twice within {time.monotonic() - since:.1f} s")
    if (variant := kit.witness.announced[-1][0].variant) != kit.variant:
        raise Broken(f"on {kit.witness.presence} it announces the variant {variant!r}")
    if kit.witness.unreadable:
        raise Broken(f"an announcement that a reader must refuse: {kit.witness.unreadable[-1]}", "4")


@promise("3")
async def it_answers_a_census(kit: Kit) -> None:
    """A worker announces itself at once when a message arrives on `baton.v1.census`."""
    name = kit.witness.announced[-1][0].worker
    times = []
    for _ in range(3):
        begun = time.monotonic()
        for _ in range(ASKED):
            asked = time.monotonic()
            await kit.bus.publish(subjects.CENSUS, b"")
            await kit.witness.until(
                lambda asked=asked: any(  # type: ignore[misc]
                    said.worker == name and at > asked for said, at in kit.witness.announced
                ),
                AT_ONCE_S,
            )
        times.append(time.monotonic() - begun)
        if times[-1] < AT_ONCE_S:
            return
    raise Broken(f"{ASKED} announcements that were asked for took {min(times):.1f} s")


@promise("3", needs_process=True)
async def it_serves_as_many_as_it_says(kit: Kit) -> None:
    """A worker announces as many slots as it serves requests at once, and how many it serves now; what it holds then is
    in its `Holdings`."""
    wanted = min(kit.slots, MAX_SLOTS)
    requests = [await kit.request() for _ in range(wanted)]
    problem: Broken | None = None
    async with kit.blocked(*requests):
        for one in requests:
            await one.tell()
        try:
            await _check_all_served(kit, requests)
        except Broken as broken:
            problem = broken
    try:
        for one in requests:
            await one.ended(kit.again_s)
    finally:
        if problem is not None:
            raise problem


async def _check_all_served(kit: Kit, requests: list[Request]) -> None:
    def begun() -> int:
        return sum(bool(one.attempts) for one in requests)

    def running() -> int:
        return max((said.running for said, at in kit.witness.announced if at >= since), default=0)

    wanted = len(requests)
    if not await kit.witness.until(lambda: begun() == wanted, kit.patience_s):
        raise Broken(f"it announces {kit.slots} slots, and of {wanted} requests it began {begun()}")
    since = time.monotonic()
    if not await kit.witness.until(lambda: running() >= wanted, PRESENCE_TTL_MS / 1000):
        raise InDoubt(f"it announced {running()} requests as `running` when it served {wanted}")
    held = {item.key for holdings in await gather_holdings(kit.bus) for item in holdings.items}
    if held and (missing := {one.key for one in requests} - held):
        raise InDoubt(f"its answer on `baton.v1.inventory` leaves out {len(missing)} of {wanted} items", "2.10")


@promise("2.10")
async def it_tells_what_it_holds(kit: Kit) -> None:
    """A worker answers a request on `baton.v1.inventory` with its `Holdings`."""
    names = set(kit.witness.workers)
    for _ in range(3):
        if any(holdings.worker in names for holdings in await gather_holdings(kit.bus)):
            return
    raise Advice("no readable answer came: `baton work` cannot show who holds what")
