"""The load: clients that ask one question after the other, each in its own bad habits, and keep what they received."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.servers.processes import ROOT

from .habits import Habit, Second, habit
from .transcript import Frame, Transcript
from .viewer import Tally, Viewer

DEADLINE_S = 90.0
"""Of a request. The gateway ends what takes longer."""
MARGIN_S = 20.0
"""A client that has no terminal frame so long after the deadline is stuck."""


def questions(number: int | None = None) -> list[str]:
    """The handbook's questions, and those for tools whose answer does not depend on the day."""
    entries: list[dict[str, Any]] = yaml.safe_load(
        (ROOT / "examples" / "hr_assistant" / "questions.yaml").read_text(encoding="utf-8")
    )
    fixed = [entry["question"] for entry in entries if entry.get("tool") != "date_time"]
    if number is None:
        return fixed
    # Evenly, so that both languages, tools and what the handbook does not know are among few as well.
    return [fixed[at * len(fixed) // number] for at in range(number)]


@dataclass(slots=True)
class Record:
    """One request as its clients saw it. Times are seconds since the clients began."""

    request_id: str
    habit: Habit
    from_s: float
    transcripts: list[Transcript] = field(default_factory=list)
    refused: Frame | None = None
    cancelled: bool = False
    until_s: float = float("inf")


class Clients:
    """Args:
    began: monotonic time from which records count.
    """

    def __init__(self, seed: int, urls: Sequence[str], asked: Sequence[str], began: float) -> None:
        self._seed = seed
        self._urls = urls
        self._questions = asked
        self._began = began
        self.records: list[Record] = []
        self.tally = Tally()

    async def run(self, number: int, duration_s: float) -> None:
        """So many clients ask until `duration_s` is over, and wait for their last answers."""
        async with asyncio.TaskGroup() as group:
            for client in range(number):
                group.create_task(self._client(client, duration_s))

    async def _client(self, client: int, duration_s: float) -> None:
        count = 0
        while time.monotonic() - self._began < duration_s:
            plan = habit(self._seed, client, count, len(self._questions))
            await asyncio.sleep(plan.think_s)
            await self.ask(f"s{self._seed}-c{client}-{count}", plan)
            count += 1

    async def ask(self, request_id: str, plan: Habit) -> Record:
        """One request, to its end for all its clients."""
        record = Record(request_id, plan, time.monotonic() - self._began)
        self.records.append(record)
        async with asyncio.TaskGroup() as group:
            await _Request(self, record, group).run()
        record.until_s = time.monotonic() - self._began
        return record

    def viewer(self, record: Record, start: int, **options: Any) -> Viewer:
        transcript = Transcript(start)
        record.transcripts.append(transcript)
        dice = random.Random(f"viewer {record.request_id} {len(record.transcripts)}")
        return Viewer(self._urls, record.request_id, transcript, self.tally, dice, **options)

    def query(self, record: Record) -> dict[str, Any]:
        return {
            "type": "query",
            "request_id": record.request_id,
            "query": self._questions[record.habit.question],
            "deadline_ms": round(DEADLINE_S * 1000),
        }

    async def cancel(self, record: Record) -> None:
        """Cancel on a connection of its own, to whichever gateway; once more where that one is lost."""
        dice = random.Random(f"cancel {record.request_id}")
        self.tally.counts["cancels"] += 1
        for _ in range(20):
            try:
                async with connect(
                    dice.choice(self._urls), open_timeout=5, compression=None, close_timeout=1
                ) as socket:
                    await socket.send(json.dumps({"type": "cancel", "request_id": record.request_id}))
                    await socket.send('{"type": "ping"}')
                    if await self._pong(socket):
                        return
            except (OSError, WebSocketException, TimeoutError):
                pass
            await asyncio.sleep(dice.uniform(0.1, 0.5))

    @staticmethod
    async def _pong(socket: Any) -> bool:
        """Wait a moment for a refusal, which would have to be retried."""
        try:
            async with asyncio.timeout(0.5):
                async for data in socket:
                    if json.loads(data)["type"] == "error":
                        return False
        except TimeoutError:
            return True
        return False


class _Request:
    """One request: its first client, and what that one's frames set off."""

    def __init__(self, clients: Clients, record: Record, group: asyncio.TaskGroup) -> None:
        self._clients = clients
        self._record = record
        self._group = group
        self._attached = False

    async def run(self) -> None:
        plan = self._record.habit
        viewer = self._clients.viewer(
            self._record,
            0,
            query=self._clients.query(self._record),
            leaves=plan.leaves,
            slow_s=plan.slow_s,
            on_frame=self._on_frame,
        )
        await self._follow(viewer)
        if plan.again:
            self._clients.tally.counts["read again after the end"] += 1
            await self._follow(self._clients.viewer(self._record, 0))

    async def _follow(self, viewer: Viewer) -> None:
        await viewer.follow(DEADLINE_S + MARGIN_S)
        self._record.refused = self._record.refused or viewer.refused

    def _on_frame(self, seq: int) -> None:
        plan = self._record.habit
        if plan.cancel_after is not None and seq >= plan.cancel_after and not self._record.cancelled:
            self._record.cancelled = True
            self._group.create_task(self._clients.cancel(self._record))
        if plan.second is not None and seq >= plan.second.after and not self._attached:
            self._attached = True
            self._group.create_task(self._attach(plan.second))

    async def _attach(self, second: Second) -> None:
        self._clients.tally.counts["second clients"] += 1
        viewer = self._clients.viewer(
            self._record, second.from_seq, leaves=[second.leave] if second.leave is not None else []
        )
        await self._follow(viewer)
