"""Brings the planned processes up in order, watches them, and takes them down in order."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from .plan import DOCUMENTS, MILVUS_PORT, NATS_PORT, Part, Plan
from .readiness import NotReady, answers_ok, listens, speaks_nats, until_ready
from .shown import Importance
from .supervisor import Command, GaveUp, Supervisor

READY_S = 120.0
EXTERNAL_S = 5.0
STOP_ORDER = (("gateway",), ("retriever", "generator", "tools", "ingest"), ("erp", "milvus"), ("nats",))
COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green")
DOCUMENTS_NAME = "documents"


class Screen:
    """All that `baton run` prints. Colours only in a terminal."""

    def __init__(self, console: Console, verbose: bool) -> None:
        self._console = console
        self._verbose = verbose
        self._importance: dict[str, Importance] = {}
        self.stopping = False
        """While all is stopped, services lose each other, and say so: no news to anybody."""

    def output(self, name: str, line: str) -> None:
        """A line that a process has printed."""
        shown = self._importance.setdefault(name, Importance())(line)
        if self._verbose or (shown and not self.stopping):
            self._prefixed(name, line)

    def event(self, name: str, line: str) -> None:
        """Something that happened to a process."""
        self._prefixed(name, line, style="bold yellow")

    def say(self, line: str = "", style: str = "") -> None:
        self._console.print(Text(line, style=style), soft_wrap=True)

    def lines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.say(f"    {line}", style="dim")

    def _prefixed(self, name: str, line: str, style: str = "") -> None:
        colour = COLOURS[sum(name.encode()) % len(COLOURS)]
        self._console.print(Text.assemble((f"{name:>11} | ", colour), (line, style)), soft_wrap=True)


async def run_system(plan: Plan, data: Path, documents: bool, verbose: bool, notes: Sequence[str]) -> int:
    """The whole life of the system; the exit status for a shell."""
    started = time.monotonic()
    screen = Screen(Console(file=sys.stdout, highlight=False), verbose)
    for note in notes:
        screen.say(note, style="yellow")
    async with Supervisor(data / "logs", screen.output, screen.event) as supervisor:
        stop = _stop_on_signals(supervisor)
        running = asyncio.create_task(_bring_up(plan, supervisor, screen, documents, data, started))
        failing = asyncio.create_task(supervisor.failure())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([running, failing, stopping], return_when=asyncio.FIRST_COMPLETED)
            if running.done() and running.exception() is None:
                await asyncio.wait([failing, stopping], return_when=asyncio.FIRST_COMPLETED)
            status = _verdict(running, failing, stopping, screen)
        finally:
            for task in (running, failing, stopping):
                task.cancel()
            await asyncio.gather(running, failing, stopping, return_exceptions=True)
            await _take_down(plan, supervisor, screen)
    return status


def _stop_on_signals(supervisor: Supervisor) -> asyncio.Event:
    """Set by Ctrl-C, SIGTERM or a closed terminal; the second time everything is killed at once."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            supervisor.kill_all()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return stop


def _verdict(
    running: asyncio.Task[None], failing: asyncio.Task[None], stopping: asyncio.Task[bool], screen: Screen
) -> int:
    if stopping.done():
        return 0
    error = failing.exception() if failing.done() else running.exception()
    if isinstance(error, GaveUp):
        screen.say(f"\n{error.name} {error.how}, so Baton stops. The last lines of {error.log}:", style="bold red")
        screen.lines(error.last_lines)
    elif isinstance(error, NotReady):
        screen.say(f"\n{error}, so Baton stops.", style="bold red")
    elif error is not None:
        raise error
    return 1


async def _bring_up(
    plan: Plan, supervisor: Supervisor, screen: Screen, documents: bool, data: Path, started: float
) -> None:
    screen.say("Starting Baton …", style="bold")
    ours = {part.kind for part in plan.parts}
    for part in plan.of("nats", "milvus", "erp"):
        supervisor.start(part.command)
    patience = READY_S if "nats" in ours else EXTERNAL_S
    await until_ready(f"NATS at {_place(plan.nats)}", speaks_nats(*plan.nats), patience)
    for part in plan.of("generator", "tools", "gateway"):
        supervisor.start(part.command)
    if plan.milvus is not None:
        patience = READY_S if "milvus" in ours else EXTERNAL_S
        await until_ready(f"Milvus at {_place(plan.milvus)}", listens(*plan.milvus), patience)
    for part in plan.of("ingest", "retriever"):
        supervisor.start(part.command)
    ingested = _ingest(plan, supervisor, screen) if documents and plan.of("ingest") else _nothing()
    await asyncio.gather(ingested, *(_service_ready(part) for part in plan.parts))
    _welcome(plan, screen, data, time.monotonic() - started)


async def _nothing() -> None:
    pass


async def _service_ready(part: Part) -> None:
    path = {"erp": "/healthz", "nats": "", "milvus": ""}.get(part.kind, "/readyz")
    if path:
        await until_ready(part.command.name, answers_ok("127.0.0.1", part.port, path), READY_S)


async def _ingest(plan: Plan, supervisor: Supervisor, screen: Screen) -> None:
    """The demo's documents. Without them Baton still runs, so a failure is only told."""
    screen.say("Reading the demo's documents (the first time takes some seconds) …")
    argv = [sys.executable, "-m", "services.cli", "ingest", str(DOCUMENTS)]
    status, last_lines = await supervisor.run(Command(DOCUMENTS_NAME, argv, plan.environ, stop_s=1.0))
    if status == 0:
        screen.say(f"Documents: {last_lines[-1] if last_lines else 'read'}")
    else:
        screen.say("The demo's documents were not ingested completely:", style="bold yellow")
        screen.lines(last_lines[-8:])


def _welcome(plan: Plan, screen: Screen, data: Path, seconds: float) -> None:
    first, *others = [f"http://127.0.0.1:{port}" for port in plan.gateway_ports]
    ask = "baton ask" if first.endswith(":8000") else f"baton ask --url {first.replace('http', 'ws')}/ws"
    screen.say(f"\nBaton is up after {seconds:.1f} s.\n", style="bold green")
    screen.say(f"  page      {first}", style="bold")
    for other in others:
        screen.say(f"  also      {other}")
    screen.say(f'  terminal  .venv/bin/{ask} "How many days of annual leave do I get?"')
    for name, where, usual in (
        ("BATON_NATS_URL", plan.nats, ("127.0.0.1", NATS_PORT)),
        ("BATON_MILVUS_URI", plan.milvus, ("127.0.0.1", MILVUS_PORT)),
    ):
        if where not in (None, usual):
            screen.say(f"  settings  {name}={plan.environ[name]} (other baton commands need it)")
    screen.say(f"  logs      {data / 'logs'}")
    screen.say("  stop      Ctrl-C\n")


async def _take_down(plan: Plan, supervisor: Supervisor, screen: Screen) -> None:
    screen.stopping = True
    screen.say("Stopping …", style="bold")
    await supervisor.stop([DOCUMENTS_NAME])
    for kinds in STOP_ORDER:
        await supervisor.stop([part.command.name for part in plan.of(*kinds)])
    screen.say("Stopped.")


def _place(where: tuple[str, int]) -> str:
    return f"{where[0]}:{where[1]}"
