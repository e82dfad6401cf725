"""The `baton` command as a process of its own, as an operator runs it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import sys

from tests.servers.processes import ROOT

TIMEOUT_S = 60.0


def environment(**settings: str) -> dict[str, str]:
    paths = f"{ROOT}{os.pathsep}{ROOT / 'proto'}"
    return {**os.environ, "PYTHONPATH": paths, "PYTHONIOENCODING": "utf-8", **settings}


async def start_baton(*arguments: str, **settings: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=environment(**settings),
    )


async def finish(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    """Exit status, standard output, standard error; never a traceback."""
    async with asyncio.timeout(TIMEOUT_S):
        out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def baton(*arguments: str, **settings: str) -> tuple[int, str, str]:
    return await finish(await start_baton(*arguments, **settings))


async def in_terminal(*arguments: str) -> str:
    """All that it writes to a terminal of 100 columns, control sequences included; it must exit with 0."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", *arguments),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env=environment(TERM="xterm", COLUMNS="100", NO_COLOR=""),
    )
    os.close(theirs)
    reading = asyncio.create_task(asyncio.to_thread(_read_all, ours))
    async with asyncio.timeout(TIMEOUT_S):
        assert await process.wait() == 0
    screen = await reading
    os.close(ours)
    return screen


def _read_all(descriptor: int) -> str:
    data = b""
    with contextlib.suppress(OSError):  # EIO: the other end has closed
        while part := os.read(descriptor, 65_536):
            data += part
    return data.decode()
