"""Orders to cancel a request: how one is given, and how whoever holds the request hears of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from nats.aio.msg import Msg

from baton_proto import codec, subjects
from baton_proto.messages import CancelOrder

from .bus import Bus
from .clock import now_ms

log = logging.getLogger(__name__)


async def order_cancel(bus: Bus, key: str) -> None:
    """Tell whoever holds a request, now or later, that nobody wants its answer any more.

    Raises:
        Unconfirmed, Full
    """
    order = CancelOrder(key=key, requested_ms=now_ms())
    subject, data = subjects.cancel_subject(key), codec.encode(order)
    headers = {"Nats-Msg-Id": f"{key}.{order.requested_ms}"}
    await bus.store(subject, data, headers)
    # Once more, and stored only once: what came just before a holder subscribed, and was stored just after it had
    # looked, would reach it in neither way. It is stored now, so whoever has not seen it there has subscribed before.
    await bus.publish(subject, data, headers=headers)


@contextlib.asynccontextmanager
async def cancel_orders(bus: Bus, key: str) -> AsyncIterator[asyncio.Future[int]]:
    """Done when the request is cancelled, also when that happened before we looked: since when (Unix epoch, ms)."""
    order: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    subject = subjects.cancel_subject(key)

    def take(data: bytes) -> None:
        if order.done():
            return
        try:
            order.set_result(codec.decode(data, CancelOrder).requested_ms)
        except codec.WireError as error:
            log.warning("an unreadable order to cancel is obeyed: %s", error)
            order.set_result(now_ms())

    async def on_order(message: Msg) -> None:
        take(message.data)

    subscription = await bus.subscribe(subject, on_order)
    try:
        if (stored := await bus.last(subjects.CANCEL_STREAM, subject)) is not None:
            take(stored.data)
        yield order
    finally:
        order.cancel()
        with contextlib.suppress(Exception):
            await subscription.unsubscribe()
