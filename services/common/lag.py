"""How late the event loop is: what it has to do beside costs every answer that much."""

from __future__ import annotations

import asyncio

from . import metrics

EVERY_S = 0.25


async def measure_lag() -> None:
    """Until cancelled: how much later than asked for this task has its turn."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + EVERY_S
        await asyncio.sleep(EVERY_S)
        metrics.LOOP_LAG.observe(max(0.0, loop.time() - due))
