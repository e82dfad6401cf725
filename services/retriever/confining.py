"""What a process gives up for good before it reads strangers' files: the network, other files, other processes.

All of it as far as the system has it, which is told nowhere but in docs/file-kinds.md: Linux with Landlock (5.13, TCP
from 6.7, signals from 6.12 on) and with namespaces that this user may make. Elsewhere nothing happens.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import baton_proto
import services

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_SET_NO_NEW_PRIVS = 38
_CAPABILITIES_3 = 0x20080522
# Landlock: the numbers of its calls are the same on every architecture.
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION, _BENEATH = 1, 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_ACCESS = {1: 0x1FFE, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
"""What is ruled from which version on; running programs is not, for what they may do is ruled."""
_TCP, _SCOPES = 0b11, 0b11
_SYSTEM = ("/usr", "/lib", "/lib64", "/opt")
_SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types")


def confine() -> None:
    """Give up the network and, from now on, all files but Python's own, their writing, and other processes."""
    if sys.platform != "linux":
        return
    system = ctypes.CDLL(None, use_errno=True)
    _leave_network(system)
    system.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    with contextlib.suppress(OSError):
        _rule(system)


def landlock_version() -> int:
    """0 where there is none."""
    return (
        max(0, ctypes.CDLL(None).syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION)) if sys.platform == "linux" else 0
    )


def _leave_network(system: ctypes.CDLL) -> None:
    if os.geteuid() == 0:
        system.unshare(_NEW_NET)
    elif system.unshare(_NEW_USER | _NEW_NET) == 0:
        # Whoever makes a namespace of users is almighty in it, and need not be.
        system.capset(struct.pack("=II", _CAPABILITIES_3, 0), bytes(24))


def _rule(system: ctypes.CDLL) -> None:
    version = landlock_version()
    if not version:
        return
    access = sum(bits for since, bits in _ACCESS.items() if since <= version)
    ruled = struct.pack("=QQQ", access, _TCP, _SCOPES)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    rules = _done(system.syscall(_CREATE, ruled, ctypes.c_size_t(len(ruled)), 0))
    try:
        for path, allowed in _readable():
            with contextlib.suppress(OSError):  # there is no such thing here
                found = os.open(path, os.O_PATH | os.O_CLOEXEC)
                try:
                    _done(system.syscall(_ADD, rules, _BENEATH, struct.pack("=Qi", allowed, found), 0))
                finally:
                    os.close(found)
        _done(system.syscall(_RESTRICT, rules, 0))
    finally:
        os.close(rules)


def _readable() -> Iterator[tuple[str, int]]:
    both = _READ_FILE | _READ_DIR
    for path in (sys.prefix, sys.base_prefix, *_SYSTEM):
        yield path, both
    for package in (services, baton_proto):
        yield from ((path, both) for path in package.__path__)
    for path in sys.path:
        # Python lists the folders that it looks for modules in, the one where the worker was started among them.
        yield path, both if Path(path).name in ("site-packages", "dist-packages") else _READ_DIR
    yield os.getcwd(), _READ_DIR
    for path in _SYSTEM_FILES:
        yield path, _READ_FILE


def _done(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
