"""Whether and how promptly the event loop turns: what it has to do beside costs every answer that much."""

from __future__ import annotations

import asyncio
import time

from . import metrics

EVERY_S = 0.25
STUCK_S = 30.0
"""An event loop that has not turned for so long is stuck."""


class Pulse:
    """Whether the event loop still turns. A process whose loop is stuck serves nobody, and only a new start helps it;
    NATS or Milvus being away does not stop the loop. Another thread may ask."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def there(self) -> bool:
        return time.monotonic() - self._at < STUCK_S

    async def beat(self) -> None:
        """Until cancelled: measures how much later than asked for this task has its turn."""
        loop = asyncio.get_running_loop()
        while True:
            self._at = time.monotonic()
            due = loop.time() + EVERY_S
            await asyncio.sleep(EVERY_S)
            metrics.LOOP_LAG.observe(max(0.0, loop.time() - due))


PULSE = Pulse()
"""This process's."""
