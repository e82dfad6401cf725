"""The child of the sandbox: reads one file after the other, with bounded memory and nothing to steal.

Run by `services.retriever.sandbox`, never by hand: `python -m services.retriever.sandbox_child PARENT MEMORY READER`.
On its pipes, lengths are 8 bytes, big-endian. In: the name, then the file, each after its length. Out: `READY` once,
then for each file a byte that says how it went, the length, and a Document in msgpack or a reason in UTF-8.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import BinaryIO

import msgspec

from .bad_document import BadDocument
from .confining import confine

READY, READ, BAD, MEMORY = b"r", b"d", b"b", b"m"
LENGTH_BYTES = 8
MAX_OPEN_FILES = 64
MAX_FILE_SIZE = 1024 * 1024
_PR_SET_PDEATHSIG = 1


def main(parent: int, memory_bytes: int, reader: str) -> None:
    die_with(parent)
    # What a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    module, _, name = reader.partition(":")
    read = getattr(importlib.import_module(module), name)
    limit(memory_bytes)
    confine()
    die_with(parent)  # again, for a change of rights may end it
    answers.write(READY)
    answers.flush()
    serve(sys.stdin.buffer, answers, read)


def serve(requests: BinaryIO, answers: BinaryIO, read: Callable[[str, bytes], object]) -> None:
    """Answers until the parent closes its end, or memory was lacking: nobody knows what that has left behind."""
    while name := _part(requests):
        data = _part(requests)
        try:
            status, answer = READ, msgspec.msgpack.encode(read(name.decode(), data))
        except BadDocument as error:
            status, answer = BAD, str(error).encode("utf-8", "replace")
        except MemoryError:
            status, answer = MEMORY, b""
        answers.write(status + len(answer).to_bytes(LENGTH_BYTES, "big") + answer)
        answers.flush()
        if status == MEMORY:
            return


def limit(memory_bytes: int) -> None:
    """Bounds what this process may take from now on, beyond what it has."""
    wanted = {
        resource.RLIMIT_AS: _address_space() + memory_bytes,
        resource.RLIMIT_FSIZE: MAX_FILE_SIZE,
        resource.RLIMIT_NOFILE: MAX_OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in wanted.items():
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS knows no RLIMIT_AS
            resource.setrlimit(kind, (most, most))


def die_with(parent: int) -> None:
    """Ends this process when its parent ends, however that does; where there is no such call, its pipe closes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def _address_space() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 256 * 1024 * 1024


def _part(requests: BinaryIO) -> bytes:
    length = requests.read(LENGTH_BYTES)
    return requests.read(int.from_bytes(length, "big")) if len(length) == LENGTH_BYTES else b""


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
