"""One run: start everything, ask undisturbed, ask under faults, read the logs, judge."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from baton_proto import codec, subjects
from baton_proto.messages import LogFrame
from services.common.bus import Bus, Unconfirmed
from services.common.config import NatsSettings
from services.common.connection import connect
from services.common.log import read_log
from tests.servers.processes import eventually
from tests.system import answer

from .clients import Clients, Record, questions
from .crowd import Crowd
from .fleet import Fleet, fleet
from .habits import Habit
from .injector import Injector
from .report import Run, failure, summary
from .schedule import Fault
from .transcript import Frame
from .verdict import Verdict, judge

Say = Callable[[str], None]
OWNER = "anonymous"
READERS = 16
QUEUE_EMPTY_S = 60.0


def run_chaos(
    run: Run,
    faults: list[Fault],
    folder: Path,
    say: Say,
    *,
    delay_ms: int = 25,
    number: int | None = None,
    milvus: bool = True,
) -> Verdict:
    """Do it and print it. Whatever happens, no process is left.

    Args:
        faults: the schedule, as `schedule.plan` gives it.
        folder: for logs and data of all processes.
        delay_ms: between the pieces of an answer.
        number: how many different questions; all where it is None.
        milvus: see `fleet`.
    """
    servers = "three nats-servers" if run.cluster else "nats-server"
    say(f"starting {servers}, {'Milvus Lite, ' if milvus else ''}gateways and workers")
    with fleet(folder, cluster=run.cluster, delay_ms=delay_ms, milvus=milvus) as processes:
        return asyncio.run(_under_faults(run, faults, processes, say, number))


async def _under_faults(run: Run, faults: list[Fault], processes: Fleet, say: Say, number: int | None) -> Verdict:
    await processes.all_ready()
    asked = questions(number)
    urls = [f"ws://127.0.0.1:{port}/ws" for port in processes.gateway_ports]
    references = await _references(urls, asked)
    load = f"{run.clients} clients, {run.crowds} crowds"
    say(f"{len(asked)} undisturbed answers; now {load} and {len(faults)} faults in {run.duration_s:g} s")
    began = time.monotonic()
    clients = Clients(run.seed, urls, asked, began)
    injector = Injector(processes, faults, began, say)
    async with asyncio.TaskGroup() as group:
        group.create_task(injector.run())
        group.create_task(clients.run(run.clients, run.duration_s))
        for number in range(run.crowds):
            group.create_task(Crowd(clients, urls, run.seed + number, len(asked)).run(began, run.duration_s))
    await processes.all_ready()
    say(f"all clients are through after {time.monotonic() - began:.0f} s; reading {len(clients.records)} logs")
    async with connect(NatsSettings(url=processes.nats_url), "chaos") as bus:
        logs = await _logs(bus, clients.records)
        left = await _work_left(bus)
    for member in processes.members.values():
        await processes.count(member)
    findings = [*injector.findings, *left, *await processes.stop()]
    verdict = judge(clients.records, logs, references, injector.absences, findings)
    for line in summary(run, verdict, clients.tally, injector.absences, processes):
        say(line)
    if not verdict.passed:
        for line in failure(run, verdict, faults, injector.absences):
            say(line)
    return verdict


async def _references(urls: Sequence[str], asked: Sequence[str]) -> list[str]:
    """The answer to each question when nothing is disturbed."""
    clients = Clients(0, urls, asked, time.monotonic())
    room = asyncio.Semaphore(8)

    async def one(question: int) -> str:
        async with room:
            record = await clients.ask(f"reference-{question}", Habit(question))
        frames = record.transcripts[0].frames
        if not frames or frames[-1]["type"] != "done":
            raise AssertionError(f"undisturbed, {asked[question]!r} ended with {frames[-1:]} {record.refused}")
        return answer(frames)

    return list(await asyncio.gather(*(one(question) for question in range(len(asked)))))


async def _logs(bus: Bus, records: Sequence[Record]) -> dict[str, list[Frame]]:
    """Each request's log as it stands in JetStream."""
    room = asyncio.Semaphore(READERS)

    async def one(record: Record) -> tuple[str, list[Frame]]:
        async with room:
            return record.request_id, await _log(bus, record.request_id)

    return dict(await asyncio.gather(*(one(record) for record in records)))


async def _log(bus: Bus, request_id: str) -> list[Frame]:
    at = bus.address(subjects.request_key(OWNER, request_id))
    for attempt in range(5):
        try:
            position = await read_log(bus, at)
        except Unconfirmed:
            await asyncio.sleep(1.0 + attempt)
            continue
        frames = position.frames if position is not None else []
        return [_shown(request_id, frame) for frame in frames]
    raise AssertionError(f"the log of {request_id} could not be read")


def _shown(request_id: str, frame: LogFrame) -> Frame:
    """A frame as a client sees it, through the same encoding."""
    shown: Frame = json.loads(codec.client_bytes(codec.client_map(request_id, frame), binary=False))
    return shown


async def _work_left(bus: Bus) -> list[str]:
    """When all logs have ended, the queue is soon empty: what a lost holder could not acknowledge comes once more, and
    is dropped."""
    left = 0

    async def empty() -> bool:
        nonlocal left
        left = int((await bus.stream_state(subjects.WORK_STREAM))["messages"])
        return left == 0

    try:
        await eventually(empty, "the work queue is empty", within_s=QUEUE_EMPTY_S)
    except AssertionError:
        return [f"{left} items of work are left in the queue, though all logs have ended"]
    return []
