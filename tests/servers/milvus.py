"""A real Milvus Lite server, on a free port."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.servers.processes import BIN, Process, accepts, free_port, running, wait_until


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
    argv = [str(BIN / "milvus-lite"), "server", "--data-dir", str(folder / "data"), "--host", "127.0.0.1"]
    with running([*argv, "--port", str(port)], folder / "milvus.log") as process:
        wait_until(lambda: accepts(port) or not process.alive, "Milvus Lite accepts connections", within_s=60)
        assert process.alive, process.text()
        yield Milvus(port, process)
