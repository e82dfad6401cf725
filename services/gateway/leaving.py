"""Requests whose clients have left: how long they go on, and whether somebody else follows them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from baton_proto import subjects
from services.common import metrics
from services.common.bus import Bus, Unconfirmed

from .follower import Follower

log = logging.getLogger(__name__)

ASK_S = 0.5
ASK_TRIES = 4
"""For so long together another gateway may stand still without losing what its clients follow."""
ASK_AT_ONCE = 256


@dataclass(slots=True)
class _Left:
    """A follower without a client. `wished`: the client closed the connection, not we."""

    since: float
    wished: bool


class Leaving:
    """Cancels what nobody has followed for the grace time, here or at another gateway.

    A query's `on_disconnect` decides first: `continue` goes on to its end, `cancel` ends as soon as its client leaves
    by its own wish. Without either, and where a gateway has closed the connection, the grace time counts.

    Args:
        cancel: cancels a follower's request.
    """

    def __init__(self, bus: Bus, grace_s: float, cancel: Callable[[Follower], Awaitable[None]]) -> None:
        self._bus = bus
        self._grace_s = grace_s
        self._cancel = cancel
        self._followed: defaultdict[str, set[Follower]] = defaultdict(set)
        self._left: dict[Follower, _Left] = {}
        self._asking: dict[Follower, asyncio.Task[None]] = {}
        self._turn = asyncio.Semaphore(ASK_AT_ONCE)

    async def listen(self) -> None:
        """Answer other gateways. Raises Unconfirmed without a connection."""
        await self._bus.answer(subjects.FOLLOWED, self._on_question)

    def joined(self, follower: Follower) -> None:
        """A client follows this request."""
        self._followed[follower.at.key].add(follower)

    def left(self, follower: Follower, *, wished: bool) -> None:
        """Its client has left; the request is still followed, to its end or until it is cancelled."""
        self.forget(follower)
        follower.hide()
        if not follower.ended:
            self._left[follower] = _Left(time.monotonic(), wished)
            self._consider(follower)

    def forget(self, follower: Follower) -> None:
        """It has ended, or its client does not follow it any more."""
        followers = self._followed.get(follower.at.key, set())
        followers.discard(follower)
        if not followers:
            self._followed.pop(follower.at.key, None)
        self._left.pop(follower, None)

    def tick(self) -> None:
        for follower in list(self._left):
            self._consider(follower)

    def close(self) -> None:
        for task in self._asking.values():
            task.cancel()

    def _consider(self, follower: Follower) -> None:
        """Whether its time is up; then ask the other gateways."""
        left = self._left[follower]
        if follower.deadline_ms is None:
            return  # what its query said has not been read yet
        if follower.on_disconnect == "continue" or follower in self._asking:
            return
        grace_s = 0.0 if follower.on_disconnect == "cancel" and left.wished else self._grace_s
        if time.monotonic() - left.since < grace_s:
            return
        task = asyncio.create_task(self._cancel_unfollowed(follower), name=f"followed? {follower.at.key}")
        self._asking[follower] = task
        task.add_done_callback(lambda _: self._asking.pop(follower, None))

    async def _cancel_unfollowed(self, follower: Follower) -> None:
        async with self._turn:
            followed = follower.at.key in self._followed or await self._followed_elsewhere(follower.at.key)
        left = self._left.get(follower)
        if left is None or follower.ended:
            return
        if followed or not self._bus.connected or follower.at.key in self._followed:
            # Whoever follows it watches for its own client's leaving; ask again when the grace time is over once more.
            left.since, left.wished = time.monotonic(), False
            return
        log.info("nobody follows %s any more: cancelled", follower.request_id)
        metrics.ABANDONED.inc()
        del self._left[follower]
        await self._cancel(follower)

    async def _followed_elsewhere(self, key: str) -> bool:
        for _ in range(ASK_TRIES):
            try:
                await self._bus.request(subjects.FOLLOWED, key.encode(), ASK_S)
            except Unconfirmed:
                continue
            return True
        return False

    def _on_question(self, data: bytes) -> bytes | None:
        return b"" if data.decode("ascii", "replace") in self._followed else None
