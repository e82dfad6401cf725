"""Starting and stopping real programs for tests: free ports, bounded waits, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from services.cli.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PATIENCE_S = 45.0
"""How long is waited for what must come at last: it says nothing of how soon."""


def free_port() -> int:
    """One that nobody else is given before a server of this test listens there."""
    return free_ports(1)[0]


class Process:
    """A running program; its output lies in a file that failures quote. `root` has the sources that it runs in."""

    def __init__(self, argv: list[str], output: Path, env: dict[str, str] | None = None, root: Path = ROOT) -> None:
        self.output = output
        self._file = output.open("ab")
        self.popen = subprocess.Popen(
            argv,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            cwd=root,
            env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'proto'}", **(env or {})},
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def ended(self, within_s: float = 60.0) -> int:
        """Wait until it ends by itself; its exit code."""
        try:
            return self.popen.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it has not ended within {within_s:g} s; it said:\n{self.text()}") from None

    def kill(self) -> None:
        """SIGKILL to it and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait(PATIENCE_S)

    def stop(self, within_s: float = PATIENCE_S) -> int:
        """SIGTERM, and SIGKILL if that is not enough; returns its exit code."""
        if self.alive:
            self.popen.terminate()
            try:
                self.popen.wait(within_s)
            except subprocess.TimeoutExpired:
                self.kill()
        # What it started itself and did not stop: a wrapper's real program, say.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._file.close()
        return self.popen.returncode


@contextlib.contextmanager
def running(argv: list[str], output: Path, env: dict[str, str] | None = None, root: Path = ROOT) -> Iterator[Process]:
    process = Process(argv, output, env, root)
    try:
        yield process
    finally:
        process.stop()


def wait_until(condition: Callable[[], object], what: str, within_s: float = PATIENCE_S) -> None:
    """Poll a condition until it holds; fail saying what did not come true."""
    ends = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > ends:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        time.sleep(0.02)


def freeze(pid: int, within_s: float = PATIENCE_S) -> None:
    """SIGSTOP, until every thread stands still: one that runs on another processor goes on for a moment. Where the
    system does not tell of threads, that moment is not waited for."""
    os.kill(pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{pid}/task")
    if tasks.is_dir():
        wait_until(lambda: all(_stands_still(task) for task in tasks.iterdir()), "every thread is stopped", within_s)


def _stands_still(task: Path) -> bool:
    try:
        # The state comes behind the name, which is in brackets and may hold anything.
        return (task / "stat").read_text().rpartition(") ")[2][:1] in "TtZX"
    except OSError:
        return True


async def eventually(
    condition: Callable[[], object | Awaitable[object]], what: str, within_s: float = PATIENCE_S
) -> None:
    """`wait_until` for coroutines."""
    ends = time.monotonic() + within_s
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return
        if time.monotonic() > ends:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        await asyncio.sleep(0.02)


def accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.5):
        return True
    return False
