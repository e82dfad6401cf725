"""Finding free ports, and who holds one that is not."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

LISTEN_STATE = "0A"  # TCP_LISTEN in /proc/net/tcp (proc(5))


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose old connections linger is free, one with a listener is not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_ports(count: int, preferred: Sequence[int] = ()) -> list[int]:
    """`count` different free ports on loopback: those of `preferred` that are free, then any, which the system gives to
    nobody else for a minute."""
    found = [port for port in preferred if is_free(port)][:count]
    while len(found) < count:
        found.append(_reserved())  # one that is reserved does not come twice
    return found


def _reserved() -> int:
    """A free port with an old connection that lingers (TIME_WAIT): whoever wants just any port is not given it, and
    whoever names it may listen there, if he does as servers do (SO_REUSEADDR)."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        with socket.create_connection(listener.getsockname()) as there:
            listener.accept()[0].close()  # who closes first has the connection that lingers
            there.recv(1)
        return int(listener.getsockname()[1])


def next_free(port: int, tries: int, host: str = "127.0.0.1", taken: Sequence[int] = ()) -> int | None:
    """The first free port from `port` on."""
    candidates = range(port, min(port + tries, 65_536))
    return next((each for each in candidates if each not in taken and is_free(each, host)), None)


def holder_of(port: int) -> str | None:
    """The process that listens on `port`, as `name (process 123)`, where the system lets us see it (Linux)."""
    inodes = _listening_inodes(port)
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        try:
            links = {os.readlink(entry) for entry in (process / "fd").iterdir()}
            if links & inodes:
                return f"{_name(process)} (process {process.name})"
        except OSError:
            continue  # it has ended, or is somebody else's
    return None


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in (line.split() for line in lines):
            if fields[3] == LISTEN_STATE and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found


def _name(process: Path) -> str:
    words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    return " ".join(word for word in words if word)[:80] or (process / "comm").read_text().strip()
