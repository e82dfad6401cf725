"""CPU and memory of a system's processes while it is under load (Linux: read from /proc)."""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.usage import cpu_s, rss_bytes

EVERY_S = 1.0
CLIENT, OTHERS = "this test", "other processes"
_PARTS = {
    "services.gateway": "gateway",
    "services.retriever.ingestion": "ingest",
    "services.retriever": "retriever",
    "services.generator": "generator",
    "services.tools": "tools",
    "services.cli.milvus_lite": "milvus",
}
_GONE = (OSError, StopIteration, IndexError, ValueError)


@dataclass
class Usage:
    """Of one service: CPU in cores and memory in bytes, its processes together; `busiest` is the one with most CPU."""

    processes: int = 0
    cores: float = 0.0
    busiest: float = 0.0
    peak_bytes: int = 0


@dataclass
class Watch:
    """Looks at all processes below this one. `begin` and `end` mark the time that counts."""

    _began: dict[int, float] = field(default_factory=dict)
    _began_at: float = 0.0
    _busy: float = 0.0
    _peak: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    usage: dict[str, Usage] = field(default_factory=dict)

    def begin(self) -> None:
        self._began = {pid: used for pid, (_, used, _) in _seen().items()}
        self._began_at, self._busy = time.monotonic(), _busy_s()

    def end(self) -> None:
        took = time.monotonic() - self._began_at
        for pid, (name, used, _) in _seen().items():
            one = self.usage.setdefault(name, Usage())
            cores = (used - self._began.get(pid, 0.0)) / took
            one.processes += 1
            one.cores += cores
            one.busiest = max(one.busiest, cores)
            one.peak_bytes = self._peak[name]
        others = (_busy_s() - self._busy) / took - sum(one.cores for one in self.usage.values())
        self.usage[OTHERS] = Usage(cores=max(0.0, others))

    async def look(self) -> None:
        """Notes the most memory, until it is cancelled."""
        while True:
            now: dict[str, int] = defaultdict(int)
            for name, _, rss in _seen().values():
                now[name] += rss
            for name, rss in now.items():
                self._peak[name] = max(self._peak[name], rss)
            await asyncio.sleep(EVERY_S)


def _seen() -> dict[int, tuple[str, float, int]]:
    """Name, CPU seconds and resident bytes of this process and all below it that are a part of a system."""
    found = {}
    for pid in _family(os.getpid()):
        with suppress(*_GONE):
            if name := CLIENT if pid == os.getpid() else _name(pid):
                found[pid] = (name, cpu_s(pid), rss_bytes(pid))
    return found


def _busy_s() -> float:
    """Seconds of CPU that the whole machine has used."""
    user, nice, system, _idle, _wait, irq, softirq = map(int, Path("/proc/stat").read_text().split(maxsplit=8)[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _family(root: int) -> list[int]:
    children: dict[int, list[int]] = defaultdict(list)
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(*_GONE):
                parent = int(Path(entry.path, "stat").read_text().rpartition(")")[2].split()[1])
                children[parent].append(int(entry.name))
    family = [root]
    for pid in family:
        family += children[pid]
    return family


def _name(pid: int) -> str:
    argv = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    if argv[0].rpartition("/")[2] == "nats-server":
        return "nats-server"
    return _PARTS.get(argv[argv.index("-m") + 1], "") if "-m" in argv else ""
