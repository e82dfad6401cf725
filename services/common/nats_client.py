"""nats-py's client, with what it gets wrong put right, and what it does slowly done faster (lean_client.py)."""

from __future__ import annotations

from .lean_client import LeanClient


class NatsClient(LeanClient):
    async def _process_pong(self) -> None:
        """A pong for a ping (`flush`, `drain`) whose waiter has given up. nats-py 2.16 fails on it and never reads from
        the connection again; only its next pings notice, 10 to 15 s later."""
        if self._pongs and self._pongs[0].done():
            del self._pongs[0]
            self._pongs_received += 1
            self._pings_outstanding = 0
        else:
            await super()._process_pong()
