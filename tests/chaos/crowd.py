"""A client with many requests on one connection that hardly reads: what waits for it is joined, or it gets 4009."""

from __future__ import annotations

import asyncio
import json
import random
import socket as sockets
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from .clients import DEADLINE_S, MARGIN_S, Clients, Record
from .habits import Habit
from .transcript import Frame, Transcript
from .viewer import RETRY_S

AT_ONCE = 32
"""Requests on one connection; fewer than a gateway's limit."""
RECEIVE_BUFFER = 4096
SEGMENT = 400
"""The server's send buffer is reckoned in segments. One of loopback is 64 KiB: megabytes would wait there unseen."""
DEAF_S = (1.0, 5.0)
"""For so long it reads nothing, now and then."""


class Crowd:
    """One connection after the other, each with `AT_ONCE` requests."""

    def __init__(self, clients: Clients, urls: Sequence[str], seed: int, questions: int) -> None:
        self._clients = clients
        self._urls = urls
        self._seed = seed
        self._questions = questions
        self._dice = random.Random(f"crowd {seed}")
        self._records: dict[str, Record] = {}

    async def run(self, began: float, duration_s: float) -> None:
        number = 0
        while time.monotonic() - began < duration_s:
            for at in range(AT_ONCE):
                self._add(f"s{self._seed}-crowd-{number}-{at}", began)
            try:
                async with asyncio.timeout(DEADLINE_S + MARGIN_S):
                    while self._open():
                        await self._once()
            except TimeoutError:
                pass
            for record in self._records.values():
                record.until_s = time.monotonic() - began
            self._records.clear()
            number += 1

    def _add(self, request_id: str, began: float) -> None:
        habit = Habit(self._dice.randrange(self._questions))
        record = Record(request_id, habit, time.monotonic() - began, [Transcript()])
        self._clients.records.append(record)
        self._records[request_id] = record

    def _open(self) -> list[Record]:
        return [one for one in self._records.values() if one.transcripts[0].end is None and one.refused is None]

    async def _once(self) -> None:
        """One connection: ask or resume all that is open, then read, with pauses in which it is deaf."""
        counts = self._clients.tally.counts
        url = self._dice.choice(self._urls)
        try:
            async with connect(
                url, sock=await self._socket(url), compression=None, close_timeout=1, max_queue=1
            ) as socket:
                for record in self._open():
                    await self._ask(socket, record)
                await self._read(socket)
        except ConnectionClosed as closed:
            counts[f"closed {closed.rcvd.code if closed.rcvd else 1006}"] += 1
        except (OSError, InvalidHandshake, TimeoutError):
            counts["failed connects"] += 1
        await asyncio.sleep(self._dice.uniform(RETRY_S, 5 * RETRY_S))

    async def _socket(self, url: str) -> sockets.socket:
        """Connected, with so small a buffer that the server notices a client that does not read."""
        address = urlsplit(url)
        one = sockets.socket()
        one.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, RECEIVE_BUFFER)
        one.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_MAXSEG, SEGMENT)
        one.setblocking(False)
        try:
            async with asyncio.timeout(5):
                await asyncio.get_running_loop().sock_connect(one, (address.hostname, address.port))
        except BaseException:
            one.close()
            raise
        return one

    async def _ask(self, socket: ClientConnection, record: Record) -> None:
        transcript = record.transcripts[0]
        transcript.connected()
        if transcript.frames:
            after = transcript.next_seq - 1
            transcript.asked_after(after)
            self._clients.tally.counts["resumes"] += 1
            message = {"type": "resume", "request_id": record.request_id, "after_seq": after}
        else:
            transcript.asked()
            self._clients.tally.counts["queries"] += 1
            message = self._clients.query(record)
        await socket.send(json.dumps(message))

    async def _read(self, socket: ClientConnection) -> None:
        deaf_at = time.monotonic()
        while self._open():
            if time.monotonic() >= deaf_at:
                await asyncio.sleep(self._dice.uniform(*DEAF_S))
                deaf_at = time.monotonic() + self._dice.uniform(0.1, 2.0)
            message = json.loads(await socket.recv())
            record = self._records.get(message.get("request_id", ""))
            if record is not None and not self._handle(record, message):
                return

    def _handle(self, record: Record, message: Frame) -> bool:
        """Take in a message; False where all that is open has to be asked again."""
        transcript, tally = record.transcripts[0], self._clients.tally
        if message["type"] == "resumed":
            transcript.resumed(message["next_seq"])
        elif "seq" in message:
            tally.counts["frames"] += 1
            tally.counts["joined frames"] += "from_seq" in message
            transcript.take(message)
        elif message["type"] == "error":
            if message["code"] == "log_lost" or not message["retryable"]:
                record.refused = message
                return True
            tally.counts[f"refused with {message['code']}"] += 1
            return False
        return True
