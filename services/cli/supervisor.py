"""Keeps a set of child processes alive, and stops them so that none is left.

Knows nothing of Baton: `services.cli.plan` says what to start, `services.cli.run` when.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_LINE_BYTES = 64 * 1024
KEPT_LINES = 30
MAX_LOG_BYTES = 20 * 1024 * 1024
SETTINGS_EXIT = 2
"""Exit status of a process whose settings are wrong: starting it again cannot help."""

Listener = Callable[[str, str], None]
"""Called with a process's name and one line: of its output, or about it."""


@dataclass(frozen=True, slots=True)
class Command:
    """A process to keep alive. `argv` is started without a shell, with exactly the environment `env`. `stop_s` is how
    long it may take after `stop_signal`."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    stop_s: float = 3.0
    stop_signal: signal.Signals = signal.SIGTERM


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits before each new start, in seconds; no more starts after the last one. A process that has lived for
    `healthy_s` counts from the beginning again."""

    waits_s: Sequence[float] = (0.2, 0.5, 1.0, 2.0, 4.0)
    healthy_s: float = 30.0


class GaveUp(Exception):
    """A process ended more often than `Backoff` allows, or in a way that no new start heals."""

    def __init__(self, name: str, how: str, last_lines: Iterable[str], log: Path) -> None:
        super().__init__(f"{name} {how}")
        self.name = name
        self.how = how
        self.last_lines = list(last_lines)
        self.log = log


class Supervisor:
    """Starts, restarts and stops processes; use it with `async with`.

    Every process gets a session of its own, so that a Ctrl-C in the terminal reaches only the supervisor, and on Linux
    is killed by the kernel when the supervisor dies, however that happens.

    `on_output` gets each line a process prints; all of it also goes to `logs/<name>.log`. `on_event` gets lines such as
    "ended with status 1; starting it again".
    """

    def __init__(self, logs: Path, on_output: Listener, on_event: Listener, backoff: Backoff | None = None) -> None:
        self._logs = logs
        self._on_output = on_output
        self._on_event = on_event
        self._backoff = backoff or Backoff()
        self._children: dict[str, _Child] = {}
        self._gave_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Supervisor:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop(list(self._children))
        if self._gave_up.done():
            self._gave_up.exception()  # seen, so that asyncio does not warn
        else:
            self._gave_up.cancel()

    def start(self, command: Command) -> None:
        """Start `command` and keep it running."""
        child = self._make(command)
        child.task = asyncio.create_task(self._keep(child), name=f"keep {command.name}")

    async def run(self, command: Command) -> tuple[int, list[str]]:
        """Run `command` once, to its end or until it is stopped; its exit status and last lines."""
        child = self._make(command)
        child.task = asyncio.create_task(child.once(), name=f"run {command.name}")
        await asyncio.wait([child.task])
        child.log.close()
        return child.status, list(child.log.last_lines)

    async def stop(self, names: Iterable[str]) -> None:
        """Stop these processes side by side: their `stop_signal`, after `stop_s` SIGKILL. Unknown names are ignored."""
        children = {name: child for name in names if (child := self._children.get(name)) is not None}
        await asyncio.gather(*(child.stop() for child in children.values()))
        for name in children:  # only now, so that `kill_all` reaches those that are stopping
            self._children.pop(name, None)

    def kill_all(self) -> None:
        """SIGKILL to all, now: for someone who does not want to wait. `stop` is still needed afterwards."""
        for child in self._children.values():
            child.kill()

    async def failure(self) -> None:
        """Returns never; raises `GaveUp` as soon as a process could not be kept alive."""
        await asyncio.shield(self._gave_up)

    def pids(self) -> dict[str, int]:
        """The processes that run now."""
        return {name: child.pid for name, child in self._children.items() if child.pid is not None}

    def _make(self, command: Command) -> _Child:
        log = _Log(self._logs / f"{command.name}.log", lambda line: self._on_output(command.name, line))
        child = _Child(command, log, self._backoff, lambda line: self._on_event(command.name, line))
        self._children[command.name] = child
        return child

    async def _keep(self, child: _Child) -> None:
        try:
            await child.keep()
        except GaveUp as error:
            if not self._gave_up.done():
                self._gave_up.set_exception(error)
        finally:
            child.log.close()


class _Child:
    """One process over all its starts."""

    def __init__(self, command: Command, log: _Log, backoff: Backoff, tell: Callable[[str], None]) -> None:
        self.command = command
        self.log = log
        self.task: asyncio.Task[Any] | None = None
        self.status = -1
        self._backoff = backoff
        self._tell = tell
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else None

    async def keep(self) -> None:
        """Run the process until `stop`. Raises `GaveUp`."""
        waits = iter(self._backoff.waits_s)
        while True:
            started = time.monotonic()
            how = await self.once()
            if self._stopping:
                return
            if time.monotonic() - started >= self._backoff.healthy_s:
                waits = iter(self._backoff.waits_s)
            wait = next(waits, None) if self.status != SETTINGS_EXIT else None
            if wait is None:
                raise GaveUp(self.command.name, how, self.log.last_lines, self.log.path)
            self._tell(f"{how}; starting it again")
            await asyncio.sleep(wait)

    async def once(self) -> str:
        """Start it and wait for its end; `status` is set, and the result says how it ended."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self.command.argv,
                env=dict(self.command.env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_child_setup(),
            )
        except OSError as error:
            self.status = SETTINGS_EXIT
            return f"cannot be started: {self.command.argv[0]}: {error.strerror}"
        if self._stopping:
            self._signal_group(self.command.stop_signal)
        assert self._process.stdout is not None
        pump = asyncio.create_task(self.log.follow(self._process.stdout))
        self.status = await self._process.wait()
        self._signal_group(signal.SIGKILL)  # what it may have started and left behind
        await asyncio.wait([pump], timeout=1)
        pump.cancel()
        return _in_words(self.status)

    async def stop(self) -> None:
        self._stopping = True
        if self.task is None:
            return
        if self.pid is None:
            self.task.cancel()  # it waits for its next start
        else:
            self._signal_group(self.command.stop_signal)
        _, running = await asyncio.wait([self.task], timeout=self.command.stop_s)
        if running:
            self._tell(f"did not stop within {self.command.stop_s:g} s; killed")
            self.kill()
        await asyncio.gather(self.task, return_exceptions=True)
        self.log.close()

    def kill(self) -> None:
        self._stopping = True
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        # The process leads its own session, so its group has its number, also for a moment after it has ended.
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)


class _Log:
    """A process's output: to a file of bounded size, line by line to a listener, and the last lines kept."""

    def __init__(self, path: Path, on_line: Callable[[str], None]) -> None:
        self.path = path
        self.last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._on_line = on_line
        self._rotate()
        self._file = path.open("wb")

    async def follow(self, stream: asyncio.StreamReader) -> None:
        """Read to the end of the stream. A line longer than `MAX_LINE_BYTES` is cut into several."""
        rest = b""
        while data := await stream.read(MAX_LINE_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                lines.append(rest)
                rest = b""
            for line in lines:
                self._take(line)
        if rest:
            self._take(rest)

    def close(self) -> None:
        self._file.close()

    def _take(self, line: bytes) -> None:
        if self._file.tell() > MAX_LOG_BYTES:
            self._file.close()
            self._rotate()
            self._file = self.path.open("wb")
        self._file.write(line + b"\n")
        self._file.flush()
        text = line.decode(errors="replace").rstrip("\r")
        self.last_lines.append(text)
        self._on_line(text)

    def _rotate(self) -> None:
        if self.path.exists():
            self.path.replace(self.path.with_suffix(".log.1"))


def _in_words(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def _child_setup() -> Callable[[], None]:
    """What a child runs before its program.

    On Linux it asks the kernel to be killed with this process, so that it cannot outlive it (prctl(2),
    PR_SET_PDEATHSIG): SIGKILL, because a child whose parent has gone must not hang on while it drains.
    """
    linux = sys.platform.startswith("linux")
    prctl, parent = (ctypes.CDLL(None).prctl if linux else None), os.getpid()
    pr_set_pdeathsig = 1

    def set_up() -> None:
        # A shell without job control lets its background commands ignore Ctrl-C, and that is inherited.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if prctl is not None:
            prctl(pr_set_pdeathsig, signal.SIGKILL)
            if os.getppid() != parent:  # it died before we asked
                os._exit(1)

    return set_up
