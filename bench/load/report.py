"""A load test's figures as text, as JSON, and as a page with plots. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, get_args

from baton_proto.messages import FinishReason
from evaluation import svg
from evaluation.page import document
from evaluation.ranks import percentile
from evaluation.text import aligned

from .scenario import Scenario
from .tally import PERCENTILES, Tally
from .verdict import Verdict
from .watch import Usage

SLICES = 30
"""Points of a plot over time."""


@dataclass(frozen=True, slots=True)
class Run:
    """One scenario, and what became of it. `usage` is empty where the processes are not on this machine."""

    scenario: Scenario
    tally: Tally
    unfinished: int
    usage: Mapping[str, Usage]
    verdict: Verdict
    where: str


def text(run: Run) -> str:
    tally, scenario = run.tally, run.scenario
    lines = [
        f"{scenario.connections:,} connections, {scenario.running} answers at once, "
        f"measured for {scenario.duration_s:g} s: "
        f"{tally.asked:,} questions, {tally.frames:,} frames ({tally.joined:,} more joined into them)",
        "",
        aligned([["", *(f"p{share:g}" for share in PERCENTILES), "max"], *_times(tally)]),
        "",
        "outcomes  " + ", ".join(f"{name} {count:,}" for name, count in tally.outcomes.most_common()),
    ]
    if tally.closed:
        lines.append("closed    " + ", ".join(f"{code}: {count:,}" for code, count in tally.closed.most_common()))
    if len(tally.variants) > 1:
        lines += ["", aligned(_by_variant(tally))]
    if run.usage:
        lines += ["", aligned(_used(run.usage))]
    lost = f"{len(tally.wrong)} frames lost, repeated or out of order" if tally.wrong else "no frame lost"
    lines += ["", f"{lost}; {run.unfinished} answers did not end", f"first limit: {run.verdict.limit}"]
    lines += [f"DID NOT HOLD: {one}" for one in run.verdict.broken] or ["all objectives held"]
    return "\n".join(lines)


def record(run: Run) -> dict[str, Any]:
    """For programs. Times are milliseconds."""
    tally = run.tally
    return {
        "where": run.where,
        "scenario": asdict(run.scenario),
        "asked": tally.asked,
        "outcomes": dict(tally.outcomes),
        "closed": {str(code): count for code, count in tally.closed.items()},
        "frames": tally.frames,
        "joined": tally.joined,
        "wrong": tally.wrong[:100],
        "unfinished": run.unfinished,
        "times_ms": _percentiles({**_measured(tally), "late": tally.late}),
        "variants": {
            name: {
                "outcomes": dict(one.outcomes),
                "times_ms": _percentiles({"first frame": one.ttfb, "first token": one.ttft}),
            }
            for name, one in sorted(tally.variants.items())
        },
        "usage": {name: asdict(one) for name, one in run.usage.items()},
        "broken": list(run.verdict.broken),
        "limit": run.verdict.limit,
    }


def page(runs: Sequence[Run]) -> str:
    parts = ["<h1>Load test</h1>"]
    for run in runs:
        shown = {name: [1000 * value for value in values] for name, values in _measured(run.tally).items()}
        plots = [
            ("From when a question was due", svg.cumulative(shown, label="shares of questions and tokens")),
            ("Time to the first token, as time went by", svg.over_time(_sliced(run), label="time to first token")),
        ]
        if run.usage:
            cores = {name: {"cores": one.cores} for name, one in run.usage.items()}
            plots.append(("CPU, in cores", svg.bars(cores, label="CPU by service")))
        figures = "".join(f"<figure><figcaption>{title}</figcaption>{plot}</figure>" for title, plot in plots if plot)
        parts.append(f"<h2>{run.scenario.running} answers at once, {escape(run.where)}</h2>")
        parts.append(f'<pre>{escape(text(run))}</pre><div class="plots">{figures}</div>')
    return document("Load test", "".join(parts))


def steps(runs: Sequence[Run]) -> str:
    """One line for each run of a search for the limit."""
    rows = [["running", "p95 first frame", "p95 first token", "p99 gap", "failed", "held"]]
    for run in runs:
        tally = run.tally
        times = (percentile(tally.ttfb, 95), percentile(tally.ttft, 95), percentile(tally.gaps, 99))
        failed = f"{tally.failed / max(1, tally.asked):.2%}"
        held = "no" if run.verdict.broken else "yes"
        rows.append([str(run.scenario.running), *(f"{1000 * value:,.0f} ms" for value in times), failed, held])
    return aligned(rows)


def _measured(tally: Tally) -> dict[str, list[float]]:
    return {
        "first frame": tally.ttfb,
        "first token": tally.ttft,
        "gap between tokens": tally.gaps,
        "back after a break": tally.resumes,
    }


def _times(tally: Tally) -> list[list[str]]:
    shown = {**_measured(tally), "the test itself was late by": tally.late}
    return [
        [name, *(f"{1000 * percentile(values, share):,.1f} ms" for share in (*PERCENTILES, 100))]
        for name, values in shown.items()
        if values
    ]


def _percentiles(times: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """In milliseconds."""
    return {
        name: {f"p{share:g}": round(1000 * percentile(values, share), 2) for share in PERCENTILES}
        for name, values in times.items()
    }


def _by_variant(tally: Tally) -> list[list[str]]:
    rows = [["variant", "questions", "failed", "first frame p50", "p95", "first token p50", "p95"]]
    for name, one in sorted(tally.variants.items()):
        times = [1000 * percentile(values, share) for values in (one.ttfb, one.ttft) for share in (50, 95)]
        failed = sum(count for outcome, count in one.outcomes.items() if outcome not in get_args(FinishReason))
        rows.append([name, f"{one.outcomes.total():,}", f"{failed:,}", *(f"{value:,.1f} ms" for value in times)])
    return rows


def _used(usage: Mapping[str, Usage]) -> list[list[str]]:
    rows = [["", "processes", "cores", "busiest", "memory"]]
    for name, one in sorted(usage.items(), key=lambda entry: -entry[1].cores):
        memory = f"{one.peak_bytes / 1e6:,.0f} MB"
        rows.append([name, str(one.processes), f"{one.cores:.2f}", f"{one.busiest:.2f}", memory])
    return rows


def _sliced(run: Run) -> dict[str, list[tuple[float, float]]]:
    """Median and 95th percentile of the time to the first token (ms), in slices of the time."""
    began = run.tally.begun
    if not began:
        return {}
    width = (run.scenario.warm_up_s + run.scenario.duration_s) / SLICES
    slices: dict[int, list[float]] = {}
    for at, took in began:
        slices.setdefault(int(at / width), []).append(1000 * took)
    return {
        f"p{share}": [(number * width, percentile(values, share)) for number, values in sorted(slices.items())]
        for share in (50, 95)
    }
