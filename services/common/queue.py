"""Taking work from the queue: pull requests for as many items as there are free slots, and the lease on each item."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from .bus import Bus, Unconfirmed, end_tasks, quietly, within

log = logging.getLogger(__name__)

Delivery = Msg
"""A message of a work queue as it was delivered, for those who do not import nats."""

PULL_EXPIRES_S = 5.0
PULL_EVERY_S = 1.0
BEAT_S = 0.5
FROZEN_S = 2.5
"""When no beat has come for so long, this process stood still, and what arrives now may have been delivered at any
moment since."""
RENEW_EVERY_S = 1.0


async def take_now(bus: Bus, stream: str, consumer: str, most: int, seconds: float = 2.0) -> list[Msg]:
    """What lies in a work queue and is held by nobody, without waiting for more.

    Raises:
        Unconfirmed: there is no connection.
    """
    arrived: asyncio.Queue[Msg] = asyncio.Queue(most + 1)

    async def on_message(message: Msg) -> None:
        arrived.put_nowait(message)

    inbox = bus.client.new_inbox()
    subscription = await bus.subscribe(inbox, on_message)
    found: list[Msg] = []
    try:
        request = json.dumps({"batch": most, "no_wait": True}).encode()
        await bus.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", request, inbox)
        async with asyncio.timeout(seconds):
            while len(found) < most:
                message = await arrived.get()
                if message.headers and "Status" in message.headers:
                    break  # there is no more
                found.append(message)
    except TimeoutError:
        pass
    finally:
        await quietly(subscription.unsubscribe())
    return found


class Puller:
    """Asks a consumer of a work queue for as many items as `free()` allows and gives each to `take`.

    nats-py's `fetch` waits for a whole batch and so delays the first item; here a request for several is open and each
    item is delivered as it comes.

    Args:
        stream, consumer: of the work queue, and the name that all who pull from it share.
        free: how many more items may be taken now.
        take: called with each message and the monotonic time after which it was delivered, from the subscription's
            callback: must not wait.
        restore: makes the queue and its consumer again; called when the server does not know them (any more).
    """

    def __init__(
        self,
        bus: Bus,
        stream: str,
        consumer: str,
        free: Callable[[], int],
        take: Callable[[Msg, float], None],
        restore: Callable[[], Awaitable[None]],
    ) -> None:
        self._bus = bus
        self._free = free
        self._take = take
        self._restore = restore
        self._missing = False
        self._beat_at = time.monotonic()
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = bus.client.new_inbox()
        self._open: dict[str, tuple[int, float]] = {}  # reply subject -> items still to come, when it ends
        self._number = 0
        self._reconnects = 0
        self._wake = asyncio.Event()
        self._subscription: Subscription | None = None
        self._over = False

    def wake(self) -> None:
        """A slot has become free."""
        self._wake.set()

    async def run(self) -> None:
        """Pull until cancelled; afterwards call `stop`."""
        self._beat_at = time.monotonic()
        self._subscription = await self._bus.subscribe(f"{self._inbox}.*", self._on_message)
        beating = asyncio.create_task(self._beat(), name="beat")
        try:
            while not self._over:
                self._wake.clear()
                if self._missing:
                    await self._make_again()
                await self._pull()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PULL_EVERY_S):
                        await self._wake.wait()
        finally:
            await end_tasks(beating)

    async def _beat(self) -> None:
        """Notice that time has passed without us. Apart from pulling, which waits for NATS now and then."""
        while not self._over:
            if (still_s := time.monotonic() - self._beat_at) > FROZEN_S:
                log.warning("this process stood still for %.1f s", still_s)
                if self._bus.connected:
                    # What was sent to us meanwhile comes before the answer to this.
                    await quietly(within(2.0, self._bus.client.flush(timeout=2)))
            self._beat_at = time.monotonic()
            await asyncio.sleep(BEAT_S)

    async def _make_again(self) -> None:
        self._missing = False
        log.warning("the work queue has no consumer for us; making it again")
        await asyncio.sleep(random.uniform(0.1, 0.5))
        await self._restore()

    async def stop(self) -> None:
        """Take nothing more. What the server had already sent is still given to `take`, so nothing waits for a
        redelivery."""
        # A cancellation may have been swallowed inside of nats-py (see `end_tasks`), and nobody would hear the answer.
        self._over = True
        if self._subscription is not None:
            await quietly(within(2.0, self._subscription.drain()))  # type: ignore[no-untyped-call]
            self._subscription = None

    async def _pull(self) -> None:
        now = time.monotonic()
        if (reconnects := self._bus.reconnects) != self._reconnects:
            # What was asked of the old connection, the server has forgotten.
            self._reconnects = reconnects
            self._open.clear()
        self._open = {reply: (left, ends) for reply, (left, ends) in self._open.items() if ends > now and left > 0}
        wanted = self._free() - sum(left for left, _ in self._open.values())
        if wanted <= 0 or self._over or not self._bus.connected:
            return
        self._number += 1
        reply = f"{self._inbox}.{self._number}"
        request = {"batch": wanted, "expires": int(PULL_EXPIRES_S * 1e9)}
        self._open[reply] = (wanted, now + PULL_EXPIRES_S + 1.0)
        await self._bus.publish(self._next, json.dumps(request).encode(), reply)

    async def _on_message(self, message: Msg) -> None:
        request = message.subject
        if message.headers and (status := message.headers.get("Status")):
            self._open.pop(request, None)
            description = message.headers.get("Description", "")
            if status == "503" or "onsumer Deleted" in description:
                self._missing = True
            elif status not in ("404", "408", "409"):
                log.warning("work queue: %s %s", status, description)
            self._wake.set()
            return
        # The message keeps the work subject; which request it answers is not said, so the oldest one is counted down.
        for reply, (left, ends) in self._open.items():
            self._open[reply] = (left - 1, ends)
            break
        self._open = {reply: state for reply, state in self._open.items() if state[0] > 0}
        now = time.monotonic()
        self._take(message, self._beat_at if now - self._beat_at > FROZEN_S else now)


class Lease:
    """A holder's claim on one work item, renewed while it works.

    Work goes to somebody else when a renewal does not arrive in time, and the server does not say so: a holder that
    has had no answer for `ack_wait_s` less a margin must take itself for replaced. `lost` tells it.

    Args:
        since: monotonic time after which the item was delivered.
    """

    def __init__(self, bus: Bus, message: Msg, ack_wait_s: float, since: float) -> None:
        self._bus = bus
        self._ack = message.reply
        self._valid_s = ack_wait_s * 0.8
        self._renewed = since
        self._over = False
        self.lost = asyncio.Event()
        self.deliveries = message.metadata.num_delivered

    @property
    def held(self) -> bool:
        return not self.lost.is_set() and time.monotonic() - self._renewed < self._valid_s

    async def renew_forever(self) -> None:
        """Renew every second until `stop` or lost."""
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            if self._over:
                return
            if not self.held:
                self.lost.set()
                return
            asked = time.monotonic()
            try:
                await self._bus.request(self._ack, b"+WPI", seconds=RENEW_EVERY_S)
            except Unconfirmed:
                continue
            self._renewed = asked

    def stop(self) -> None:
        """Renew no more. Cancelling the task alone is not enough: nats-py waits with `asyncio.wait_for`, which may
        swallow a cancellation before Python 3.12, and an item that is no longer ours must not be renewed."""
        self._over = True

    async def acknowledge(self) -> None:
        """The item is dealt with. Not sent when the lease may be lost: it could remove somebody else's delivery."""
        await self._settle(b"+ACK")

    async def give_back(self, delay_s: float = 0.0) -> None:
        """Let another worker have the item, at once or after a pause."""
        await self._settle(f'-NAK {{"delay": {round(delay_s * 1e9)}}}'.encode() if delay_s else b"-NAK")

    async def _settle(self, what: bytes) -> None:
        for _ in range(3):
            if not self.held:
                return
            try:
                await self._bus.request(self._ack, what, seconds=1.0)
                return
            except Unconfirmed:
                continue
