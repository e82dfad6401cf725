"""A real nats-server with JetStream, on a free port."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.servers.processes import BIN, Process, accepts, running, wait_until


@dataclass
class Nats:
    port: int
    process: Process

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"


@contextlib.contextmanager
def nats_server(folder: Path, port: int = -1) -> Iterator[Nats]:
    """A server that keeps its streams in `folder`; it may be started there again."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.ports"):
        old.unlink()
    argv = [str(BIN / "nats-server"), "-js", "-sd", str(folder / "js"), "-a", "127.0.0.1", "-p", str(port)]
    argv += ["--ports_file_dir", str(folder)]
    with running(argv, folder / "nats.log") as process:
        wait_until(lambda: _port(folder) or not process.alive, "nats-server has told its port")
        found = _port(folder)
        assert found, process.text()
        wait_until(lambda: accepts(found), "nats-server accepts connections")
        yield Nats(found, process)


def _port(folder: Path) -> int:
    """The port that the server has told; 0 while the file is not there or not yet whole."""
    for file in folder.glob("*.ports"):
        try:
            return int(json.loads(file.read_text())["nats"][0].rpartition(":")[2])
        except ValueError:
            return 0
    return 0
