"""The worker under test as a process of ours, where a command for it was given: started, killed, frozen, told to go."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence

from services.cli.supervisor import Command, Supervisor

NAME = "worker"
STOP_S = 30.0
"""Longest drain that is waited for."""


End = tuple[int, list[str]]
"""A process's exit status and last lines."""


class WorkerProcess:
    """One process at a time, in a session of its own, so that signals reach what it starts itself too."""

    def __init__(self, supervisor: Supervisor, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        self._supervisor = supervisor
        self._command = Command(NAME, argv, environ, stop_s=STOP_S)
        self._running: asyncio.Task[End] | None = None

    @property
    def alive(self) -> bool:
        return self._running is not None and not self._running.done()

    def start(self) -> None:
        self._running = asyncio.create_task(self._supervisor.run(self._command), name="worker under test")

    async def ended(self, within_s: float | None = None) -> End | None:
        """How it ended; None where it goes on running for so long."""
        assert self._running is not None
        done, _ = await asyncio.wait([self._running], timeout=within_s)
        return self._running.result() if done else None

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        await self.ended(STOP_S)

    def signal(self, number: signal.Signals) -> None:
        if (pid := self._supervisor.pids().get(NAME)) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)

    async def stop(self) -> None:
        """Let it go, frozen or not."""
        self.signal(signal.SIGCONT)
        await self._supervisor.stop([NAME])
