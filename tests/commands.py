"""The `baton` command as a process of its own, as an operator runs it."""

from __future__ import annotations

import asyncio
import os
import sys

from tests.servers.processes import ROOT

TIMEOUT_S = 30.0


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
