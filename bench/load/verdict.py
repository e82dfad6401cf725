"""What a load test has shown: whether the system held, and what its first limit is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evaluation.ranks import percentile

from .tally import Tally
from .users import REFUSED
from .watch import CLIENT, Usage

TTFB_S, TTFT_S = 0.3, 1.0
"""The objectives, for 95 % of the questions: first frame, first token."""
FAILED = 0.001
BUSY, IDLE = 0.9, 0.7
"""Cores in use of one, or of all, from which on they are called the limit, and below which they are none."""


@dataclass(frozen=True, slots=True)
class Verdict:
    broken: tuple[str, ...]
    """What did not hold; empty: everything did."""
    limit: str


def verdict(tally: Tally, unfinished: int, usage: Mapping[str, Usage], cores: int) -> Verdict:
    broken = []
    if tally.wrong:
        broken.append(f"{len(tally.wrong)} frames lost, repeated or out of order: {tally.wrong[0]}")
    if unfinished:
        broken.append(f"{unfinished} answers did not end")
    if tally.failed > FAILED * tally.asked:
        broken.append(f"{tally.failed} of {tally.asked} questions failed (more than {FAILED:.1%})")
    for name, values, most in (("first frame", tally.ttfb, TTFB_S), ("first token", tally.ttft, TTFT_S)):
        if (took := percentile(values, 95)) > most:
            broken.append(f"p95 of the {name} is {took * 1000:,.0f} ms (objective: {most * 1000:.0f} ms)")
    return Verdict(tuple(broken), _limit(tally, usage, cores))


def _limit(tally: Tally, usage: Mapping[str, Usage], cores: int) -> str:
    refused = {code.removeprefix(REFUSED): n for code, n in tally.outcomes.items() if code.startswith(REFUSED)}
    if sum(refused.values()) > FAILED * tally.asked:
        code = max(refused, key=lambda one: refused[one])
        return f"a bound of the gateway: {refused[code]} questions were refused with {code!r} (docs/settings.md)"
    if not usage:
        return "unknown: the processes are not on this machine; see its dashboards"
    name, most = max(usage.items(), key=lambda entry: entry[1].busiest)
    all_of_them = sum(one.cores for one in usage.values())
    if all_of_them >= BUSY * cores:
        return f"the machine's CPU: {all_of_them:.2f} of {cores} cores, most of it in {_most(usage)}"
    if most.busiest >= BUSY:
        return f"the CPU of one {name} process: {most.busiest:.2f} of one core; {_advice(name)}"
    if percentile(tally.ttft, 95) > TTFT_S and most.busiest < IDLE:
        return (
            f"places in workers: questions wait although no process is busy (most: {name}, {most.busiest:.2f} of one "
            "core); raise BATON_CONCURRENCY, or look at what the workers wait for"
        )
    return (
        f"not reached; nearest is the CPU of {name}: {most.busiest:.2f} of one core, "
        f"{all_of_them:.2f} of {cores} in all"
    )


def _most(usage: Mapping[str, Usage]) -> str:
    first = sorted(usage.items(), key=lambda entry: -entry[1].cores)[:3]
    return ", ".join(f"{name} {one.cores:.2f}" for name, one in first)


def _advice(name: str) -> str:
    if name == CLIENT:
        return "run the test from several machines"
    return "it can be scaled" if name == "nats-server" else f"start more replicas of {name}"
