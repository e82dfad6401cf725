"""What the commands that talk to NATS themselves have in common."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from services.common.config import ALL_SETTINGS, NatsSettings
from services.common.settings import SettingsError, load

if TYPE_CHECKING:
    from services.common.bus import Bus

CONNECT_S = 5.0
OK, FAILED, USAGE, NO_NATS, INTERRUPTED = 0, 1, 2, 3, 130


class CannotReach(Exception):
    """NATS is not there; the text says where it was looked for."""


def run_direct(command: str, work: Callable[[Bus], Coroutine[Any, Any, int]]) -> int:
    """Run `work` with a connection to NATS; the exit status. What can be expected to fail is told in a sentence."""
    from services.common.bus import Unconfirmed

    try:
        with quiet_bus():
            return asyncio.run(_connected(command, work))
    except SettingsError as error:
        problem, status = f"the settings are wrong: {error}", USAGE
    except CannotReach as error:
        problem, status = str(error), NO_NATS
    except Unconfirmed as error:
        problem, status = f"NATS did not answer ({error}); try again", NO_NATS
    except KeyboardInterrupt:
        return INTERRUPTED
    print(f"baton {command}: {problem}", file=sys.stderr)
    return status


async def _connected(command: str, work: Callable[[Bus], Coroutine[Any, Any, int]]) -> int:
    async with open_bus(command) as bus:
        return await work(bus)


@asynccontextmanager
async def open_bus(command: str, url: str = "") -> AsyncIterator[Bus]:
    """A connection that changes nothing in NATS: streams are left as they are, whatever this shell's settings say.

    Args:
        url: of another NATS than that of the settings.
    """
    from services.common.connection import connect

    (settings,) = load([NatsSettings], ALL_SETTINGS)
    settings = dataclasses.replace(settings, url=url or settings.url)
    connecting = connect(settings, f"baton-{command}")
    try:
        async with asyncio.timeout(CONNECT_S):
            bus = await connecting.__aenter__()
    except TimeoutError:
        named = "--nats" if url else "BATON_NATS_URL"
        raise CannotReach(f"NATS cannot be reached at {settings.shown_url} ({named}); is it running?") from None
    try:
        yield bus
    finally:
        await connecting.__aexit__(None, None, None)


@contextmanager
def quiet_bus() -> Iterator[None]:
    """The bus warns of every lost connection, also of the one that is closed at the end; what matters is told here."""
    log = logging.getLogger("services.common.bus")
    usual = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(usual)
