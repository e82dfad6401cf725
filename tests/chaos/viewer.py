"""One client's view of one request: it asks, reads, leaves and comes back as planned, and obeys the protocol."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from .habits import Leave
from .transcript import Frame, Transcript

CONNECT_S = 5.0
RETRY_S = 0.1
MOST_RETRY_S = 2.0
"""A client that was disconnected waits a random part of these before it tries again, longer each time."""
NEVER_AGAIN = {1009, 4001, 4003}
GOING_AWAY = 1012
PAUSE_AFTER = {4029: 1.0}


class _Left(Exception):
    """The client has dropped the connection, as planned."""


class _Refused(Exception):
    """The message may be sent again after so many seconds."""

    def __init__(self, after_s: float) -> None:
        self.after_s = after_s


class Tally:
    """What all viewers together went through."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.longest_pause_s = 0.0
        self.longest_pause = ""

    def pause(self, seconds: float, where: str) -> None:
        if seconds > self.longest_pause_s:
            self.longest_pause_s, self.longest_pause = seconds, where


class Viewer:
    """Follows one request to its end.

    Args:
        urls: of all gateways; each connection goes to a random one.
        query: what starts the request; None where it is known to run, and this viewer only attaches.
        on_frame: told the `seq` of each frame that comes.
    """

    def __init__(
        self,
        urls: Sequence[str],
        request_id: str,
        transcript: Transcript,
        tally: Tally,
        dice: random.Random,
        *,
        query: dict[str, Any] | None = None,
        leaves: Sequence[Leave] = (),
        slow_s: float = 0.0,
        on_frame: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._urls = urls
        self._request_id = request_id
        self._transcript = transcript
        self._tally = tally
        self._dice = dice
        self._query = query
        self._leaves = list(leaves)
        self._slow_s = slow_s
        self._on_frame = on_frame
        self._frames = 0
        self._asks: Leave | None = None
        self._failures = 0
        self._heard = time.monotonic()
        self.refused: Frame | None = None
        """An error about the message that forbids to send it again."""

    async def follow(self, limit_s: float) -> None:
        """Return when the request has ended for this client, or after `limit_s`."""
        self._heard = time.monotonic()
        try:
            async with asyncio.timeout(limit_s):
                while self._transcript.end is None and self.refused is None:
                    await self._once()
        except TimeoutError:
            return

    async def _once(self) -> None:
        """One connection."""
        url = self._dice.choice(self._urls)
        try:
            async with connect(url, open_timeout=CONNECT_S, compression=None, close_timeout=1) as socket:
                self._transcript.connected()
                await self._ask(socket)
                await self._read(socket)
        except _Left:
            leave = self._asks
            await asyncio.sleep(leave.away_s if leave else 0.0)
            self._heard = time.monotonic()
        except _Refused as refused:
            await asyncio.sleep(refused.after_s * self._dice.uniform(1.0, 1.5))
        except ConnectionClosed as closed:
            await self._closed(closed)
        except (OSError, InvalidHandshake, TimeoutError):
            self._tally.counts["failed connects"] += 1
            await self._wait()

    async def _closed(self, closed: ConnectionClosed) -> None:
        code = closed.rcvd.code if closed.rcvd else 1006
        self._tally.counts[f"closed {code}"] += 1
        if code in NEVER_AGAIN:
            self.refused = {"type": "error", "code": f"closed {code}"}
        elif code == GOING_AWAY:
            await asyncio.sleep(self._dice.uniform(0.0, RETRY_S))
        else:
            await asyncio.sleep(PAUSE_AFTER.get(code, 0.0))
            await self._wait()

    async def _wait(self) -> None:
        most = min(MOST_RETRY_S, RETRY_S * 2**self._failures)
        self._failures += 1
        await asyncio.sleep(self._dice.uniform(0.3, 1.0) * most)

    async def _ask(self, socket: ClientConnection) -> None:
        """Begin or go on: with what is planned for this time, and otherwise right after the last frame received."""
        asks, self._asks = self._asks, None
        started = bool(self._transcript.frames)
        if self._query is not None and (not started or (asks is not None and asks.by_query)):
            self._tally.counts["queries sent again" if started else "queries"] += 1
            self._transcript.asked()
            await socket.send(json.dumps(self._query))
            return
        after = self._transcript.next_seq - 1
        if asks is not None and asks.rewind:
            self._tally.counts["resumes from an older place"] += 1
            after = max(self._transcript.start - 1, after - asks.rewind)
        self._tally.counts["resumes"] += 1
        self._transcript.asked_after(after)
        await socket.send(json.dumps({"type": "resume", "request_id": self._request_id, "after_seq": after}))

    async def _read(self, socket: ClientConnection) -> None:
        while self._transcript.end is None and self.refused is None:
            if self._leaves and self._leaves[0].after <= self._frames:
                await self._leave(socket)
            self._handle(json.loads(await socket.recv()))
            if self._slow_s:
                await asyncio.sleep(self._slow_s)
                self._heard += self._slow_s

    async def _leave(self, socket: ClientConnection) -> None:
        self._asks = self._leaves.pop(0)
        if self._asks.stay:
            await self._ask(socket)
            return
        self._tally.counts["disconnects"] += 1
        socket.transport.abort()  # a closed lid says no goodbye
        raise _Left

    def _handle(self, message: Frame) -> None:
        kind = message["type"]
        if kind == "resumed":
            self._on_resumed(message)
        elif "seq" in message:
            self._on_log_frame(message)
        elif kind == "error":
            self._on_error(message)

    def _on_resumed(self, message: Frame) -> None:
        if not message["recovered"]:
            self.refused = {"type": "error", "code": "not recovered"}
        else:
            self._transcript.resumed(message["next_seq"])

    def _on_log_frame(self, frame: Frame) -> None:
        now = time.monotonic()
        self._tally.pause(now - self._heard, f"{self._request_id} before frame {frame['seq']}")
        self._heard, self._failures = now, 0
        self._tally.counts["frames"] += 1
        self._tally.counts["joined frames"] += "from_seq" in frame
        self._frames += 1
        self._transcript.take(frame)
        self._on_frame(frame["seq"])

    def _on_error(self, error: Frame) -> None:
        """An error without `seq` is about a message; but where a log is lost there is no place for one."""
        if error["code"] == "log_lost" or not error["retryable"]:
            self.refused = error
            return
        self._tally.counts[f"refused with {error['code']}"] += 1
        raise _Refused(error.get("retry_after_ms", 500) / 1000)
