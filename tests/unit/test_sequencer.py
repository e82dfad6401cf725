"""The baton rule under every order of events: what is stored is one contiguous log, by one writer at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from baton_proto import codec
from baton_proto.codec import WireError
from baton_proto.messages import (
    MAX_ENTRY_BYTES,
    AnswerChunk,
    Done,
    Handoff,
    LogEntry,
    LogFrame,
    Source,
    Sources,
    Timings,
    Usage,
)
from baton_proto.sequencer import Append, Assembler, Closed, Gap, Replaced, Sequencer, utc_now

DONE = Done(finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=Timings())


def chunk(content: str = "x") -> AnswerChunk:
    return AnswerChunk(content=content)


@dataclass
class Log:
    """A log in memory, with the store's only promise: an append with the wrong expected sequence changes nothing.

    Other subjects share the stream, so stream sequences grow by more than one.
    """

    stored: list[tuple[int, LogEntry]] = field(default_factory=list)
    stride: int = 3

    @property
    def last(self) -> int:
        return self.stored[-1][0] if self.stored else 0

    @property
    def frames(self) -> list[LogFrame]:
        return [frame for _, entry in self.stored for frame in entry.frames]

    def append(self, append: Append) -> int | None:
        """The new stream sequence, or None where it is refused."""
        if append.expected != self.last:
            return None
        self.stored.append((self.last + self.stride, append.entry))
        return self.last

    def tail(self) -> tuple[LogEntry | None, int]:
        return (self.stored[-1][1], self.last) if self.stored else (None, 0)


@dataclass
class Writer:
    """A worker reduced to its sequencer, what it has queued, and what it has sent that is still on its way."""

    sequencer: Sequencer
    queued: list[LogFrame] = field(default_factory=list)
    on_the_way: list[Append] = field(default_factory=list)
    asked: Append | None = None
    replaced: bool = False


class BatonRule(RuleBasedStateMachine):
    """Writers come, crash and hang; answers get lost and requests arrive late, even after their writer gave up."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.writers: list[Writer] = []

    def _alive(self) -> list[Writer]:
        return [writer for writer in self.writers if not writer.replaced]

    def _pick(self, data: st.DataObject, writers: list[Writer]) -> Writer:
        return writers[data.draw(st.integers(0, len(writers) - 1))]

    @precondition(lambda self: len(self.writers) < 4 and not self._ended())
    @rule()
    def somebody_takes_over(self) -> None:
        frames = self.log.frames
        next_seq = frames[-1].seq + 1 if frames else 0
        name = f"w{len(self.writers)}"
        self.writers.append(Writer(Sequencer("r1", name, next_seq=next_seq, last=self.log.last, max_frames=3)))

    @precondition(lambda self: self._alive())
    @rule(data=st.data(), last=st.integers(0, 9))
    def a_writer_queues_a_frame(self, data: st.DataObject, last: int) -> None:
        writer = self._pick(data, self._alive())
        frame = DONE if last == 0 else chunk()
        if writer.sequencer.closed:
            with pytest.raises(Closed):
                writer.sequencer.add(frame)
        else:
            writer.queued.append(writer.sequencer.add(frame))

    @precondition(lambda self: self._alive())
    @rule(data=st.data())
    def a_writer_sends_its_next_append(self, data: st.DataObject) -> None:
        writer = self._pick(data, self._alive())
        append = writer.sequencer.next_append()
        if append is None:
            assert writer.asked is not None or writer.sequencer.pending == 0
        else:
            assert writer.asked is None, "two appends of one writer in flight"
            writer.asked = append
            writer.on_the_way.append(append)

    @precondition(lambda self: any(writer.on_the_way for writer in self.writers))
    @rule(data=st.data(), answered=st.booleans())
    def a_request_reaches_the_log(self, data: st.DataObject, answered: bool) -> None:
        """In any order, perhaps long after its writer asked again or was replaced."""
        writer = self._pick(data, [writer for writer in self.writers if writer.on_the_way])
        append = writer.on_the_way.pop(data.draw(st.integers(0, len(writer.on_the_way) - 1)))
        stream_seq = self.log.append(append)
        if answered and stream_seq is not None and writer.asked is append and not writer.replaced:
            writer.sequencer.stored(stream_seq)
            writer.asked = None

    @precondition(lambda self: any(writer.asked for writer in self._alive()))
    @rule(data=st.data())
    def a_writer_without_a_good_answer_reads_the_tail(self, data: st.DataObject) -> None:
        """Refused or not answered: the writer cannot tell what became of it, and asks."""
        writer = self._pick(data, [writer for writer in self._alive() if writer.asked])
        before = self.log.last
        try:
            again = writer.sequencer.tail(*self.log.tail())
        except Replaced:
            writer.replaced = True
            assert self.log.stored[-1][1].append_id != writer.asked.entry.append_id
        else:
            if again is None:
                writer.asked = None
                assert self.log.stored[-1][1].writer == writer.sequencer.writer
            else:
                assert again is writer.asked
                assert again.expected == before
                writer.on_the_way.append(again)

    @precondition(lambda self: self.writers)
    @rule(data=st.data())
    def requests_are_lost(self, data: st.DataObject) -> None:
        self._pick(data, self.writers).on_the_way.clear()

    def _ended(self) -> bool:
        return bool(self.log.frames) and isinstance(self.log.frames[-1], Done)

    @invariant()
    def the_log_is_contiguous_and_nothing_follows_its_end(self) -> None:
        frames = self.log.frames
        assert [frame.seq for frame in frames] == list(range(len(frames)))
        assert not any(isinstance(frame, Done) for frame in frames[:-1])

    @invariant()
    def no_append_is_stored_twice(self) -> None:
        stored = [entry.append_id for _, entry in self.log.stored]
        assert len(stored) == len(set(stored))

    @invariant()
    def a_writer_that_was_not_replaced_has_lost_nothing(self) -> None:
        stored = {frame.seq: frame for frame in self.log.frames}
        for writer in self._alive():
            waiting = writer.sequencer.pending
            for frame in writer.queued[: len(writer.queued) - waiting]:
                assert stored[frame.seq] == frame

    def teardown(self) -> None:
        """Whatever happened: once messages arrive again, every living writer finishes or learns that it is replaced."""
        for writer in self._alive():
            writer.on_the_way.clear()
            self._finish(writer)
        self.the_log_is_contiguous_and_nothing_follows_its_end()
        survivors = [writer for writer in self._alive() if writer.queued]
        stored = {frame.seq: frame for frame in self.log.frames}
        for writer in survivors:
            assert all(stored[frame.seq] == frame for frame in writer.queued)

    def _finish(self, writer: Writer) -> None:
        while not writer.sequencer.idle:
            append = writer.asked or writer.sequencer.next_append()
            writer.asked = None
            assert append is not None
            if (stream_seq := self.log.append(append)) is not None:
                writer.sequencer.stored(stream_seq)
                continue
            try:
                assert writer.sequencer.tail(*self.log.tail()) is None
            except Replaced:
                writer.replaced = True
                return


TestBatonRule = BatonRule.TestCase


def started(last: int = 0, **options: int) -> Sequencer:
    return Sequencer("r1", "w1", last=last, **options)


def test_frames_made_while_an_append_is_in_flight_travel_together_in_the_next() -> None:
    sequencer = started()
    sequencer.add(chunk("a"))
    first = sequencer.next_append()
    assert first is not None
    for content in "bcd":
        sequencer.add(chunk(content))
    assert sequencer.next_append() is None
    assert sequencer.pending == 4
    sequencer.stored(7)
    second = sequencer.next_append()
    assert second is not None
    assert ([frame.content for frame in second.entry.frames], second.expected) == (["b", "c", "d"], 7)
    sequencer.stored(9)
    assert sequencer.idle
    assert sequencer.last == 9


def test_an_append_is_bounded_by_number_and_by_bytes() -> None:
    sequencer = started(max_frames=512)
    for _ in range(1000):
        sequencer.add(chunk("字" * 3000))
    counts = []
    while (append := sequencer.next_append()) is not None:
        assert len(codec.encode(append.entry)) <= MAX_ENTRY_BYTES
        counts.append(len(append.entry.frames))
        sequencer.stored(sequencer.last + 1)
    assert sum(counts) == 1000
    assert max(counts) > 50


@pytest.mark.parametrize("last", [DONE, AnswerChunk(content="", handoff=Handoff(stage="generate", object="o"))])
def test_nothing_follows_a_terminal_frame_or_a_hand_off(last: LogFrame) -> None:
    sequencer = started()
    sequencer.add(last)
    with pytest.raises(Closed):
        sequencer.add(chunk())
    with pytest.raises(Closed):
        sequencer.add(DONE)


def test_a_frame_that_cannot_be_stored_takes_no_seq() -> None:
    sequencer = started()
    bad = Sources(sources=[Source(n=0, id="", document_id="", title="", url="", snippet="", score=float("nan"))])
    with pytest.raises(WireError):
        sequencer.add(bad)
    assert sequencer.idle
    assert sequencer.add(DONE).seq == 0


def test_a_log_that_is_gone_counts_as_replaced() -> None:
    sequencer = started(last=41)
    sequencer.add(chunk())
    sequencer.next_append()
    with pytest.raises(Replaced, match="nobody"):
        sequencer.tail(None, 0)


def test_times_are_utc_with_milliseconds() -> None:
    assert utc_now()[10] == "T"
    assert utc_now().endswith("Z")
    assert len(utc_now()) == len("2026-11-22T07:00:00.000Z")


def entries_of(cuts: list[int]) -> list[LogEntry]:
    """A log of sum(cuts) frames in entries of these sizes, ended by `done`."""
    total, seq, entries = sum(cuts), 0, []
    for size in cuts:
        frames = []
        for _ in range(size):
            frame = DONE if seq == total - 1 else chunk(str(seq))
            frames.append(msgspec.structs.replace(frame, seq=seq, timestamp="t"))
            seq += 1
        entries.append(LogEntry(request_id="r1", append_id=str(seq), writer="w", frames=frames))
    return entries


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.data())
def test_entries_in_any_order_and_number_come_out_once_and_in_order(cuts: list[int], data: st.DataObject) -> None:
    log = entries_of(cuts)
    start = data.draw(st.integers(0, sum(cuts)))
    heard = data.draw(st.lists(st.sampled_from(log), max_size=20))
    assembler, shown = Assembler(start), []
    for entry in [*heard, log[-1]]:
        if entry.frames[0].seq > assembler.next_seq:
            with pytest.raises(Gap) as gap:
                assembler.feed(entry)
            assert (gap.value.first, gap.value.until) == (assembler.next_seq, entry.frames[0].seq)
            for missed in log:  # as a reader repairs it: from the log itself, which may overlap what was shown
                if missed.frames[-1].seq >= gap.value.first:
                    shown += assembler.feed(missed)
        shown += assembler.feed(entry)
    assert [frame.seq for frame in shown] == list(range(start, sum(cuts)))
    assert assembler.ended is (start < sum(cuts))
    assert assembler.next_seq == sum(cuts)


def test_nothing_is_shown_after_the_end() -> None:
    assembler = Assembler()
    assert len(list(assembler.feed(entries_of([2])[0]))) == 2
    later = msgspec.structs.replace(chunk(), seq=2, timestamp="t")
    assert list(assembler.feed(LogEntry(request_id="r1", append_id="z", writer="w", frames=[later]))) == []
