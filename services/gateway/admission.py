"""Admission: whether a query becomes a request now, whether it must wait for its user's turn, and when to come back."""

from __future__ import annotations

import logging
import math
import random

from baton_proto import subjects
from baton_proto.messages import WorkItem
from services.common.bus import Bus, Full, Unconfirmed
from services.common.clock import now_ms
from services.common.config import GatewaySettings
from services.common.errors import ServiceError, no_worker
from services.common.presence import Presence
from services.common.waiting import StreamState

from .auth import Identity
from .follower import DEADLINE_GRACE_MS, Follower

log = logging.getLogger(__name__)

FEW_SHARE = 0.9
MANY_SHARE = 0.7
"""How full the queues may be for a query of a user who has few that run, and of one who has many. What is left is for
the hand-offs of answers that have begun."""
PLACE_MARGIN_S = 1
RETRY_MS = (1_000, 30_000)


class Load:
    """How much lies in the queues, and how fast it leaves them.

    `observe` is told the state of the work stream and of the waiting one about once a second; between two observations
    what this gateway has added is counted: from `enter`, before it is stored, on. What is on its way while the streams
    are looked at (since `look`) counts in any case, so it is sometimes counted twice for a second, and never missed.
    `room` is how many more the workers would take at once while nobody waits.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: tuple[float, int] | None = None
        self._on_its_way = 0
        self._arrived = 0
        self.queued = 0
        self.room = 0
        self.passed = 0
        self.per_second = 0.0

    def look(self) -> None:
        """The streams are about to be looked at."""
        self._arrived = 0

    def observe(self, work: StreamState, waiting: StreamState, now: float) -> None:
        self.queued = work.messages + waiting.messages + self._on_its_way + self._arrived
        if self._seen is not None and now > self._seen[0]:
            rate = max(0.0, (work.removed - self._seen[1]) / (now - self._seen[0]))
            # Half-life of one observation: it follows a change within seconds and no single pause is taken for a stop.
            self.per_second = rate if self.per_second == 0 else (self.per_second + rate) / 2
        self._seen = (now, work.removed)

    def enter(self) -> None:
        """One more is on its way into the queues."""
        self.queued += 1
        self._on_its_way += 1

    def settle(self, *, stored: bool) -> None:
        """It is there, or will not come after all."""
        self._on_its_way -= 1
        if stored:
            self._arrived += 1
        else:
            self.queued -= 1

    def let_through(self) -> bool:
        """Whether there is room for one more; if so it is taken."""
        self.passed += 1
        self.room -= 1
        return self.room >= 0

    def full(self, share: float) -> bool:
        """Whether the queues are filled up to this share of their limit."""
        return self.queued >= max(1, math.floor(self._limit * share))

    def retry_after_ms(self) -> int:
        """When what lies in the queues will have gone, at the pace of the last seconds. Bounded; and spread, so that
        those who were refused together do not come back together."""
        least, most = RETRY_MS
        expected = 1000 * self.queued / self.per_second if self.per_second > 0 else most
        return spread(min(max(expected, least), most / 1.5))


def spread(milliseconds: float) -> int:
    """Between one and one and a half times as long."""
    return round(milliseconds * random.uniform(1.0, 1.5))


class Admission:
    """Decides about new queries of one gateway. Nothing here applies to a request that is known already."""

    def __init__(self, bus: Bus, presence: Presence, settings: GatewaySettings) -> None:
        self._bus = bus
        self._presence = presence
        self._settings = settings
        self._lanes: dict[str, set[Follower]] = {}
        self.load = Load(bus.settings.work_max_items)

    def enter(self, lane: str, follower: Follower) -> None:
        """Count a request among the running ones of a lane until it has ended."""
        self._lanes.setdefault(lane, set()).add(follower)

    def leave(self, lane: str, follower: Follower) -> None:
        """It turned out to be no new request."""
        self._lanes.get(lane, set()).discard(follower)

    def forget_ended(self) -> None:
        lanes = {lane: {one for one in running if not one.ended} for lane, running in self._lanes.items()}
        self._lanes = {lane: running for lane, running in lanes.items() if running}

    def _require_workers(self, item: WorkItem) -> None:
        """Refuse what nobody would take. Every query needs a retriever. Whether it gets as far as a generator is the
        retriever's affair, so only generators that were there and are gone count as missing. (An item tries a variant
        at those stages only at which it has workers.)"""
        presence, varied = self._presence, item.varied
        if subjects.RETRIEVE not in varied and presence.settled and not presence.live(subjects.RETRIEVE):
            raise no_worker(subjects.RETRIEVE)
        if subjects.GENERATE not in varied and presence.gone(subjects.GENERATE):
            raise no_worker(subjects.GENERATE)

    def decide(self, item: WorkItem, who: Identity) -> str | None:
        """The lane in which a query must wait for its user's turn, if it must. It counts as on its way into the queues
        until `load.settle` is called.

        Raises:
            ServiceError: not now.
        """
        self._require_workers(item)
        few = self._running(who.lane) <= self._settings.direct_requests
        if self.load.full(FEW_SHARE if few else MANY_SHARE):
            raise self.overloaded()
        direct = self.load.let_through() or few
        self.load.enter()
        return None if direct else who.lane

    async def take_place(self, item: WorkItem, who: Identity) -> int | None:
        """A place among the user's running requests; None where nobody says who it is.

        Raises:
            ServiceError: there is none left.
            Unconfirmed, Full
        """
        return await self._take_place(item) if who.known else None

    async def free(self, place: int | None) -> None:
        """Give back a place that became no request. What cannot be freed now frees itself later."""
        if place is not None:
            try:
                await self._bus.delete_stored(subjects.RUNNING_STREAM, place)
            except Unconfirmed as error:
                log.warning("a place stays taken until its deadline: %s", error)

    def overloaded(self) -> ServiceError:
        message = "Too much work is waiting; try again later."
        return ServiceError("overloaded", message, retryable=True, retry_after_ms=self.load.retry_after_ms())

    def _running(self, lane: str) -> int:
        running = {one for one in self._lanes.get(lane, ()) if not one.ended}
        self._lanes[lane] = running
        return len(running)

    async def _take_place(self, item: WorkItem) -> int:
        """A message under the owner's subject, which takes no more of them than the limit: atomic over all gateways.
        It outlives the deadline only by a margin, so places of a gateway that was lost come back."""
        lasts_s = math.ceil((item.deadline_ms + DEADLINE_GRACE_MS - now_ms()) / 1000) + PLACE_MARGIN_S
        try:
            return await self._bus.store(
                subjects.running_subject(item.owner), item.key.encode(), {"Nats-TTL": str(lasts_s)}
            )
        except Full as full:
            if "per subject" not in str(full):
                raise
        limit = self._settings.requests_per_user
        raise ServiceError(
            "rate_limited",
            f"{limit} of your requests run already, which is the limit; wait until one ends.",
            retryable=True,
            retry_after_ms=spread(RETRY_MS[0]),
        )
