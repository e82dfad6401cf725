"""Carries out a schedule on a fleet, and remembers what was really away and when."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.servers.processes import eventually

from .fleet import START_S, Fleet, Member
from .schedule import KINDS, SERVICES, Fault

DRAIN_S = 40.0
"""Longer than a process may take to drain (20 s, and what a gateway adds); then it hangs."""


@dataclass(slots=True)
class Absence:
    """A fault as it happened. Seconds since the clients began; `until_s` is when the process served again."""

    fault: Fault
    from_s: float
    until_s: float

    def __str__(self) -> str:
        return f"{self.from_s:7.1f} s  {self.fault.kind:<11} {self.fault.target:<12} back at {self.until_s:.1f} s"


class Injector:
    """`run` does the whole schedule; `absences` and `findings` are complete when it returns.

    Args:
        began: monotonic time of the schedule's 0.
        say: told of each fault when it happens.
    """

    def __init__(self, fleet: Fleet, faults: list[Fault], began: float, say: Callable[[str], None]) -> None:
        self._fleet = fleet
        self._faults = faults
        self._began = began
        self._say = say
        self.absences: list[Absence] = []
        self.findings: list[str] = []

    async def run(self) -> None:
        watching = asyncio.create_task(self._watch())
        try:
            async with asyncio.TaskGroup() as group:
                for fault in self._faults:
                    await asyncio.sleep(max(0.0, self._began + fault.at_s - time.monotonic()))
                    await self._until_allowed(fault)
                    self._fleet.members[fault.target].hurt = True
                    group.create_task(self._carry_out(fault))
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _until_allowed(self, fault: Fault) -> None:
        """What is away takes longer than planned now and then: never two of one service at once."""
        same = [one for one in self._fleet.members.values() if one.service == fault.service]
        await eventually(lambda: not any(one.hurt for one in same), f"{fault.service} is whole again", 2 * START_S)

    async def _carry_out(self, fault: Fault) -> None:
        member = self._fleet.members[fault.target]
        await self._fleet.count(member)
        absence = Absence(fault, self._now(), float("inf"))
        self.absences.append(absence)
        self._say(f"{absence.from_s:7.1f} s  {fault.kind} {fault.target} for {fault.for_s:.1f} s")
        if fault.kind in ("freeze", "freeze+term"):
            await member.freeze()
            await asyncio.sleep(fault.for_s)
            if fault.kind == "freeze+term":
                member.signal(signal.SIGTERM)
            member.signal(signal.SIGCONT)
        if fault.kind != "freeze":
            await self._end(fault, member)
            await asyncio.sleep(0 if fault.kind == "freeze+term" else fault.for_s)
            member.start()
        try:
            await self._fleet.until_ready(member)
        except AssertionError as error:
            self.findings.append(str(error))
        member.hurt = False
        absence.until_s = self._now()

    async def _end(self, fault: Fault, member: Member) -> None:
        assert member.process is not None
        if fault.kind != "kill":
            if fault.kind == "term":
                member.signal(signal.SIGTERM)
            process = member.process
            with contextlib.suppress(AssertionError):  # said below
                await eventually(lambda: not process.alive, f"{fault.target} has ended", DRAIN_S)
            code = member.process.popen.poll()
            if member.service != "nats" and code != 0:
                what = "did not end" if code is None else f"ended with {code}"
                self.findings.append(f"{fault.target} {what} after SIGTERM at {fault.at_s:.1f} s")
        member.process.kill()
        member.process.stop()

    async def _watch(self) -> None:
        """A process that nobody has hurt must not end."""
        while True:
            await asyncio.sleep(0.5)
            for member in self._fleet.members.values():
                if not member.hurt and member.process is not None and not member.process.alive:
                    code = member.process.popen.returncode
                    self.findings.append(f"{member.name} ended by itself with {code} at {self._now():.1f} s")
                    member.process.stop()
                    member.start()

    def _now(self) -> float:
        return time.monotonic() - self._began


def all_away(absences: list[Absence], service: str, each: int) -> list[tuple[float, float]]:
    """When all processes of a service were away at once."""
    edges = sorted({edge for one in absences for edge in (one.from_s, one.until_s)})
    spans = []
    for start, end in itertools.pairwise(edges):
        away = {
            one.fault.target
            for one in absences
            if one.fault.service == service and one.from_s <= start and one.until_s >= end
        }
        if len(away) >= each:
            spans.append((start, end))
    return spans


def counted(absences: list[Absence]) -> dict[str, int]:
    """How many faults of each kind happened to each service."""
    found: dict[str, int] = {}
    for service in (*SERVICES, "nats"):
        for kind in KINDS:
            number = sum(one.fault.service == service and one.fault.kind == kind for one in absences)
            if number:
                found[f"{kind} {service}"] = number
    return found
