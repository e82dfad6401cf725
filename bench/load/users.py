"""The users of a load test: each has one connection and asks one question at a time."""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from bench.sockets import Address, Frame, Socket, connect

from .scenario import Scenario
from .tally import Tally, Tried

CONNECTING = 100
"""Connections that are opened at a time: a crowd that comes within a minute, not within a millisecond."""
COME_BACK_S = 1.0
"""At most so long, by chance, before a user whose connection broke comes back."""
COME_BACK_TRIES = 10
BREAKS_AT = (5, 40)
"""The piece of an answer at which a connection breaks is drawn from this range."""
_LOOK_S = 0.1
TERMINAL = ("done", "error")
REFUSED = "refused: "


@dataclass(slots=True)
class Question:
    """One question on its way. `due` is when it was to be asked, `tries` the variant that it tries, once accepted."""

    due: float
    text: str
    conversation: str
    request_id: str
    measured: bool
    breaks_at: int
    next_seq: int = 0
    pieces: int = 0
    first: float = 0.0
    last: float = 0.0
    ttfb: float | None = None
    ttft: float | None = None
    resumed: float = 0.0
    tries: str = ""


class User:
    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._socket: Socket | None = None
        self._conversation = ""
        self.slow = False
        self.question: Question | None = None

    async def come(self) -> None:
        """Connect. Raises OSError."""
        self._socket = socket = await connect(self._crowd.address, self._receive)
        socket.closed.add_done_callback(lambda closed: self._lost(socket, closed.result()))

    def leave(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close()

    def ask(self, question: Question) -> None:
        self.question = question
        self._send(question)

    def _send(self, question: Question) -> None:
        """The question, or what goes on with it; whoever has no connection says it when there is one again."""
        if self._socket is None:
            return
        message = {"type": "query", "query": question.text, "request_id": question.request_id, "cache": False}
        if question.next_seq:
            message = {"type": "resume", "request_id": question.request_id, "after_seq": question.next_seq - 1}
        elif question.conversation:
            message["conversation_id"] = question.conversation
        self._socket.send(message)

    def read_nothing(self, seconds: float) -> None:
        if (socket := self._socket) is not None:
            socket.pause()
            asyncio.get_running_loop().call_later(seconds, socket.go_on)

    def _lost(self, socket: Socket, code: int) -> None:
        if socket is self._socket:
            self._socket = None
            self._crowd.tally.closed[code] += 1
            self._crowd.spawn(self._come_back())

    async def _come_back(self) -> None:
        for _ in range(COME_BACK_TRIES):
            await asyncio.sleep(self._crowd.chance.uniform(0, COME_BACK_S))
            try:
                await self.come()
            except OSError:
                continue
            if (question := self.question) is not None:
                question.resumed = asyncio.get_running_loop().time()
                self._send(question)
            return
        self._end("no way back")

    def _receive(self, _: Socket, frame: Frame, __: float) -> None:
        question = self.question
        if question is None or frame.request_id != question.request_id:
            return
        if frame.seq < 0:
            if frame.type == "error":
                self._end(REFUSED + frame.code)
            return
        now = asyncio.get_running_loop().time()
        tally = self._crowd.tally
        if frame.first != question.next_seq:
            tally.wrong.append(f"{question.request_id}: {question.next_seq} was expected, {frame.first} came")
        question.next_seq = frame.seq + 1
        if question.measured:
            self._measure(question, frame, now)
        if frame.type == "accepted":
            self._conversation, question.tries = frame.conversation_id, frame.variant or "none"
        elif frame.type == "answer_chunk":
            question.pieces += 1
            question.last = now
            if question.pieces == question.breaks_at:
                self.leave()
                self._crowd.spawn(self._come_back())
        elif frame.type in TERMINAL:
            self._end(frame.code or frame.finish_reason)

    def _measure(self, question: Question, frame: Frame, now: float) -> None:
        tally = self._crowd.tally
        tally.frames += 1
        tally.joined += frame.seq - frame.first
        if question.resumed:
            tally.resumes.append(now - question.resumed)
            question.resumed, question.last = 0.0, 0.0  # a gap that the user made is none
        if self.slow:
            return
        if frame.type != "accepted" and not question.first:
            question.first = now
            question.ttfb = now - question.due
            tally.ttfb.append(question.ttfb)
        if frame.type == "answer_chunk":
            if not question.pieces:
                question.ttft = now - question.due
                tally.ttft.append(question.ttft)
                tally.begun.append((question.due - self._crowd.started, question.ttft))
            elif question.last:
                tally.gaps.append(now - question.last)

    def _end(self, outcome: str) -> None:
        question, self.question = self.question, None
        if question is None:
            return
        if question.measured:
            self._crowd.tally.outcomes[outcome] += 1
            if question.tries:
                tried = self._crowd.tally.variants.setdefault(question.tries, Tried())
                tried.outcomes[outcome] += 1
                tried.ttfb += [question.ttfb] if question.ttfb is not None else []
                tried.ttft += [question.ttft] if question.ttft is not None else []
        self._crowd.ended(self, self._conversation if outcome in ("stop", "length") else "")


@dataclass
class Crowd:
    """All users of a test, and the questions that come to them. `address` is where they connect; it may change."""

    scenario: Scenario
    address: Address
    tally: Tally = field(default_factory=Tally)
    started: float = 0.0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.scenario.seed + 1)
        self.users = [User(self) for _ in range(self.scenario.connections)]
        slow = round(self.scenario.slow_readers * len(self.users))
        for user in self.chance.sample(self.users, slow):
            user.slow = True
        self._free: deque[User] = deque()
        self._waiting: deque[float] = deque()
        self._texts = itertools.cycle(self.scenario.questions)
        self._ids = itertools.count()
        self._run = secrets.token_hex(4)
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = False

    async def gather(self) -> None:
        """Connect everybody. Raises OSError."""
        for first in range(0, len(self.users), CONNECTING):
            await asyncio.gather(*(user.come() for user in self.users[first : first + CONNECTING]))
        shuffled = list(self.users)
        self.chance.shuffle(shuffled)
        self._free.extend(shuffled)

    async def ask(self) -> None:
        """Let the questions come when they are due, whatever has become of those before."""
        loop = asyncio.get_running_loop()
        self.started = loop.time()
        self.spawn(self._be_slow())
        for at in self.scenario.arrivals():
            due = self.started + at
            if (pause := due - loop.time()) > 0:
                await asyncio.sleep(pause)
            self.tally.late.append(loop.time() - due)
            self._waiting.append(due)
            self._hand_out()

    async def finish(self, within_s: float) -> int:
        """Wait for the answers that run; how many did not end in time, or never had a turn. Then everybody leaves."""
        self._over = True
        for _ in range(round(within_s / _LOOK_S)):
            if not self.running:
                break
            await asyncio.sleep(_LOOK_S)
        unfinished = self.running + len(self._waiting)
        for user in self.users:
            user.question = None
            user.leave()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return unfinished

    @property
    def running(self) -> int:
        return sum(user.question is not None for user in self.users)

    def ended(self, user: User, conversation: str) -> None:
        if conversation and not self._over and self.chance.random() < self.scenario.follow_ups:
            self.spawn(self._ask_on(user, conversation))
        else:
            self._free.append(user)
            self._hand_out()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask_on(self, user: User, conversation: str) -> None:
        await asyncio.sleep(self.chance.expovariate(1 / self.scenario.think_s))
        user.ask(self._question(asyncio.get_running_loop().time(), conversation))

    def _hand_out(self) -> None:
        while self._waiting and self._free:
            self._free.popleft().ask(self._question(self._waiting.popleft(), ""))

    def _question(self, due: float, conversation: str) -> Question:
        breaks = self.chance.random() < self.scenario.reconnects
        return Question(
            due,
            next(self._texts),
            conversation,
            f"load-{self._run}-{next(self._ids)}",
            measured=due - self.started >= self.scenario.warm_up_s,
            breaks_at=self.chance.randint(*BREAKS_AT) if breaks else 0,
        )

    async def _be_slow(self) -> None:
        slow = [user for user in self.users if user.slow]
        while True:
            for user in slow:
                user.read_nothing(self.scenario.slow_s)
            await asyncio.sleep(3 * self.scenario.slow_s)
