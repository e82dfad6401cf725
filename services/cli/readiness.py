"""Asking a starting server whether it is ready, without any client library."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

INTERVAL_S = 0.05
ANSWER_S = 2.0

Probe = Callable[[], Awaitable[bool]]


class NotReady(Exception):
    """It was not ready in time."""


async def until_ready(what: str, probe: Probe, timeout_s: float) -> None:
    """Ask `probe` again and again until it says yes.

    Raises:
        NotReady: after `timeout_s` seconds.
    """
    try:
        async with asyncio.timeout(timeout_s):
            while not await probe():  # noqa: ASYNC110 - it is another process: no event of ours tells
                await asyncio.sleep(INTERVAL_S)
    except TimeoutError:
        raise NotReady(f"{what} was not ready after {timeout_s:g} s") from None


def listens(host: str, port: int) -> Probe:
    """Somebody accepts connections there."""

    async def probe() -> bool:
        return await _exchange(host, port, b"", 0) is not None

    return probe


def speaks_nats(host: str, port: int) -> Probe:
    """A NATS server greets with its INFO line there."""

    async def probe() -> bool:
        greeting = await _exchange(host, port, b"", 5)
        return greeting == b"INFO "

    return probe


def answers_ok(host: str, port: int, path: str) -> Probe:
    """An HTTP GET of `path` gives 200."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()

    async def probe() -> bool:
        answer = await _exchange(host, port, request, 12)
        return answer is not None and answer[9:12] == b"200"

    return probe


async def _exchange(host: str, port: int, request: bytes, wanted: int) -> bytes | None:
    """The first `wanted` bytes of the answer, or None where there is none."""
    writer = None
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(request)
            return await reader.readexactly(wanted)
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return None
    finally:
        if writer is not None:
            writer.close()
