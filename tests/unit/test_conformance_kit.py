"""What the kit says of frames, and how it reports."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from xml.etree import ElementTree

import pytest

from baton_proto import codec
from baton_proto.messages import (
    AnswerChunk,
    AnswerReset,
    Citation,
    Done,
    LogEntry,
    LogFrame,
    Sources,
    Status,
    Timings,
    ToolCalled,
    Usage,
)
from conformance.checks.process import ended_so
from conformance.checks.succession import check_continues
from conformance.frames import check_follows, check_written, read_entry, text_of, told
from conformance.kit import Kit, Options
from conformance.promise import PROMISES, Broken, InDoubt, Outcome, Promise, Verdict
from conformance.report import explained, line, summary, write_junit
from conformance.running import Subject, tried
from conformance.witness import Witness
from services.cli.__main__ import main
from services.common.bus import Bus, Refused, Unconfirmed

STAMP = "2026-11-26T07:00:00.000Z"
TEXT = "Employees have twenty days of leave."


def frame(kind: type[LogFrame], seq: int, **fields: object) -> LogFrame:
    return kind(seq=seq, timestamp=STAMP, **fields)  # type: ignore[arg-type]


def chunk(seq: int, content: str = TEXT) -> LogFrame:
    return frame(AnswerChunk, seq, content=content)


def done(seq: int, reason: str = "stop", citations: tuple[Citation, ...] = ()) -> LogFrame:
    rest = {"cited": [], "citations": list(citations), "usage": Usage(), "timings": Timings()}
    return frame(Done, seq, finish_reason=reason, **rest)


def entry(*frames: LogFrame, append_id: str = "") -> LogEntry:
    append_id = append_id or secrets.token_hex(4)
    return LogEntry(request_id="r", append_id=append_id, writer="w", frames=list(frames))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([entry(chunk(0)), entry(chunk(2))], "`seq` 2 (`answer_chunk`) where 1 was due"),
        ([entry(chunk(0)), entry(chunk(0))], "`seq` 0 (`answer_chunk`) twice"),
        ([entry(chunk(0), done(1)), entry(chunk(2))], "frame 2 (`answer_chunk`) after the log had ended with `done`"),
    ],
)
def test_a_gap_a_duplicate_and_a_frame_behind_the_end_are_seen(entries: list[LogEntry], words: str) -> None:
    with pytest.raises(Broken) as problem:
        check_follows(entries)
    assert (str(problem.value), problem.value.section) == (words, "1")


def test_an_append_id_that_comes_twice_is_seen() -> None:
    with pytest.raises(Broken, match="frame 1 came with the `append_id` 'mine' of an earlier append"):
        check_follows([entry(chunk(0), append_id="mine"), entry(chunk(1), append_id="mine")])


def test_an_entry_that_readers_refuse_is_broken() -> None:
    good = entry(chunk(0))
    assert read_entry(codec.encode(good)) == good
    with pytest.raises(Broken, match="an entry of 2 bytes in the log that a reader must refuse"):
        read_entry(b"\x81\xc1")


@pytest.mark.parametrize(
    ("kind", "written", "words"),
    [
        ("tools", chunk(3), "a tools worker wrote `answer_chunk` (frame 3), which is not its to write"),
        ("generator", frame(Sources, 3, sources=[]), "a generator wrote `sources`"),
        ("retriever", frame(Status, 3, stage="generating", content="…"), "a `status` with the stage 'generating'"),
        ("retriever", done(3), "a retriever ended the answer with `stop`; it may only when cancelled"),
    ],
)
def test_frames_of_another_stage_are_seen(kind: str, written: LogFrame, words: str) -> None:
    with pytest.raises(Broken) as problem:
        check_written(kind, [written])  # type: ignore[arg-type]
    assert words in str(problem.value)


@pytest.mark.parametrize("kind", ["retriever", "tools"])
def test_every_stage_may_say_that_it_was_cancelled(kind: str) -> None:
    check_written(kind, [done(3, "cancelled")])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "later",
    [
        [],
        [chunk(1, " And ten more."), done(2)],
        [frame(AnswerReset, 1), chunk(2), done(3)],
        [chunk(1, " [1]"), done(2, citations=(Citation(n=1, start=len(TEXT) + 1, end=len(TEXT) + 4),))],
    ],
)
def test_a_text_that_goes_on_or_says_that_it_begins_again_is_good(later: list[LogFrame]) -> None:
    check_continues([chunk(0)], later)


@pytest.mark.parametrize(
    ("earlier", "later", "words"),
    [
        (chunk(0), [chunk(1), done(2)], "it wrote the text that was there once more"),
        (chunk(0), [done(1, citations=(Citation(n=1, start=0, end=3),))], "[1] stands at 0 to 3; there is 'Emp'"),
        (
            frame(Status, 0, stage="generating", content="Writing"),
            [frame(Status, 1, stage="generating", content="Writing")],
            "frame 1 says again what an earlier holder had written: `status` 'Writing'",
        ),
        (
            frame(ToolCalled, 0, call_id="c", name="n", arguments={}),
            [frame(ToolCalled, 1, call_id="c", name="n", arguments={})],
            "frame 1 says again what an earlier holder had written: `tool_call` 'c'",
        ),
    ],
)
def test_what_is_said_again_is_seen(earlier: LogFrame, later: list[LogFrame], words: str) -> None:
    with pytest.raises(Broken) as problem:
        check_continues([earlier], later)
    assert words in str(problem.value)


@pytest.mark.parametrize(
    ("status", "words"),
    [(3, "ended with status 3; its last lines: b | c | d"), (-15, "was ended by SIGTERM; its last lines: b | c | d")],
)
def test_how_a_worker_ended_is_told(status: int, words: str) -> None:
    assert ended_so((status, ["a", "b", "c", "d"])) == words


@pytest.mark.parametrize(
    ("problem", "verdict", "section"),
    [
        (Refused("7"), "broken", "1"),
        (codec.WireError("no map"), "broken", "4"),
        (Unconfirmed("nobody answered"), "not seen", "2.7"),
    ],
)
def test_what_comes_of_a_promise_is_an_outcome_whatever_the_worker_did(
    problem: Exception, verdict: str, section: str
) -> None:
    async def check(kit: Kit) -> None:
        raise problem

    one = Promise("one", "2.7", "A promise.", ("generator",), check)
    kit = Kit(Bus.__new__(Bus), "generator", "generate", Witness(Bus.__new__(Bus), "generate"), Options(), owner="o")
    outcome = asyncio.run(tried(kit, one))
    assert (outcome.verdict, outcome.section) == (verdict, section)


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        ([InDoubt("late")], "kept"),
        ([InDoubt("late"), Unconfirmed("nobody answered")], "kept"),
        ([InDoubt("late"), InDoubt("late again")], "broken"),
        ([Broken("wrong")], "broken"),
    ],
)
def test_what_is_in_doubt_is_said_when_it_is_seen_twice(seen: list[Exception], verdict: str) -> None:
    left = iter(seen)

    async def check(kit: Kit) -> None:
        if (problem := next(left, None)) is not None:
            raise problem

    one = Promise("one", "2.7", "A promise.", ("generator",), check)
    kit = Kit(Bus.__new__(Bus), "generator", "generate", Witness(Bus.__new__(Bus), "generate"), Options(), owner="o")
    outcome = asyncio.run(tried(kit, one))
    assert outcome.verdict == verdict
    assert outcome.seen == str(seen[-1] if verdict == "broken" else seen[0])
    assert verdict == "broken" or line(outcome).endswith("; once, and not again: late)")


def test_frames_are_told_in_a_few_words() -> None:
    frames = [frame(Status, 2, stage="tool", content="…"), chunk(3, "a"), chunk(4, "b"), done(5)]
    assert told(frames) == "status 2, answer_chunk 3-4, done 5"
    assert text_of(frames) == "ab"
    assert told([]) == "nothing"


def test_every_promise_says_what_is_promised_and_where() -> None:
    spec = (Path(__file__).resolve().parents[2] / "proto" / "README.md").read_text(encoding="utf-8")
    names = [one.name for one in PROMISES]
    assert len(set(names)) == len(names) > 30
    for one in PROMISES:
        assert one.text.endswith("."), one.name
        assert f"\n{'###' if '.' in one.section else '##'} {one.section}" in spec, one.name
    for kind in ("retriever", "generator", "tools"):
        promises = Subject(kind).promises()  # type: ignore[arg-type]
        assert len(promises) > 25
        assert [one.needs_process for one in promises] == sorted(one.needs_process for one in promises)


def test_the_command_says_what_it_would_try_and_what_it_cannot(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "tools", "--list"]) == 0
    told = capsys.readouterr().out
    assert "who_was_replaced_stops  (2.4)" in told
    assert "every_call_is_shown_and_gets_a_result" in told
    assert "an_answer_cites_only_what_was_given" not in told
    assert main(["conformance", "tools", "--only", "an_answer_cites_only_what_was_given"]) == 2
    assert "no promise of kind tools is called an_answer_cites_only_what_was_given" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["conformance", "tools", "--call", "slow={"])
    assert "the arguments are not JSON" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["conformance", "tools", "--call", "slow=[1]"])
    with pytest.raises(SystemExit):
        main(["conformance", "tools", "--set", "a b"])
    assert "argument --set: 'a b' is not 1 to 64 of" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["conformance", "generator", "--variant", "B"])
    assert "argument --variant: a variant is 1 to 16 of a-z" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generator", "--call", "slow={}"], "--call is for a tools worker"),
        (["tools", "--variant", "b"], "--variant is for a retriever or generator"),
        (["tools", "--restricted", "hr=d1"], "--restricted is for a retriever"),
        (
            ["tools", "--nats", "nats://127.0.0.1:1", "--ack-wait", "2"],
            "--ack-wait is for a nats-server of the kit's own",
        ),
        (["generator", "--junit", "/dev/null/junit.xml"], ": '/dev/null"),
        (["generator", "--command", "a 'b"], "cannot be split into words: No closing quotation"),
        (["generator", "--command", "no-such-program {nats}"], "there is no program 'no-such-program'"),
    ],
)
def test_what_cannot_be_examined_is_said_in_a_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["conformance", *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [(["kept", "not seen"], 0), (["advice"], 0), (["kept", "broken"], 1), (["not seen", "not seen"], 2), ([], 2)],
)
def test_a_run_in_which_nothing_could_be_tried_does_not_pass(
    verdicts: list[Verdict], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def examined(subject: Subject) -> list[Outcome]:
        return [Outcome(PROMISES[0], verdict, 0.0) for verdict in verdicts]

    monkeypatch.setattr("services.cli.conformance._examined", examined)
    assert main(["conformance", "generator"]) == status


def test_the_reports_have_what_was_promised_and_what_was_seen(tmp_path: Path) -> None:
    first, second, third = PROMISES[:3]
    outcomes = [
        Outcome(first, "kept", 1.0),
        Outcome(second, "broken", 0.5, "it said \x1b[31m<nothing>", "2.6"),
        Outcome(third, "not seen", 0.0, "it was too quick", third.section),
    ]
    assert f"(proto/README.md section {second.section})" in " ".join(explained(outcomes[1]).split())
    assert "seen instead (section 2.6): it said" in explained(outcomes[1])
    assert summary(outcomes).endswith("3 promises: 1 kept, 1 broken, 1 not seen.")
    path = tmp_path / "reports" / "junit.xml"
    write_junit(path, "generate", outcomes)
    suite = ElementTree.parse(path).getroot()
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["skipped"]) == ("3", "1", "1")
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.attrib["message"] == "it said \ufffd[31m<nothing>"
    skipped = suite.find("testcase/skipped")
    assert skipped is not None
    assert skipped.attrib["message"] == "not seen: it was too quick"
