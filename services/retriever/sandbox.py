"""Strangers' files are read in child processes, so that the worst file costs one child and not the worker.

A child is bounded in memory and time, has none of the worker's environment, and is kept for the next file; a new one
takes its place when it dies, takes too long or has read many files.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from services.common.config import IngestSettings
from services.common.errors import ServiceError

from .bad_document import BadDocument
from .extract import Document
from .reading.content import MAX_PAGES, MAX_TEXT_CHARS
from .sandbox_child import BAD, LENGTH_BYTES, MEMORY, READ, READY

Reader = Callable[[str, bytes], Awaitable[Document]]
FILES_PER_CHILD = 300
START_TIMEOUT_S = 60.0
MAX_ANSWER_BYTES = 128 * 1024 * 1024
_EXTRACT = "services.retriever.extract:extract"
_KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "SYSTEMROOT", "LD_LIBRARY_PATH", "PYTHONHOME", "VIRTUAL_ENV")


@asynccontextmanager
async def open_sandbox(settings: IngestSettings, reader: str = _EXTRACT) -> AsyncIterator[Reader]:
    """A reader of files that nothing in a file can harm. As many files at once as `settings.concurrency`; more wait.

    Args:
        reader: `module:function` that reads a file in the child; it has the signature of `extract`.

    What is yielded raises:
        BadDocument: the file cannot be read, or reading it took too long or too much memory, or killed the child.
        ServiceError: no child could be started.
    """
    with tempfile.TemporaryDirectory(prefix="baton-parse-") as folder:
        sandbox = _Sandbox(settings, reader, folder)
        try:
            yield sandbox.read
        finally:
            await sandbox.close()


@dataclass(slots=True, eq=False)
class _Child:
    process: asyncio.subprocess.Process
    files: int = 0

    def alive(self) -> bool:
        return self.process.returncode is None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


@dataclass(slots=True)
class _Sandbox:
    settings: IngestSettings
    reader: str
    folder: str
    _idle: list[_Child] = field(default_factory=list)
    _all: set[_Child] = field(default_factory=set)
    _room: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._room = asyncio.Semaphore(self.settings.concurrency)

    async def read(self, name: str, data: bytes) -> Document:
        async with self._room:
            child = await self._child()
            try:
                async with asyncio.timeout(self.settings.parse_timeout_s):
                    document = await self._ask(child, name, data)
            except BadDocument:
                self._keep(child)
                raise
            except TimeoutError:
                self._drop(child)
                raise BadDocument(
                    f"reading it took more than {self.settings.parse_timeout_s:g} s (BATON_PARSE_TIMEOUT_S)"
                ) from None
            except _ChildDied as died:
                self._drop(child)
                raise BadDocument(str(died)) from None
            except BaseException:
                self._drop(child)
                raise
            self._keep(child)
            return document

    async def close(self) -> None:
        for child in self._all:
            child.kill()
        for child in self._all:
            await child.process.wait()

    async def _child(self) -> _Child:
        while self._idle:
            child = self._idle.pop()
            if child.alive():
                return child
            self._drop(child)
        return await self._start()

    def _keep(self, child: _Child) -> None:
        child.files += 1
        if child.files < FILES_PER_CHILD and child.alive():
            self._idle.append(child)
        else:
            self._drop(child)

    def _drop(self, child: _Child) -> None:
        child.kill()
        # One that was killed is gone when the next one is dropped; close() waits for the rest.
        self._all = {other for other in self._all if other.alive()}

    async def _start(self) -> _Child:
        memory = self.settings.parse_memory_mb * 1024 * 1024
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "services.retriever.sandbox_child", str(os.getpid()), str(memory)),
            self.reader,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=_environment(self.folder),
            cwd=self.folder,
            start_new_session=True,
        )
        child = _Child(process)
        self._all.add(child)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                ready = await _output(child).read(1)
        except TimeoutError:
            ready = b""
        except BaseException:
            self._drop(child)
            raise
        if ready != READY:
            self._drop(child)
            raise ServiceError("internal", "The process that reads files could not be started", retryable=True)
        return child

    async def _ask(self, child: _Child, name: str, data: bytes) -> Document:
        assert child.process.stdin is not None
        try:
            for part in (name.encode("utf-8", "replace") or b"?", data):
                child.process.stdin.write(len(part).to_bytes(LENGTH_BYTES, "big"))
                child.process.stdin.write(part)
            await child.process.stdin.drain()
            output = _output(child)
            status = await output.readexactly(1)
            length = int.from_bytes(await output.readexactly(LENGTH_BYTES), "big")
            if length > MAX_ANSWER_BYTES:
                raise _ChildDied("its text is too long; split it")
            answer = await output.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            child.kill()  # it has closed its end, and may not have ended yet
            raise _ChildDied(_reason(await child.process.wait())) from None
        if status == READ:
            return _checked(answer)
        if status == BAD:
            raise BadDocument(answer.decode("utf-8", "replace"))
        if status == MEMORY:
            most = self.settings.parse_memory_mb
            raise _ChildDied(f"reading it took more than {most:,} MB of memory (BATON_PARSE_MEMORY_MB)")
        raise _ChildDied("the reader crashed")


def _checked(answer: bytes) -> Document:
    """What a child has answered. One that a file has taken over may answer anything."""
    try:
        document = msgspec.msgpack.decode(answer, type=Document)
        document.text.encode()
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise _ChildDied("the reader crashed") from None
    starts = document.pages
    if (
        len(document.text) > MAX_TEXT_CHARS
        or len(starts) > MAX_PAGES
        or (starts and starts[0] != 0)
        or any(before > after for before, after in itertools.pairwise([*starts, len(document.text)]))
    ):
        raise _ChildDied("the reader crashed")
    return document


class _ChildDied(Exception):
    """The child is of no use any more; the text is the reason for whoever brought the file."""


def _output(child: _Child) -> asyncio.StreamReader:
    assert child.process.stdout is not None
    return child.process.stdout


def _reason(code: int) -> str:
    if code >= 0 or -code == signal.SIGKILL:
        return "the reader crashed"
    perhaps = ", perhaps for want of memory: BATON_PARSE_MEMORY_MB" if -code == signal.SIGABRT else ""
    return f"the reader crashed ({signal.Signals(-code).name}{perhaps})"


def _environment(folder: str) -> dict[str, str]:
    """What Python needs and nothing else: no keys, no addresses of servers."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return {**kept, "PYTHONPATH": path, "TMPDIR": folder, "HOME": folder, "PYTHONDONTWRITEBYTECODE": "1"}
