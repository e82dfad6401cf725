"""From the writers' frames to what clients put together: whatever happens on the way, it is the log.

Everything between is the real code without its I/O: `Sequencer`, `Follower` (on a log in memory), `Outbox`, `Answer`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st

from baton_proto import codec, subjects
from baton_proto.messages import (
    Accepted,
    AnswerChunk,
    AnswerReset,
    Done,
    Error,
    Handoff,
    LogFrame,
    Source,
    Sources,
    Status,
    Timings,
    ToolCalled,
    Usage,
)
from baton_proto.sequencer import Sequencer
from services.cli.answer import Answer, Outcome
from services.common.bus import Stored
from services.common.presence import Presence
from services.gateway import outbox
from services.gateway.follower import Follower
from services.gateway.outbox import Outbox

AT = subjects.address("0" * 32, 1)
REQUEST = "r1"


# --- any log ----------------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
CHUNK = st.builds(lambda content: AnswerChunk(content=content), TEXT)
SOURCE = Source(n=1, id="i", document_id="d", title="t", url="u", snippet="s", score=1.0)
OTHERS = st.sampled_from(
    [
        AnswerReset(),
        Status(stage="generating", content="…"),
        Sources(sources=[SOURCE]),
        ToolCalled(call_id="c", name="clock", arguments={}),
    ]
)
FRAME = st.one_of(*[CHUNK] * 6, OTHERS)
END = st.sampled_from(
    [
        Done(finish_reason="stop", cited=[1], citations=[], usage=Usage(), timings=Timings()),
        Error(code="deadline", message="late", retryable=True),
    ]
)
HANDOFF = Handoff(stage="generate", item={})


@st.composite
def any_log(draw: st.DrawFn) -> list[Stored]:
    """What several writers have stored, one after the other, in entries of any size."""
    spans = [[Accepted(conversation_id="c"), *draw(st.lists(FRAME, max_size=3))]]
    spans += draw(st.lists(st.lists(FRAME, min_size=4, max_size=12), min_size=1, max_size=3))
    log: list[Stored] = []
    seq = 0
    for number, frames in enumerate(spans):
        last = log[-1].stream_seq if log else 0
        writer = Sequencer(REQUEST, f"w{number}", next_seq=seq, last=last, max_frames=draw(st.integers(1, 5)))
        is_last = number == len(spans) - 1
        closing = draw(END) if is_last else Status(stage="retrieving", content="", handoff=HANDOFF)
        for frame in [*frames, closing]:
            writer.add(frame)
            if draw(st.booleans()):
                _append(writer, log)
        while not writer.idle:
            _append(writer, log)
        seq = writer.next_seq
    return log


def _append(writer: Sequencer, log: list[Stored]) -> None:
    append = writer.next_append()
    if append is None:
        return
    assert append.expected == (log[-1].stream_seq if log else 0)
    stored = Stored(codec.encode(append.entry), append.expected + 3)  # other logs share the stream
    log.append(stored)
    writer.stored(stored.stream_seq)


def frames_of(log: list[Stored]) -> list[dict[str, Any]]:
    """The frames of a log as a client should see them."""
    entries = [codec.decode(stored.data, codec.LogEntry) for stored in log]
    return [codec.client_map(REQUEST, frame) for entry in entries for frame in entry.frames]


# --- a log in memory, with a live path that forgets -------------------------------------------------------------------


@dataclass
class MemoryBus:
    """What a `Follower` asks of the bus. What is stored reaches followers as each one's test decides."""

    log: list[Stored]
    stored: int = 0

    async def follow(self, _: subjects.LogAddress, __: Callable[[Stored], None]) -> Callable[[], Awaitable[None]]:
        async def stop() -> None:
            pass

        return stop

    async def replay(self, _: subjects.LogAddress, after: int = 0) -> list[Stored]:
        await asyncio.sleep(0)
        return [stored for stored in self.log[: self.stored] if stored.stream_seq > after]

    async def tail(self, _: subjects.LogAddress) -> Stored | None:
        return self.log[self.stored - 1] if self.stored else None


@dataclass
class Client:
    """A client with its connections, one after the other, and an account of what it was sent on each of them."""

    bus: MemoryBus
    whole: list[dict[str, Any]]
    answer: Answer = field(default_factory=lambda: Answer(REQUEST))
    taken: list[dict[str, Any]] = field(default_factory=list)
    late: list[Stored] = field(default_factory=list)
    cuts: int = 0
    gaps: int = 0

    async def connect(self, back: int = 0) -> None:
        """A new connection, from where the client is or from `back` frames before."""
        self.outbox = Outbox(binary=False, limit=10_000_000)
        self.expected = max(0, self.answer.next_seq - back)
        self.follower = Follower(
            self.bus,
            Presence(),
            AT,
            REQUEST,
            self._show,
            next_seq=self.expected,  # type: ignore[arg-type]
        )
        self.follower.attach()
        await self.follower.listen()
        self.follower.release()

    def _show(self, frame: LogFrame) -> None:
        self.outbox.put(codec.client_map(REQUEST, frame))

    def hear(self, stored: Stored) -> None:
        self.follower._on_live(stored)

    async def receive(self, count: int) -> None:
        for _ in range(count):
            if self.outbox.empty:
                return
            frame = json.loads(await self.outbox.take())
            self._is_of_the_log(frame)
            outcome = self.answer.take(frame)
            if outcome.outcome is Outcome.NEW:
                self.taken.append(outcome.frame)
                self.cuts += outcome.frame != frame
            elif outcome.outcome is Outcome.GAP:
                self.gaps += 1
                await self.reconnect()
                return

    def _is_of_the_log(self, frame: dict[str, Any]) -> None:
        """A neutral look: what comes on a connection are the log's frames, from where it began, each once."""
        first, last = frame.get("from_seq", frame["seq"]), frame["seq"]
        assert first == self.expected
        self.expected = last + 1
        if first == last:
            assert {**frame, "from_seq": None} == {**self.whole[last], "from_seq": None}
            return
        parts = self.whole[first : last + 1]
        assert {part["type"] for part in parts} == {"answer_chunk"} == {frame["type"]}
        assert frame["content"] == "".join(part["content"] for part in parts)

    async def reconnect(self, back: int = 0) -> None:
        await self.follower.close()
        await self.connect(back)

    async def finish(self) -> None:
        """Nothing goes wrong any more; the silent log is read again, as it is after some seconds."""
        for _ in range(20):
            self.follower.read_log()
            await settle()
            await self.receive(len(self.whole))
            if self.answer.end is not None:
                return
        raise AssertionError(f"the answer does not end; it waits for frame {self.answer.next_seq}")


async def settle() -> None:
    """Let followers finish what they read."""
    for _ in range(4):
        await asyncio.sleep(0)


# --- whatever happens -------------------------------------------------------------------------------------------------

CLIENTS = 2
WHO = st.integers(0, CLIENTS - 1)
HEARING = st.sampled_from(["heard", "heard", "heard", "lost", "twice", "late"])
HAPPENING = st.one_of(
    st.tuples(st.just("store"), st.tuples(*[HEARING] * CLIENTS)),
    st.tuples(st.just("store"), st.tuples(*[HEARING] * CLIENTS)),
    st.tuples(st.just("receive"), WHO, st.integers(1, 5)),
    st.tuples(st.just("break"), WHO, st.integers(0, 6)),
    st.tuples(st.just("arrives late"), WHO, st.integers(0, 20)),
    st.tuples(st.just("silence"), WHO),
    st.tuples(st.just("time passes")),
)


async def happen(what: tuple[Any, ...], bus: MemoryBus, clients: list[Client]) -> None:
    match what:
        case ("store", hearing) if bus.stored < len(bus.log):
            stored = bus.log[bus.stored]
            bus.stored += 1
            for client, how in zip(clients, hearing, strict=True):
                for _ in range({"heard": 1, "twice": 2}.get(how, 0)):
                    client.hear(stored)
                if how == "late":
                    client.late.append(stored)
        case ("receive", who, count):
            await settle()
            await clients[who].receive(count)
        case ("break", who, back):
            await clients[who].reconnect(back)
        case ("arrives late", who, which) if clients[who].late:
            client = clients[who]
            client.hear(client.late.pop(which % len(client.late)))
        case ("silence", who):
            clients[who].follower.read_log()
        case ("time passes",):
            await settle()


# Not shrunk: that takes longer than a test may, and sixty happenings can be read.
@settings(max_examples=200, phases=[Phase.generate])
@given(any_log(), st.lists(HAPPENING, min_size=25, max_size=60), st.sampled_from([0, 0, 300]))
def test_what_a_client_puts_together_is_the_log_whatever_happens_on_the_way(
    log: list[Stored], happenings: list[tuple[Any, ...]], join_above: int
) -> None:
    async def scenario() -> list[Client]:
        bus, whole = MemoryBus(log, stored=1), frames_of(log)
        clients = [Client(bus, whole) for _ in range(CLIENTS)]
        for client in clients:
            await client.connect()
        for what in happenings:
            await happen(what, bus, clients)
        bus.stored = len(log)
        for client in clients:
            await client.finish()
            await client.follower.close()
        return clients

    with mock.patch.object(outbox, "JOIN_ABOVE_BYTES", join_above):
        clients = asyncio.run(scenario())
    for client in clients:
        event(f"cut: {client.cuts > 0}, gap: {client.gaps > 0}")
        is_the_log(client, frames_of(log))


def is_the_log(client: Client, whole: list[dict[str, Any]]) -> None:
    following = 0
    for frame in client.taken:
        assert frame.get("from_seq", frame["seq"]) == following
        following = frame["seq"] + 1
    assert following == len(whole)
    assert _story(client.taken) == _story(whole)
    ends = [frame for frame in client.taken if frame["type"] in ("done", "error")]
    assert ends == [whole[-1]] == [client.answer.end]
    assert client.answer.text == _story(whole)[-1][1]
    assert client.answer.sources == [one for frame in whole for one in frame.get("sources", [])]


def _story(frames: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The frames that are no chunks, in order, each with the text as it stood then."""
    text, story = "", []
    for frame in frames:
        if frame["type"] == "answer_chunk":
            text += frame["content"]
            continue
        text = "" if frame["type"] == "answer_reset" else text
        story.append((frame["type"], text))
    return story


# --- the client's part by itself --------------------------------------------------------------------------------------


def chunk(seq: int, content: str, from_seq: int | None = None) -> dict[str, Any]:
    frame = {"type": "answer_chunk", "request_id": REQUEST, "seq": seq, "content": content}
    return frame if from_seq is None else {**frame, "from_seq": from_seq}


@given(st.data())
def test_a_sender_that_repeats_leaves_out_and_joins_at_will_changes_nothing(data: st.DataObject) -> None:
    """Worse than any gateway: each frame begins and ends anywhere; where one does not join on, the client asks."""
    contents = data.draw(st.lists(TEXT, min_size=1, max_size=12))
    answer, last = Answer(REQUEST), len(contents) - 1
    seen = []
    for _ in range(30):
        first = data.draw(st.integers(0, last))
        until = data.draw(st.integers(first, last))
        before = (answer.next_seq, answer.text)
        taken = answer.take(chunk(until, "".join(contents[first : until + 1]), first))
        if taken.new:
            assert taken.frame["from_seq"] == before[0]
            seen.append(taken.frame["content"])
        else:
            assert (answer.next_seq, answer.text) == before
            assert taken.outcome is (Outcome.DUPLICATE if until < before[0] else Outcome.GAP)
        assert answer.text == "".join(contents[: answer.next_seq]) == "".join(seen)
    while answer.next_seq <= last:
        assert answer.take(chunk(answer.next_seq, contents[answer.next_seq])).new
    assert answer.text == "".join(contents)


def test_a_joined_chunk_is_cut_where_its_start_is_known() -> None:
    answer = Answer(REQUEST)
    for seq, content in enumerate(["a", "bc", "d"]):
        answer.take(chunk(seq, content))
    taken = answer.take(chunk(4, "bcde", from_seq=1))
    assert (taken.outcome, taken.frame["content"], taken.frame["from_seq"]) == (Outcome.NEW, "e", 3)
    assert (answer.text, answer.next_seq) == ("abcde", 5)


def test_a_joined_chunk_that_begins_inside_of_another_is_a_gap() -> None:
    answer = Answer(REQUEST)
    answer.take(chunk(0, "a"))
    answer.take(chunk(3, "bcd", from_seq=1))
    assert answer.take(chunk(4, "de", from_seq=3)).outcome is Outcome.GAP
    assert answer.take(chunk(2, "bc", from_seq=1)).outcome is Outcome.DUPLICATE
    assert (answer.text, answer.next_seq) == ("abcd", 4)
