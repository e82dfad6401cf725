"""Compares what clients received with the logs and with the undisturbed answers. No I/O.

A finding is a failure of the run. An error that ends a request is none where the faults around it explain it; which
ones do is in `explained` and in docs/chaos.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.system import answer

from .clients import Record
from .injector import Absence, all_away
from .schedule import EACH
from .transcript import Frame, Transcript

LEAST_DONE = 0.95
NO_WORKER_S = 4.0
"""A gateway ends a request that has waited so long without hearing of a worker (BATON_NO_WORKER_S)."""
LEADER_S = 10.0
"""After the loss of a server a replicated log may take nothing for so long."""
MAX_DELIVERIES = 5
STAGES = {"retrieve": "retriever", "generate": "generator", "tools.default": "tools"}
KINDS = ("missing", "repeated", "reordered", "stuck", "wrong", "unexplained", "processes")


@dataclass(frozen=True, slots=True)
class Finding:
    kind: str
    record: Record | None
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.record.request_id + ': ' if self.record else ''}{self.text}"


@dataclass(slots=True)
class Verdict:
    findings: list[Finding] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    explained: Counter[str] = field(default_factory=Counter)
    resets: int = 0

    @property
    def answers(self) -> int:
        return sum(self.outcomes.values())

    @property
    def done(self) -> int:
        return sum(count for outcome, count in self.outcomes.items() if outcome.startswith("done/"))

    @property
    def enough_done(self) -> bool:
        return self.answers > 0 and self.done >= LEAST_DONE * self.answers

    @property
    def passed(self) -> bool:
        return not self.findings and self.enough_done

    def count(self, kind: str) -> int:
        return sum(finding.kind == kind for finding in self.findings)


def judge(
    records: Sequence[Record],
    logs: Mapping[str, Sequence[Frame]],
    references: Sequence[str],
    absences: list[Absence],
    processes: Sequence[str] = (),
) -> Verdict:
    """The verdict on a run.

    Args:
        logs: the whole log of each request as its client should see it; empty where there is none.
        references: the undisturbed answer of each question.
        processes: what was wrong with the processes themselves.
    """
    verdict = Verdict([Finding("processes", None, text) for text in processes])
    for record in records:
        log = logs[record.request_id]
        verdict.findings += [Finding(kind, record, text) for kind, text in _of_record(record, log, references)]
        outcome = _outcome(record, log)
        verdict.outcomes[outcome] += 1
        verdict.resets += sum(frame["type"] == "answer_reset" for frame in log)
        if not outcome.startswith("done/"):
            why = explained(record, outcome, log, absences)
            if why:
                verdict.explained[f"{outcome}: {why}"] += 1
            else:
                verdict.findings.append(Finding("unexplained", record, f"ended with {outcome}: {_end_of(record, log)}"))
    return verdict


def _outcome(record: Record, log: Sequence[Frame]) -> str:
    if record.refused is not None:
        return f"refused/{record.refused['code']}"
    end = log[-1] if log else {"type": "none"}
    if end["type"] == "done":
        return f"done/{end['finish_reason']}"
    return f"error/{end['code']}" if end["type"] == "error" else "none"


def _end_of(record: Record, log: Sequence[Frame]) -> str:
    end = record.refused or (log[-1] if log else {})
    return str(end.get("message", end))


def _of_record(record: Record, log: Sequence[Frame], references: Sequence[str]) -> Iterator[tuple[str, str]]:
    yield from _of_log(log)
    for number, transcript in enumerate(record.transcripts):
        for kind, text in _of_transcript(transcript, log, ended=record.refused is not None):
            yield kind, f"client {number + 1}: {text}"
    yield from _of_answer(record, log, references[record.habit.question])


def _of_log(log: Sequence[Frame]) -> Iterator[tuple[str, str]]:
    if not log:
        yield "missing", "there is no log"
        return
    if [frame["seq"] for frame in log] != list(range(len(log))):
        yield "wrong", f"the log is numbered {[frame['seq'] for frame in log]}"
    terminal = [frame["seq"] for frame in log if frame["type"] in ("done", "error")]
    if not terminal:
        yield "stuck", f"the log has no terminal frame; its last one is {log[-1]['type']} {log[-1]['seq']}"
    elif terminal != [log[-1]["seq"]]:
        yield "wrong", f"terminal frames at {terminal}, the log ends at {log[-1]['seq']}"


def _of_transcript(one: Transcript, log: Sequence[Frame], *, ended: bool) -> Iterator[tuple[str, str]]:
    if missing := one.missing(log):
        yield "missing", f"frames {missing}"
    for text in one.repeated:
        yield "repeated", text
    for text in one.reordered:
        yield "reordered", text
    for text in [*one.wrong, *one.differing(log)]:
        yield "wrong", text
    if one.end is None and not ended:
        yield "stuck", f"no terminal frame within the deadline; next was {one.next_seq}"


def _of_answer(record: Record, log: Sequence[Frame], reference: str) -> Iterator[tuple[str, str]]:
    """The answer's text against the undisturbed one. The extractive generator never has to start again."""
    text, end = answer(list(log)), log[-1] if log else {"type": "none"}
    if any(frame["type"] == "answer_reset" for frame in log):
        yield "wrong", "the answer was started again"
    reason = end.get("finish_reason")
    if reason == "stop" and text != reference:
        yield "wrong", f"the answer is {text!r} instead of {reference!r}"
    elif reason == "cancelled" and not record.cancelled:
        yield "wrong", "cancelled, but nobody has asked for it"
    elif not reference.startswith(text):
        yield "wrong", f"what there is of the answer, {text!r}, is not the beginning of {reference!r}"
    elif reason not in ("stop", "cancelled", None):
        yield "wrong", f"it finished with {reason}"


def explained(record: Record, outcome: str, log: Sequence[Frame], absences: list[Absence]) -> str:
    """By which faults an error is explained; empty where by none."""
    until = record.until_s if record.until_s != float("inf") else record.from_s
    during = [one for one in absences if one.from_s <= until and one.until_s >= record.from_s]
    if outcome == "error/no_worker":
        return _no_worker(record, log, absences)
    if outcome == "error/overloaded":
        # The gateway had created the log, and could not queue the work.
        near = [one for one in absences if one.fault.service == "nats"]
        hit = any(one.from_s - 1 <= until and one.until_s + LEADER_S >= record.from_s for one in near)
        return "NATS was away" if hit else ""
    if outcome == "error/poisoned":
        service = STAGES[_waits_for(log)]
        hurt = sum(one.fault.service in (service, "nats") for one in during)
        return f"{hurt} faults of {service} met it" if hurt >= MAX_DELIVERIES else ""
    return ""


def _no_worker(record: Record, log: Sequence[Frame], absences: list[Absence]) -> str:
    """Explained by a time without any worker of the stage, long enough for the limit, that touches the end."""
    service = STAGES[_waits_for(log)]
    for start, end in all_away(absences, service, EACH[service]):
        if end - start >= NO_WORKER_S and start <= record.until_s and end >= record.until_s - 2 * NO_WORKER_S:
            return f"no {service} for {end - start:.0f} s"
    return ""


def _waits_for(log: Sequence[Frame]) -> str:
    """The stage that should have gone on, by the frames that a client sees (proto/README.md section 5)."""
    kinds = [frame["type"] for frame in log]
    if "sources" not in kinds:
        return "retrieve"
    tool = next((frame for frame in reversed(log) if frame["type"] in ("tool_result", "tool_call", "status")), None)
    handed = tool is not None and tool["type"] == "status" and tool.get("stage") == "tool"
    return "tools.default" if handed or (tool is not None and tool["type"] == "tool_call") else "generate"
