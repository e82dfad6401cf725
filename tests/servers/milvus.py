"""A real Milvus Lite server as `baton run` starts it, on a free port."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.cli.plan import MILVUS_LITE
from tests.servers.processes import Process, accepts, free_port, running, wait_until


@dataclass
class Milvus:
    port: int
    process: Process

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def milvus_lite(folder: Path, port: int = 0) -> Iterator[Milvus]:
    """A server that keeps its data in `folder`; it may be started there again, also on the same port."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    argv = [sys.executable, "-m", MILVUS_LITE, "server", "--data-dir", str(folder / "data"), "--host", "127.0.0.1"]
    with running([*argv, "--port", str(port)], folder / "milvus.log") as process:
        wait_until(lambda: accepts(port) or not process.alive, "Milvus Lite accepts connections", within_s=60)
        assert process.alive, process.text()
        yield Milvus(port, process)
