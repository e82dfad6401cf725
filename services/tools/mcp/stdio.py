"""An MCP server as a program that is started, spoken to over its stdin and stdout, and ended for sure.

The SDK has such a transport too (`mcp.client.stdio`). This one differs in what a worker needs that runs for months: it
notices the program's end when a child of it keeps the pipes open, it ends the children of a program that has ended by
itself, lines are bounded, and stderr goes to our log.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client._transport import TransportStreams
from mcp.shared.message import SessionMessage
from mcp.types import PARSE_ERROR, ErrorData, JSONRPCError, jsonrpc_message_adapter

from services.common.wording import shorten

from .entry import McpEntry

log = logging.getLogger(__name__)

MAX_LINE_BYTES = 4 * 1024 * 1024
"""One message of a server. A longer one ends the connection."""
MAX_LOGGED_CHARS = 500
MAX_LOGGED_LINES = 100
"""Lines of a server's stderr that are logged in ten seconds."""
_LOG_WINDOW_S = 10.0
_MAX_BAD_LINES = 20
"""Lines on stdout that are no messages and of which a log line is made, per process."""
_EXIT_POLL_S = 0.25
_GROUP_POLL_S = 0.02
_STOP_STEPS = ((None, 1.0), (signal.SIGTERM, 2.0), (signal.SIGKILL, 1.0))
"""What a program gets to make it end, after its stdin is closed, and the seconds that it may then take."""

_ANSWER_BEGINS = re.compile(rb'\s*\{\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*(\d{1,18})\s*,\s*"result"')
_ANSWER_ENDS = re.compile(rb'\}\s*,\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*(\d{1,18})\s*\}\s*$')

_Received = MemoryObjectSendStream[SessionMessage | Exception]
_ToSend = MemoryObjectReceiveStream[SessionMessage]
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@asynccontextmanager
async def started(entry: McpEntry, trouble: Callable[[], None]) -> AsyncIterator[TransportStreams]:
    """The streams to the program of `entry`, which runs until the context ends. `trouble` is called if it ends before.

    Raises OSError when it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *entry.command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(entry.env),
        cwd=entry.cwd,
        limit=MAX_LINE_BYTES,
        # A group of its own: a Ctrl-C in our terminal is for us, and the whole group can be ended.
        start_new_session=True,
        preexec_fn=_end_with(os.getpid()),
    )
    try:
        received, reading = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        writing, to_send = anyio.create_memory_object_stream[SessionMessage](0)
        ended = asyncio.Event()

        def lost() -> None:
            """The session ends, and with it every call that runs."""
            received.close()
            ended.set()
            trouble()

        async with anyio.create_task_group() as group:
            group.start_soon(_read, process, entry.name, received, lost)
            group.start_soon(_write, process, to_send, lost)
            group.start_soon(_log_stderr, process, entry.name)
            group.start_soon(_notice_exit, process, lost)
            try:
                yield reading, writing
            finally:
                by_itself = ended.is_set()
                with anyio.CancelScope(shield=True):
                    reading.close()
                    writing.close()
                    await _stop(process, entry.name)
                group.cancel_scope.cancel()
                if by_itself:
                    log.warning("MCP server %s: its program ended with %s", entry.name, process.returncode)
    finally:
        _signal_group(process.pid, signal.SIGKILL)  # also where the steps above were cut short
        _close_pipes(process)


async def _read(process: asyncio.subprocess.Process, name: str, received: _Received, lost: Callable[[], None]) -> None:
    assert process.stdout
    bad_lines = 0
    try:
        while line := await _line(process.stdout, name):
            try:
                message = jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValueError:
                bad_lines += 1
                if line.strip() and bad_lines <= _MAX_BAD_LINES:
                    text = shorten(line[: 4 * MAX_LOGGED_CHARS].decode("utf-8", "replace"), MAX_LOGGED_CHARS)
                    log.warning("MCP server %s: no message on its stdout: %s", name, text)
                if (unread := _unreadable_answer(line)) is None:
                    continue
                message = unread
            await received.send(SessionMessage(message))
    except (anyio.ClosedResourceError, anyio.BrokenResourceError):
        return  # it is the session that has ended
    lost()


def _unreadable_answer(line: bytes) -> JSONRPCError | None:
    """An error for the request that `line` answers in a way that cannot be read, too deeply nested for example: whoever
    waits for it must not wait for ever."""
    found = _ANSWER_BEGINS.match(line) or _ANSWER_ENDS.search(line[-200:])
    if found is None:
        return None
    error = ErrorData(code=PARSE_ERROR, message="the answer cannot be read")
    return JSONRPCError(jsonrpc="2.0", id=int(found[1]), error=error)


async def _line(stdout: asyncio.StreamReader, name: str) -> bytes:
    """The next line, nothing at the end."""
    try:
        return await stdout.readline()
    except ValueError:
        log.error("MCP server %s: a message of more than %d bytes; the connection is ended", name, MAX_LINE_BYTES)
    except OSError as error:
        log.warning("MCP server %s: its stdout cannot be read: %s", name, error)
    return b""


async def _write(process: asyncio.subprocess.Process, to_send: _ToSend, lost: Callable[[], None]) -> None:
    assert process.stdin
    async with to_send:
        async for message in to_send:
            text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            try:
                process.stdin.write(text.encode() + b"\n")
                await process.stdin.drain()
            except (OSError, RuntimeError):  # RuntimeError: uvloop's closed transport
                lost()
                return


async def _log_stderr(process: asyncio.subprocess.Process, name: str) -> None:
    assert process.stderr
    lines = _BoundedLog(name)
    rest = b""
    while data := await process.stderr.read(16_384):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            lines.log(line)
        if len(rest) > 4 * MAX_LOGGED_CHARS:  # no line at all
            lines.log(rest)
            rest = b""
    lines.log(rest)


class _BoundedLog:
    """At most `MAX_LOGGED_LINES` in ten seconds; what is left out is counted."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._window = 0.0
        self._logged = 0
        self._left_out = 0

    def log(self, line: bytes) -> None:
        text = shorten(line[: 4 * MAX_LOGGED_CHARS].decode("utf-8", "replace"), MAX_LOGGED_CHARS)
        if not text:
            return
        now = time.monotonic()
        if now - self._window > _LOG_WINDOW_S:
            if self._left_out:
                log.info("MCP server %s: %d lines of its stderr are left out", self._name, self._left_out)
            self._window, self._logged, self._left_out = now, 0, 0
        if self._logged < MAX_LOGGED_LINES:
            self._logged += 1
            log.info("MCP server %s: %s", self._name, "".join(char if char.isprintable() else "?" for char in text))
        else:
            self._left_out += 1


async def _notice_exit(process: asyncio.subprocess.Process, lost: Callable[[], None]) -> None:
    # Not `process.wait()`: that also waits for the pipes, which a child of the program may hold open for ever.
    while process.returncode is None:  # noqa: ASYNC110 - nothing tells
        await anyio.sleep(_EXIT_POLL_S)
    lost()


async def _stop(process: asyncio.subprocess.Process, name: str) -> None:
    """End the program and what it started: by itself, then by SIGTERM, then by SIGKILL."""
    assert process.stdin
    with suppress(OSError, RuntimeError):
        process.stdin.close()
    for number, within_s in _STOP_STEPS:
        if number is not None:
            _signal_group(process.pid, number)
        if await _gone(process, within_s):
            return
    log.error("MCP server %s: its process %d cannot be ended", name, process.pid)


async def _gone(process: asyncio.subprocess.Process, within_s: float) -> bool:
    until = time.monotonic() + within_s
    while process.returncode is None or _signal_group(process.pid, 0):
        if time.monotonic() > until:
            return False
        await anyio.sleep(_GROUP_POLL_S)
    return True


def _signal_group(group: int, number: int) -> bool:
    """Whether anybody is left in the group. The leader's pid is the group's number, also after the leader has ended."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _close_pipes(process: asyncio.subprocess.Process) -> None:
    # Nothing public closes them, and a program that has left its group may hold their other ends for ever.
    transport = getattr(process, "_transport", None)
    if transport is not None:
        with suppress(OSError):
            transport.close()


def _end_with(parent: int) -> Callable[[], None] | None:
    """What a new process does first, on Linux: ask to be killed when we are, so that not even SIGKILL leaves it behind.
    Its own children are not included: they see their stdin end, as it does."""
    libc = _libc
    if libc is None:
        return None

    def in_the_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it happened before
            os._exit(1)

    return in_the_child
