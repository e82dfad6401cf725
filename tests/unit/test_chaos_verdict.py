"""What `make chaos` calls a failure, and which errors it takes for explained."""

from __future__ import annotations

import pytest

from tests.chaos.clients import Record
from tests.chaos.habits import Habit
from tests.chaos.injector import Absence
from tests.chaos.schedule import Fault, Kind
from tests.chaos.transcript import Frame, Transcript
from tests.chaos.verdict import Verdict, judge

REFERENCE = "1 2 3 "


def log(*chunks: str, end: Frame | None = None) -> list[Frame]:
    frames: list[Frame] = [{"type": "accepted"}, {"type": "status", "stage": "retrieving"}, {"type": "sources"}]
    frames += [{"type": "answer_chunk", "content": text} for text in chunks]
    frames.append(end or {"type": "done", "finish_reason": "stop"})
    return [{**frame, "seq": seq, "timestamp": f"t{seq}"} for seq, frame in enumerate(frames)]


WHOLE = log("1 ", "2 ", "3 ")
NO_WORKER = {"type": "error", "code": "no_worker", "message": "nobody", "retryable": True}


def received(frames: list[Frame]) -> Record:
    transcript = Transcript()
    for frame in frames:
        transcript.take(frame)
    return Record("r", Habit(0), from_s=100.0, transcripts=[transcript], until_s=110.0)


def judged(record: Record, stored: list[Frame], *absences: Absence, processes: list[str] | None = None) -> Verdict:
    return judge([record], {"r": stored}, [REFERENCE], list(absences), processes or [])


def away(kind: Kind, target: str, from_s: float, until_s: float) -> Absence:
    return Absence(Fault(from_s, kind, target, 1.0), from_s, until_s)


def kinds(verdict: Verdict) -> set[str]:
    return {finding.kind for finding in verdict.findings}


def test_an_answer_that_is_the_log_and_the_undisturbed_one_passes() -> None:
    verdict = judged(received(WHOLE), WHOLE)
    assert verdict.passed
    assert verdict.outcomes == {"done/stop": 1}


@pytest.mark.parametrize(
    ("frames", "kind"),
    [
        (WHOLE[:3] + WHOLE[4:], "missing"),
        (WHOLE[:3] + WHOLE[2:], "repeated"),
        ([*WHOLE[:3], WHOLE[4], WHOLE[3], *WHOLE[5:]], "reordered"),
        (WHOLE[:4], "stuck"),
        ([*WHOLE[:3], {**WHOLE[3], "content": "x"}, *WHOLE[4:]], "wrong"),
    ],
)
def test_what_a_client_got_otherwise_than_the_log_has_it_is_a_failure(frames: list[Frame], kind: str) -> None:
    verdict = judged(received(frames), WHOLE)
    assert kinds(verdict) == {kind}
    assert not verdict.passed


@pytest.mark.parametrize(
    ("stored", "kind"),
    [
        ([], "missing"),
        (WHOLE[:-1], "stuck"),
        (WHOLE[:3] + WHOLE[4:], "wrong"),
        ([*WHOLE, {"type": "done", "finish_reason": "stop", "seq": 7, "timestamp": "t7"}], "wrong"),
        (log("1 ", "2 "), "wrong"),
        (log("1 ", "2 ", "x "), "wrong"),
        (log("1 ", "2 ", "3 ", end={"type": "done", "finish_reason": "length"}), "wrong"),
        (log("1 ", "2 ", "3 ", end={"type": "done", "finish_reason": "cancelled"}), "wrong"),
    ],
)
def test_a_log_that_is_no_whole_answer_is_a_failure(stored: list[Frame], kind: str) -> None:
    assert kind in kinds(judged(received(stored), stored))


def test_an_answer_that_was_started_again_is_a_failure_though_its_text_is_right() -> None:
    stored = log("1 ", "2 ", "3 ")
    stored[3] = {"type": "answer_reset", "seq": 3, "timestamp": "t3"}
    stored[4] = {**stored[4], "content": REFERENCE}
    stored[5] = {**stored[5], "content": ""}
    verdict = judged(received(stored), stored)
    assert kinds(verdict) == {"wrong"}
    assert verdict.resets == 1


def test_a_cancelled_answer_is_the_beginning_of_the_undisturbed_one() -> None:
    end = {"type": "done", "finish_reason": "cancelled"}
    good, bad = log("1 ", "2 ", end=end), log("2 ", end=end)
    record = received(good)
    record.cancelled = True
    assert judged(record, good).passed
    record = received(bad)
    record.cancelled = True
    assert kinds(judged(record, bad)) == {"wrong"}


def test_an_error_that_no_fault_explains_is_a_failure() -> None:
    stored = log(end=NO_WORKER)
    one_left = away("kill", "generator-0", 90.0, 120.0)
    assert kinds(judged(received(stored), stored, one_left)) == {"unexplained"}


def test_no_worker_is_explained_while_all_of_the_stage_are_away_for_longer_than_the_limit() -> None:
    stored = log(end=NO_WORKER)
    both = [away("kill", "generator-0", 95.0, 120.0), away("freeze", "generator-1", 102.0, 108.0)]
    verdict = judged(received(stored), stored, *both)
    assert verdict.findings == []
    assert sum(verdict.explained.values()) == 1
    other_stage = [away("kill", "tools-0", 95.0, 120.0), away("freeze", "tools-1", 102.0, 108.0)]
    assert kinds(judged(received(stored), stored, *other_stage)) == {"unexplained"}


def test_poisoned_is_explained_by_as_many_faults_as_deliveries() -> None:
    stored = log(end={"type": "error", "code": "poisoned", "message": "p", "retryable": False})
    hits = [away("kill", f"generator-{at % 2}", 100.0 + at, 101.0 + at) for at in range(5)]
    assert judged(received(stored), stored, *hits).findings == []
    assert kinds(judged(received(stored), stored, *hits[:4])) == {"unexplained"}


def test_overloaded_is_explained_only_near_an_absence_of_nats() -> None:
    stored = log(end={"type": "error", "code": "overloaded", "message": "o", "retryable": True})
    assert judged(received(stored), stored, away("kill", "nats", 99.0, 103.0)).findings == []
    assert kinds(judged(received(stored), stored, away("kill", "nats", 50.0, 60.0))) == {"unexplained"}


@pytest.mark.parametrize("code", ["deadline", "internal", "log_lost", "retrieval_failed"])
def test_other_errors_are_explained_by_nothing(code: str) -> None:
    stored = log(end={"type": "error", "code": code, "message": "m", "retryable": True})
    everything = [away("kill", "nats", 95.0, 111.0), away("kill", "generator-0", 95.0, 111.0)]
    assert kinds(judged(received(stored), stored, *everything)) == {"unexplained"}


def test_fewer_than_95_of_100_done_fail_also_when_all_are_explained() -> None:
    stored = log(end=NO_WORKER)
    both = [away("kill", f"generator-{number}", 95.0, 120.0) for number in (0, 1)]
    verdict = judged(received(stored), stored, *both)
    assert verdict.findings == []
    assert not verdict.passed


def test_a_request_that_was_refused_for_good_is_a_failure() -> None:
    record = Record("r", Habit(0), from_s=0.0, transcripts=[Transcript()], until_s=1.0)
    record.refused = {"type": "error", "code": "not_found", "message": "no", "retryable": False}
    assert "unexplained" in kinds(judged(record, []))


def test_a_process_that_ends_by_itself_is_a_failure() -> None:
    verdict = judged(received(WHOLE), WHOLE, processes=["generator-0 ended by itself with 1"])
    assert kinds(verdict) == {"processes"}
