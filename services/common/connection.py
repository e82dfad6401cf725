"""Connecting to NATS, and staying connected."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator
from urllib.parse import unquote, urlsplit

import nats.errors
from nats.aio.client import Client

from . import metrics
from .bus import Bus, end_tasks, quietly, within
from .config import NatsSettings
from .nats_client import NatsClient

log = logging.getLogger(__name__)

SAY_AGAIN_S = 10.0


class _Events:
    """What the connection tells of itself: logged and counted, but not when we close it ourselves."""

    def __init__(self, url: str) -> None:
        self.closing = False
        self._url = url
        self._ever_connected = False
        self._said: dict[str, float] = {}

    def opened(self) -> None:
        metrics.NATS_CONNECTED.set(1)
        self._ever_connected = True

    async def error(self, error: Exception) -> None:
        if isinstance(error, nats.errors.SlowConsumerError):
            metrics.NATS_SLOW.inc()
        text = str(error) or type(error).__name__
        now = time.monotonic()
        if now - self._said.get(text, -SAY_AGAIN_S) < SAY_AGAIN_S:
            return  # every attempt to connect fails alike
        self._said = {text: now}
        if self._ever_connected:
            log.warning("NATS: %s", text)
        else:
            log.warning("no NATS at %s (%s); trying again", self._url, text)

    async def disconnected(self) -> None:
        metrics.NATS_CONNECTED.set(0)
        if not self.closing and self._ever_connected:
            log.warning("NATS: connection lost")

    async def reconnected(self) -> None:
        metrics.NATS_CONNECTED.set(1)
        metrics.NATS_RECONNECTS.inc()
        log.info("NATS: connected again")


@contextlib.asynccontextmanager
async def connect(settings: NatsSettings, name: str) -> AsyncIterator[Bus]:
    """A connected bus, kept connected for good: NATS being away is weather, at start too."""
    events = _Events(settings.shown_url)
    client = await _first_connection(settings, name, events)
    events.opened()
    try:
        yield Bus(client, settings, name)
    finally:
        events.closing = True
        # uvloop's RuntimeError says that the transport has closed itself, with something still to be sent.
        with contextlib.suppress(RuntimeError):
            if client.is_connected:
                await quietly(within(3.0, client.flush(timeout=2)))
        with contextlib.suppress(RuntimeError):
            await quietly(client.close())


def _credentials(urls: str) -> tuple[str | None, str | None]:
    """User and password in one of the URLs, for all servers: also for those that are not named, but which the cluster
    tells of."""
    for url in urls.split(","):
        parts = urlsplit(url.strip())
        if parts.username and parts.password:
            return unquote(parts.username), unquote(parts.password)
    return None, None


async def _first_connection(settings: NatsSettings, name: str, events: _Events) -> Client:
    user, password = _credentials(settings.url)
    while True:
        client = NatsClient()
        connecting = asyncio.create_task(
            client.connect(
                servers=[url.strip() for url in settings.url.split(",")],
                user=user,
                password=password,
                name=name,
                connect_timeout=2,
                allow_reconnect=True,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.25,  # type: ignore[arg-type]  # it only waits for so long
                ping_interval=5,
                max_outstanding_pings=2,
                error_cb=events.error,
                disconnected_cb=events.disconnected,
                reconnected_cb=events.reconnected,
            )
        )
        try:
            # In a task of its own: `end_tasks` says why a cancellation must not go through nats-py.
            await asyncio.wait([connecting])
            await connecting
            return client
        except (nats.errors.Error, OSError, TimeoutError) as error:
            await events.error(error)
        finally:
            await end_tasks(connecting)
        await asyncio.sleep(random.uniform(0.5, 1.5))
