"""The real code's decisions, as functions of what the model knows. Each distinct question is asked once."""

from __future__ import annotations

from functools import cache

from baton_proto.messages import AnswerChunk, AnswerReset, Done, LogEntry, LogFrame, Timings, Usage
from baton_proto.sequencer import Assembler, Gap, Replaced, Sequencer

from .state import TERMINALS, AppendId

STRIDE = 3
"""Other logs share the stream, so sequences of one log grow by more than one."""


@cache
def frame_of(seq: int, kind: str) -> LogFrame:
    if kind in TERMINALS:
        empty = Done(finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=Timings())
        return Done(**{name: getattr(empty, name) for name in empty.__struct_fields__} | {"seq": seq, "timestamp": "t"})
    if kind == "R":
        return AnswerReset(seq=seq, timestamp="t")
    return AnswerChunk(seq=seq, timestamp="t", content=kind)


def _entry(seq: int, kind: str, append_id: str) -> LogEntry:
    return LogEntry(request_id="r", append_id=append_id, writer="w", frames=[frame_of(seq, kind)])


@cache
def after_bad_answer(mine: AppendId, seq: int, expected: int, tail: AppendId, last: int) -> str:
    """`stored`, `again` or `replaced`: what a `Sequencer` makes of the log's tail when its append of frame `seq`, which
    named the stream sequence `expected`, was refused or not answered."""
    sequencer = Sequencer("r", "w", next_seq=seq, last=expected * STRIDE)
    sequencer.add(AnswerChunk(content=""))
    append = sequencer.next_append()
    assert append is not None
    assert (append.entry.frames[0].seq, append.expected) == (seq, expected * STRIDE)
    append_id = append.entry.append_id if tail == mine else "another"
    try:
        again = sequencer.tail(_entry(max(last - 1, 0), "a", append_id) if last else None, last * STRIDE)
    except Replaced:
        return "replaced"
    return "stored" if again is None else "again"


@cache
def feed(shown: str, seq: int, kind: str) -> str:
    """What an `Assembler` gives out that has shown these frames: the kind, nothing, or `gap`."""
    assembler = Assembler(len(shown))
    assembler.ended = bool(shown) and shown[-1] in TERMINALS
    try:
        return kind if list(assembler.feed(_entry(seq, kind, "x"))) else ""
    except Gap:
        return "gap"
