"""What `baton log` prints, from entries alone."""

from __future__ import annotations

import re
from typing import Any

from baton_proto import subjects
from baton_proto.messages import (
    Accepted,
    AnswerChunk,
    Done,
    Error,
    Handoff,
    LogEntry,
    LogFrame,
    Source,
    Sources,
    Status,
    Timings,
    ToolCalled,
    ToolResult,
    Usage,
)
from services.cli.log import candidate_keys
from services.cli.log_lines import LogLines, describe, frame_map, placed, seconds
from services.cli.log_summary import longest_pause, state, summary_lines
from services.common.inspection import Whereabouts
from services.common.log import StoredEntry

BEGAN = "2026-11-22T08:00:"
BEGAN_MS = 1_795_334_400_000
DONE = Done(finish_reason="stop", cited=[1], citations=[], usage=Usage(completion_tokens=9), timings=Timings())
ACCEPTED = Accepted(conversation_id="c", handoff=Handoff(stage="retrieve", item={"owner": "kim", "query": "My pay?"}))


class Entries:
    """Entries of one log, each frame some milliseconds after the one before."""

    def __init__(self) -> None:
        self.all: list[StoredEntry] = []
        self._seq = 0
        self._at_ms = 0

    def add(self, *frames: LogFrame, writer: str = "generator-1", after_ms: int = 10) -> StoredEntry:
        stamped = []
        for frame in frames:
            whole, ms = divmod(self._at_ms, 1000)
            fields: dict[str, Any] = {name: getattr(frame, name) for name in frame.__struct_fields__}
            stamp = f"{BEGAN}{whole:02}.{ms:03}Z"
            stamped.append(type(frame)(**{**fields, "seq": self._seq, "timestamp": stamp}))
            self._seq += 1
            self._at_ms += after_ms
        entry = LogEntry(request_id="r1", append_id="a", writer=writer, frames=stamped)
        self.all.append(StoredEntry(entry, len(self.all) + 1))
        return self.all[-1]

    def wait(self, ms: int) -> None:
        self._at_ms += ms

    def lines(self, **options: Any) -> list[str]:
        shown = LogLines(**{"content": False, "fold": True, **options})
        return [line for entry in self.all for line in shown.entry(entry)] + shown.flush()

    def placed(self) -> list[Any]:
        return [one for entry in self.all for one in placed(entry)]


def chunks(*texts: str) -> list[LogFrame]:
    return [AnswerChunk(content=text) for text in texts]


def test_chunks_of_several_entries_are_one_line() -> None:
    log = Entries()
    log.add(ACCEPTED, writer="gateway-1")
    log.add(*chunks("ab", "c"))
    log.add(*chunks("d"))
    log.add(DONE)
    lines = log.lines()
    assert len(lines) == 3
    assert lines[1].split()[0] == "1-3"
    assert "3 chunks in 2 entries, 4 characters, over 0.020 s" in lines[1]


def test_another_writer_or_a_long_pause_begins_another_line() -> None:
    log = Entries()
    log.add(*chunks("a"), writer="generator-1")
    log.add(*chunks("b"), writer="generator-2")
    log.wait(1_500)
    log.add(*chunks("c"), writer="generator-2")
    assert [line.split()[0] for line in log.lines()] == ["0", "1", "2"]


def test_without_folding_each_chunk_has_its_place_in_its_entry() -> None:
    log = Entries()
    log.add(*chunks("ab", "c"))
    assert [re.findall(r"\d/\d", line) for line in log.lines(fold=False)] == [["1/2"], ["2/2"]]


def test_a_line_has_seq_relative_and_absolute_time_writer_and_type() -> None:
    log = Entries()
    log.add(ACCEPTED, writer="gateway-1", after_ms=1_250)
    log.add(Status(stage="retrieving", content="Found 3", count=3, elapsed_ms=40), writer="retriever-1")
    assert log.lines()[1].split() == [
        *("1", "1.250", "08:00:01.250", "retriever-1", "1/1", "status"),
        *("retrieving,", "3", "found,", "40", "ms"),
    ]


def test_nothing_that_was_said_is_shown_unless_asked_for() -> None:
    source = Source(n=1, id="a", document_id="d", title="TITLE", url="/u", snippet="SNIPPET", score=1.0)
    log = Entries()
    log.add(ACCEPTED)
    log.add(
        Status(stage="generating", content="STATUS"),
        Sources(sources=[source]),
        ToolCalled(call_id="c1", name="leave", arguments={"of": "ARGUMENT"}),
        ToolResult(call_id="c1", name="leave", ok=True, elapsed_ms=7, content="RESULT"),
        AnswerChunk(content="ANSWER"),
    )
    said = re.compile("My pay|kim|STATUS|TITLE|SNIPPET|ARGUMENT|RESULT|ANSWER")
    maps = [frame_map(entry, frame, content=False) for entry in log.all for frame in entry.entry.frames]
    assert not said.search("\n".join(log.lines()))
    assert not said.search(str(maps))
    shown = set(said.findall("\n".join(log.lines(content=True))))
    assert shown == {"My pay", "kim", "STATUS", "TITLE", "ARGUMENT", "RESULT", "ANSWER"}


def test_a_hand_off_names_its_stage_and_its_object() -> None:
    large = Status(stage="tool", content="", handoff=Handoff(stage="tools.default", object="handoff/k.4"))
    assert describe(large, content=False) == "tool, -> tools.default (item in object handoff/k.4)"


def test_contents_cannot_steer_the_terminal() -> None:
    assert "\x1b" not in describe(AnswerChunk(content="\x1b[2Jgone\n"), content=True)
    assert "\x1b" not in describe(Error(code="internal", message="\x1b[2J", retryable=True), content=False)


def test_the_longest_pause_is_between_two_neighbours() -> None:
    log = Entries()
    log.add(*chunks("a"), writer="generator-1")
    log.wait(5_000)
    log.add(*chunks("b", "c"), writer="generator-2")
    pause = longest_pause(log.placed())
    assert pause is not None
    assert (pause.ms, pause.before.frame.seq, pause.after.frame.seq) == (5_010, 0, 1)
    lines = summary_lines(log.placed(), None, BEGAN_MS)
    assert any("5.010 s at the longest, between 0 (answer_chunk) and 1" in line for line in lines)
    assert any("generator-1 and generator-2" in line for line in lines)


def test_one_frame_has_no_pause() -> None:
    log = Entries()
    log.add(*chunks("a"))
    assert longest_pause(log.placed()) is None


def test_a_running_request_counts_to_now_and_an_ended_one_to_its_end() -> None:
    log = Entries()
    log.add(ACCEPTED)
    running = summary_lines(log.placed(), Whereabouts("waiting", since_ms=BEGAN_MS, ahead=4), BEGAN_MS + 90_000)
    assert "1 min 30 s in all" in running[1]
    assert running[0] == (
        "state    waiting for stage retrieve since 08:00:00.000 (1 min 30 s), not taken by any worker yet, "
        "4 in the queue before it"
    )
    log.add(DONE)
    assert "0.010 s in all, 2 frames by 1 writer" in summary_lines(log.placed(), None, BEGAN_MS + 90_000)[1]


def test_each_state_is_told_by_its_own_words() -> None:
    log = Entries()
    log.add(ACCEPTED)
    where = {
        "held": Whereabouts("held", "retriever-1", BEGAN_MS, 2),
        "delivered": Whereabouts("delivered", since_ms=BEGAN_MS, ahead=0),
        "nowhere": Whereabouts("nowhere"),
    }
    told = {name: state(log.placed(), one, BEGAN_MS + 1_000) for name, one in where.items()}
    assert told["held"].startswith("running at stage retrieve, held by retriever-1 since 08:00:00.000 (1.000 s), 2 del")
    assert "none that answers holds it" in told["delivered"]
    assert "not in the work queue" in told["nowhere"]
    log.add(Error(code="deadline", message="Too late.", retryable=True))
    assert state(log.placed(), None, 0) == "ended with error deadline: Too late."


def test_durations_read_well_and_are_never_negative() -> None:
    assert [seconds(ms) for ms in (-5, 412, 12_345, 61_000, 7_500_000)] == [
        *("0.000 s", "0.412 s", "12.3 s", "1 min 1 s", "2 h 5 min")
    ]


def test_what_looks_like_a_key_may_also_be_a_request_id() -> None:
    hexadecimal = "0123456789abcdef0123456789ABCDEF"
    assert candidate_keys(hexadecimal, None) == [
        hexadecimal.lower(),
        subjects.request_key("anonymous", hexadecimal),
    ]
    assert candidate_keys(hexadecimal, "kim") == [subjects.request_key("kim", hexadecimal)]
    assert candidate_keys("ask-1", None) == [subjects.request_key("anonymous", "ask-1")]
