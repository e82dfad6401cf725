"""Reading a log: whatever arrives, gets lost, comes twice or is slow, the client's frames are the log."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baton_proto import codec, subjects
from baton_proto.messages import AnswerChunk, Done, LogEntry, LogFrame, Status, Timings, Usage
from services.common.bus import Bus, Stored, Unconfirmed
from services.gateway import reader as reader_module
from services.gateway.connection import Shown
from services.gateway.outbox import Outbox
from services.gateway.reader import HELD_BYTES, HELD_MESSAGES, LogReader, Lost
from tests.servers.processes import eventually

AT = subjects.address("0" * 32)
LIMIT = 8_000
DONE = Done(finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=Timings())


class MemoryLog:
    """What `LogReader` asks of the bus, for one log. Live messages are delivered, or not, by the test."""

    def __init__(self) -> None:
        self.stored: list[Stored] = []
        self.next_seq = 0
        self.lag = 0
        """Messages that the replica which answers replays does not have yet."""
        self.failing = 0
        """Questions that will get no answer."""
        self.listeners: set[Callable[[Stored], None]] = set()

    def append(self, *frames: LogFrame) -> Stored:
        stamped = []
        for frame in frames:
            fields = {name: getattr(frame, name) for name in frame.__struct_fields__}
            stamped.append(type(frame)(**{**fields, "seq": self.next_seq, "timestamp": "t"}))
            self.next_seq += 1
        entry = LogEntry(request_id="r", append_id=secrets.token_hex(4), writer="w", frames=stamped)
        # The stream carries other logs too, so its sequences have gaps.
        self.stored.append(Stored(codec.encode(entry), 3 * len(self.stored) + 1))
        return self.stored[-1]

    def deliver(self, stored: Stored) -> None:
        for listener in list(self.listeners):
            listener(stored)

    async def follow(self, _: Any, callback: Callable[[Stored], None]) -> Callable[[], Awaitable[None]]:
        self.listeners.add(callback)

        async def stop() -> None:
            self.listeners.discard(callback)

        return stop

    async def replay_batch(self, _: Any, after: int, messages: int, size: int) -> tuple[list[Stored], bool]:
        await asyncio.sleep(0)
        if self.failing:
            self.failing -= 1
            raise Unconfirmed("no answer")
        there = [one for one in self.stored[: len(self.stored) - self.lag] if one.stream_seq > after]
        self.lag = max(0, self.lag - 1)
        batch: list[Stored] = []
        while there and len(batch) < messages and sum(len(one.data) for one in batch) < size:
            batch.append(there.pop(0))
        await asyncio.sleep(0)
        return batch, bool(there)

    async def tail(self, _: Any) -> Stored | None:
        await asyncio.sleep(0)
        return self.stored[-1] if self.stored else None


class Client:
    """A client that reads when it is told to, and comes back with `resume` when its connection has ended."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.frames: list[tuple[int, str]] = []
        self.overruns = 0
        self.broken: list[Exception] = []
        self.reader: LogReader | None = None

    @property
    def next_seq(self) -> int:
        return self.frames[-1][0] + 1 if self.frames else 0

    async def connect(self) -> None:
        outbox = self.outbox = Outbox(binary=False, limit=LIMIT)
        self.reader = LogReader(
            cast(Bus, self.log),
            AT,
            self.next_seq,
            show=Shown("r", outbox),
            shown=lambda frame: None,
            learn=lambda entry: None,
            broken=self.broken.append,
        )
        await self.reader.listen()
        self.reader.start(read=True)

    async def disconnect(self) -> None:
        assert self.reader is not None
        self.outbox.close()
        await self.reader.close()

    async def take(self, messages: int) -> None:
        """Read so many messages, if there are any; a connection that was overrun is made anew."""
        if self.outbox.overrun.is_set():
            self.overruns += 1
            await self.disconnect()
            await self.connect()
        for _ in range(messages):
            if self.outbox.empty:
                await asyncio.sleep(0)
                continue
            frame = json.loads(await self.outbox.take())
            first = frame.get("from_seq", frame["seq"])
            assert first == self.next_seq, "a gap, or a repeat"
            self.frames.append((frame["seq"], frame.get("content", "")))

    @property
    def text(self) -> str:
        return "".join(content for _, content in self.frames)


async def rest(steps: int) -> None:
    for _ in range(steps):
        await asyncio.sleep(0)


step = st.one_of(
    st.tuples(st.just("append"), st.lists(st.integers(0, 3_000), min_size=1, max_size=5)),
    st.tuples(st.just("append and lose"), st.lists(st.integers(0, 40), min_size=1, max_size=5)),
    st.tuples(st.just("deliver again"), st.integers(0, 30)),
    st.tuples(st.just("take"), st.integers(1, 20)),
    st.tuples(st.just("rest"), st.integers(1, 30)),
    st.tuples(st.just("lag"), st.integers(1, 5)),
    st.tuples(st.just("fail"), st.integers(1, 6)),
    st.tuples(st.just("silence"), st.just(0)),
    st.tuples(st.just("reconnect"), st.just(0)),
)


@pytest.fixture(scope="module", autouse=True)
def _at_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader_module, "READ_AGAIN_S", 0.0)
        yield


@settings(max_examples=500)
@given(st.integers(1, 40), st.lists(step, max_size=60))
def test_the_clients_frames_are_the_log_whatever_is_lost_repeated_slow_or_disconnected(
    before: int, script: list[tuple[str, Any]]
) -> None:
    async def scenario() -> None:
        log = MemoryLog()
        for _ in range(before):
            log.append(AnswerChunk(content="before "))
        client = Client(log)
        await client.connect()
        for what, much in script:
            if what == "append":
                log.deliver(log.append(*(AnswerChunk(content="x" * size) for size in much)))
            elif what == "append and lose":
                log.append(*(Status(stage="generating", content="y" * size) for size in much))
            elif what == "deliver again" and log.stored:
                log.deliver(log.stored[much % len(log.stored)])
            elif what == "take":
                await client.take(much)
            elif what == "rest":
                await rest(much)
            elif what == "lag":
                log.lag = min(much, len(log.stored))
            elif what == "fail":
                log.failing = much
            elif what == "silence" and client.reader is not None:
                client.reader.read()
            elif what == "reconnect":
                await client.disconnect()
                await client.connect()
            assert client.reader is not None
            assert len(client.reader._held) <= HELD_MESSAGES
            assert client.reader._held_bytes <= HELD_BYTES
            assert client.outbox.bytes <= 2 * LIMIT
        log.append(DONE)
        await client.take(1)
        await client.disconnect()
        await client.connect()
        overruns = client.overruns
        # Nothing is written any more: what is left must come over this one connection, however small its buffer is.
        for turn in range(10_000):
            if client.next_seq == log.next_seq:
                break
            if turn % 50 == 49:
                client.reader.read()  # as the clock does after a silence
            await client.take(5)
        assert client.overruns == overruns
        assert not client.broken
        expected = "".join(
            getattr(frame, "content", "") for one in log.stored for frame in codec.decode(one.data, LogEntry).frames
        )
        assert client.text == expected
        await client.disconnect()

    asyncio.run(scenario())


def test_a_long_log_is_replayed_without_overrunning_a_small_buffer_and_without_joining() -> None:
    async def scenario() -> None:
        log = MemoryLog()
        for number in range(2_000):
            log.append(AnswerChunk(content=f"{number} ".ljust(100)))
        log.append(DONE)
        client = Client(log)
        await client.connect()
        while client.next_seq < log.next_seq:
            await client.take(10)
            await asyncio.sleep(0)
            assert client.outbox.bytes <= LIMIT
        assert client.overruns == 0
        assert len(client.frames) == log.next_seq
        await client.disconnect()

    asyncio.run(scenario())


@pytest.mark.parametrize("where", ["before anything was read", "in the middle"])
@pytest.mark.parametrize("how", ["gone", "begun anew", "begun anew and longer"])
def test_a_log_that_is_lost_is_said_to_be_lost(monkeypatch: pytest.MonkeyPatch, where: str, how: str) -> None:
    monkeypatch.setattr(reader_module, "LOSS_CONFIRM_S", 0.01)

    async def scenario() -> None:
        log = MemoryLog()
        client = Client(log)
        for _ in range(5):
            log.append(AnswerChunk(content="x"))
        if where == "in the middle":
            await client.connect()
            while client.next_seq < 5:
                await client.take(1)
        log.stored.clear()
        log.next_seq = 0
        if where != "in the middle":
            client.frames = [(4, "x")]
            if how != "gone":
                return  # nothing tells a client that comes back then; its `after_seq` was checked against the tail
            await client.connect()
        if how != "gone":
            for _ in range(2 if how == "begun anew" else 9):
                log.deliver(log.append(AnswerChunk(content="z")))
                await rest(5)
        assert client.reader is not None
        client.reader.read()
        await eventually(lambda: client.broken, "it is said to be lost")
        assert isinstance(client.broken[0], Lost)
        assert client.text == "x" * len(client.frames)
        await client.disconnect()

    asyncio.run(scenario())


@pytest.mark.parametrize("times", [1, 2])
def test_a_message_that_a_replay_lacks_is_looked_for_once_more_before_the_log_is_lost(times: int) -> None:
    async def scenario() -> None:
        log = MemoryLog()
        for _ in range(5):
            log.append(AnswerChunk(content="x"))
        whole, lacking = log.stored, log.stored[:2] + log.stored[3:]
        answers = [lacking] * times
        replay = log.replay_batch

        async def replay_batch(*args: Any) -> tuple[list[Stored], bool]:
            log.stored = answers.pop() if answers else whole
            return await replay(*args)

        log.replay_batch = replay_batch  # type: ignore[method-assign]
        client = Client(log)
        await client.connect()
        await eventually(lambda: client.broken or len(client.outbox._waiting) == 5, "it has all, or gives up")
        assert bool(client.broken) == (times == 2)
        await client.disconnect()

    asyncio.run(scenario())


def test_a_stream_that_is_only_away_for_a_moment_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "LOSS_CONFIRM_S", 0.02)

    async def scenario() -> None:
        log = MemoryLog()
        client = Client(log)
        log.append(AnswerChunk(content="x"))
        await client.connect()
        while client.next_seq < 1:
            await client.take(1)
        assert client.reader is not None
        away, log.stored = log.stored, []
        client.reader.read()
        await asyncio.sleep(0.01)
        log.stored = away
        log.append(DONE)
        await asyncio.sleep(0.03)
        client.reader.read()
        while client.next_seq < 2:
            await client.take(1)
        assert not client.broken
        await client.disconnect()

    asyncio.run(scenario())
