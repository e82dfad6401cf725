"""What a run prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .fleet import Fleet
from .injector import Absence, counted
from .schedule import Fault
from .verdict import KINDS, LEAST_DONE, Finding, Verdict
from .viewer import Tally

MOST_SHOWN = 20
AROUND_S = 20.0


@dataclass(frozen=True, slots=True)
class Run:
    """How a run was asked for."""

    seed: int
    duration_s: float
    clients: int
    cluster: bool
    crowds: int = 1

    @property
    def again(self) -> str:
        form = " CLUSTER=1" if self.cluster else ""
        return f"make chaos DURATION={self.duration_s:g} SEED={self.seed}{form}"


def summary(run: Run, verdict: Verdict, tally: Tally, absences: list[Absence], fleet: Fleet) -> Iterator[str]:
    rate = verdict.answers / run.duration_s
    yield f"answers            {verdict.answers} ({rate:.1f}/s from {run.clients} clients in {run.duration_s:g} s)"
    for kind in KINDS:
        yield f"{kind:<18} {verdict.count(kind)}"
    share = verdict.done / verdict.answers if verdict.answers else 0.0
    yield f"ended with done    {share:.1%} (at least {LEAST_DONE:.0%})"
    for outcome, count in sorted(verdict.outcomes.items()):
        yield f"  {outcome:<26} {count}"
    for why, count in sorted(verdict.explained.items()):
        yield f"  explained: {count} x {why}"
    yield f"answer resets      {verdict.resets}"
    yield f"longest pause      {tally.longest_pause_s:.1f} s ({tally.longest_pause})"
    yield "clients            " + _listed(tally.counts)
    yield "faults             " + _listed(counted(absences))
    yield "processes counted  " + _listed(
        {name: count for name, count in fleet.counts.items() if not name.endswith((" done", " handed_over", " stored"))}
    )


def failure(run: Run, verdict: Verdict, faults: list[Fault], absences: list[Absence]) -> Iterator[str]:
    """What went wrong, and what happened around it."""
    for finding in verdict.findings[:MOST_SHOWN]:
        yield f"FAILED {finding}"
        yield from _around(finding, absences)
    if len(verdict.findings) > MOST_SHOWN:
        yield f"... and {len(verdict.findings) - MOST_SHOWN} more"
    if not verdict.enough_done:
        yield f"FAILED only {verdict.done} of {verdict.answers} ended with done"
    yield f"seed {run.seed}; the same again: {run.again}"
    yield f"the schedule ({len(faults)} faults):"
    yield from (f"  {fault}" for fault in faults)


def _around(finding: Finding, absences: list[Absence]) -> Iterator[str]:
    record = finding.record
    if record is None:
        return
    yield f"  asked at {record.from_s:.1f} s, over at {record.until_s:.1f} s; {record.habit}"
    for one in absences:
        if one.from_s - 1 <= record.until_s and one.until_s + AROUND_S >= record.from_s:
            yield f"  {one}"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
