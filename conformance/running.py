"""A whole run of the kit: NATS, the worker, its promises side by side, and nothing left behind."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from baton_proto import codec, subjects
from services.cli.direct import open_bus
from services.cli.plan import nats_command
from services.cli.ports import free_ports
from services.cli.readiness import NotReady, speaks_nats, until_ready
from services.cli.supervisor import Supervisor
from services.common import streams
from services.common.bus import Bus, Refused, Unconfirmed, end_tasks
from services.common.inspection import log_shards

from . import checks as checks  # registers all promises
from .checks.process import ended_so, start
from .kit import Kit, Options
from .process import WorkerProcess
from .promise import PROMISES, Advice, Broken, InDoubt, Kind, NotSeen, Outcome, Promise, Verdict
from .witness import Witness

STAGES: dict[Kind, str] = {"retriever": subjects.RETRIEVE, "generator": subjects.GENERATE}
NATS_START_S = 20.0
TRIES = 3
"""Of a promise, where NATS does not answer: it may be busy."""
SEEN = 2
"""So many times what is in doubt is seen before it is said."""
AT_ONCE = 8
"""Promises that are tried at the same time."""
PLACES = 1_000
"""Requests of one user at once, where the kit makes the stream of their places."""


class CannotRun(Exception):
    """There is nothing to examine; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is examined.

    Attributes:
        nats: where the worker is, or will be; empty: a nats-server is started for it.
        variant: that the worker announces; empty: none.
        command: how to start the worker, as a shell would split it; empty: somebody else does.
        ack_wait_s: makes the queue's consumer with this before a worker does, in a NATS of the kit's own.
        only: names of promises; all where none is named.
    """

    kind: Kind
    tool_set: str = "default"
    variant: str = ""
    nats: str = ""
    command: str = ""
    ack_wait_s: float | None = None
    only: Sequence[str] = ()
    options: Options = field(default_factory=Options)

    @property
    def stage(self) -> str:
        return STAGES.get(self.kind) or subjects.tools_stage(self.tool_set)

    def promises(self) -> list[Promise]:
        """Those that this worker makes, in the order of trying."""
        ours = [one for one in PROMISES if self.kind in one.kinds and (not self.only or one.name in self.only)]
        return sorted(ours, key=lambda one: one.needs_process)


Tell = Callable[[str], None]


async def examine(subject: Subject, on_outcome: Callable[[Outcome], None], tell: Tell) -> list[Outcome]:
    """Try every promise that the worker makes, and say what came of each as soon as it is known.

    Raises:
        CannotRun, CannotReach, Unconfirmed
    """
    with tempfile.TemporaryDirectory(prefix="baton-conformance-") as folder:
        async with Supervisor(Path(folder), lambda *_: None, lambda *_: None) as supervisor:
            url = subject.nats or await _own_nats(supervisor, Path(folder))
            async with open_bus("conformance", url) as bus:
                await _make_streams(bus, subject)
                return await _with_worker(bus, supervisor, subject, url, on_outcome, tell)


async def _own_nats(supervisor: Supervisor, folder: Path) -> str:
    (port,) = free_ports(1)
    supervisor.start(nats_command(folder / "nats", port, os.environ))
    try:
        await until_ready("nats-server", speaks_nats("127.0.0.1", port), NATS_START_S)
    except NotReady as error:
        raise CannotRun(str(error)) from None
    return f"nats://127.0.0.1:{port}"


async def _make_streams(bus: Bus, subject: Subject) -> None:
    if shards := await log_shards(bus):
        bus.settings = dataclasses.replace(bus.settings, shards=shards)
    await streams.ensure_missing(bus, PLACES)
    if subject.ack_wait_s is not None and not subject.nats:
        await streams.ensure_consumer(bus, subjects.queue_name(subject.stage, subject.variant), subject.ack_wait_s, 0)


async def _with_worker(
    bus: Bus, supervisor: Supervisor, subject: Subject, url: str, on_outcome: Callable[[Outcome], None], tell: Tell
) -> list[Outcome]:
    witness = Witness(bus, subject.stage, subject.variant)
    await witness.watch()
    process = _process(supervisor, subject, url)
    kit = Kit(bus, subject.kind, subject.stage, witness, subject.options, process, alone=not subject.nats)
    try:
        await _until_there(kit, subject, url, tell)
        witness.ack_wait_s = await _ack_wait_s(witness)
        return await _try_all(kit, subject.promises(), on_outcome)
    finally:
        if process is not None:
            await process.stop()
        if subject.nats:
            await kit.clean_up()


def _process(supervisor: Supervisor, subject: Subject, url: str) -> WorkerProcess | None:
    if not subject.command:
        return None
    try:
        argv = [word.replace("{nats}", url) for word in shlex.split(subject.command)]
    except ValueError as error:
        raise CannotRun(f"the command {subject.command!r} cannot be split into words: {error}") from None
    if shutil.which(program := argv[0] if argv else "") is None:
        raise CannotRun(f"the command {subject.command!r} cannot be run: there is no program {program!r}")
    return WorkerProcess(supervisor, argv, {**os.environ, "BATON_NATS_URL": url, "NATS_URL": url})


async def _until_there(kit: Kit, subject: Subject, url: str, tell: Tell) -> None:
    """Wait for the worker to announce itself."""
    if kit.process is not None:
        try:
            await start(kit)
        except Broken as problem:
            raise CannotRun(f"the worker: {problem}") from None
        return
    await kit.bus.publish(subjects.CENSUS, b"")
    if not subject.nats:
        tell(f"NATS is at {url}: start the worker there now.")
    if not await kit.witness.until(kit.witness.present, kit.options.start_s):
        raise CannotRun(
            f"no worker of the stage {kit.stage} announced itself on {kit.witness.presence} within "
            f"{kit.options.start_s:g} s{kit.witness.others()}"
        )
    if len(names := sorted({said.worker for said in kit.witness.present()})) > 1:
        who = f"{len(names)} workers serve {kit.witness.queue} ({', '.join(names)})"
        tell(f"{who}: what is said here is about all of them.")


async def _ack_wait_s(witness: Witness) -> float:
    config = (await witness.bus.api(f"CONSUMER.INFO.{witness.consumer}")).get("config")
    if config is None:
        name = subjects.work_consumer(witness.queue)
        raise CannotRun(f"the worker has made no consumer {name!r} on {subjects.WORK_STREAM}")
    return int(config["ack_wait"]) / 1e9


async def _try_all(kit: Kit, promises: list[Promise], on_outcome: Callable[[Outcome], None]) -> list[Outcome]:
    """Those that leave the worker alone side by side, and the others one after the other behind them."""
    slots, outcomes = asyncio.Semaphore(min(AT_ONCE, kit.slots)), list[Outcome]()

    async def one(promise: Promise) -> None:
        async with slots:
            outcomes.append(await tried(kit, promise))
            on_outcome(outcomes[-1])

    async with asyncio.TaskGroup() as group:
        for promise in promises:
            if not promise.needs_process:
                group.create_task(one(promise))
    for promise in promises:
        if promise.needs_process:
            await one(promise)
    order = {promise.name: at for at, promise in enumerate(promises)}
    return sorted(outcomes, key=lambda outcome: order[outcome.promise.name])


async def _unless_it_dies(kit: Kit, promise: Promise) -> None:
    """Check a promise; a worker that ends by itself meanwhile has broken it.

    Raises:
        Broken, Advice, NotSeen, Unconfirmed
    """
    if kit.process is None or promise.needs_process:
        return await promise.check(kit)
    checking = asyncio.ensure_future(promise.check(kit))
    ending = asyncio.ensure_future(kit.process.ended())
    try:
        await asyncio.wait([checking, ending], return_when=asyncio.FIRST_COMPLETED)
        if checking.done():
            return checking.result()
        raise Broken(f"it {ended_so(ending.result())}", "3")
    finally:
        await end_tasks(checking, ending)


async def _surely(kit: Kit, promise: Promise) -> str:
    """Check a promise; again where NATS does not answer, and where it is in doubt what was seen. Returns what was seen
    before it was kept, if anything.

    Raises:
        Broken, Advice, NotSeen, Unconfirmed
    """
    unanswered, doubts = 0, list[str]()
    while True:
        try:
            if promise.needs_process and kit.process is not None and not kit.process.alive:
                await start(kit)  # NATS did not answer the check, or the one before, when the worker was gone
            await _unless_it_dies(kit, promise)
            return "; ".join(doubts)
        except InDoubt as doubt:
            doubts.append(str(doubt))
            if len(doubts) == SEEN:
                raise
        except Unconfirmed:
            unanswered += 1
            if unanswered == TRIES:
                raise


async def tried(kit: Kit, promise: Promise) -> Outcome:
    """What comes of one promise.

    Whatever a worker does comes to an outcome; another exception is a mistake of the kit.
    """
    begun = time.monotonic()
    verdict: Verdict = "kept"
    seen = section = ""
    try:
        if promise.needs_process and kit.process is None:
            raise NotSeen("it takes a worker that the kit may kill: start it with --command")
        seen = await _surely(kit, promise)
    except Broken as problem:
        verdict, seen, section = "broken", str(problem), problem.section
    except codec.WireError as problem:
        verdict, seen, section = "broken", f"it stored what a reader must refuse: {problem}", "4"
    except Refused:
        verdict, seen, section = "broken", "it appended to a log whose item it had handed on or did not hold", "1"
    except Advice as advice:
        verdict, seen = "advice", str(advice)
    except NotSeen as reason:
        verdict, seen = "not seen", str(reason)
    except Unconfirmed as error:
        verdict, seen = "not seen", f"NATS did not answer ({error})"
    return Outcome(promise, verdict, time.monotonic() - begun, seen, section or promise.section)
