"""Real nats-servers with JetStream on free ports: one, or a cluster."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.servers.processes import BIN, Process, accepts, free_port, running, wait_until


@dataclass
class Nats:
    port: int
    process: Process
    websocket_port: int = 0
    """Of its WebSocket listener, where it has one."""

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"


@contextlib.contextmanager
def nats_server(folder: Path, port: int = -1, *, websocket: bool = False) -> Iterator[Nats]:
    """A server that keeps its streams in `folder`; it may be started there again. `websocket`: listen for those too."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.ports"):
        old.unlink()
    argv = [*_argv(folder, port), "--ports_file_dir", str(folder)]
    if websocket:
        (folder / "nats.conf").write_text("websocket { host: 127.0.0.1, port: -1, no_tls: true }\n")
        argv += ["-c", str(folder / "nats.conf")]
    with running(argv, folder / "nats.log") as process:
        wait_until(lambda: _port(folder) or not process.alive, "nats-server has told its port")
        found = _port(folder)
        assert found, process.text()
        wait_until(lambda: accepts(found), "nats-server accepts connections")
        yield Nats(found, process, _port(folder, "websocket") if websocket else 0)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server of its own or of a cluster is: its ports stay when it is started again."""

    name: str
    folder: Path
    port: int
    monitor: int
    route: int = 0

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "nats.log"

    def argv(self, cluster: Sequence[Place] = ()) -> list[str]:
        """How to start it; `cluster` are the places of all servers, where there are several."""
        argv = [*_argv(self.folder, self.port), "-n", self.name, "-m", str(self.monitor)]
        if cluster:
            argv += ["--cluster_name", "baton", "--cluster", f"nats://127.0.0.1:{self.route}"]
            # The others only need to find one that is there; a route to itself is noticed and dropped.
            argv += ["--routes", ",".join(f"nats://127.0.0.1:{one.route}" for one in cluster if one is not self)]
        return argv

    def healthy(self) -> bool:
        """Whether it serves, and all its streams and consumers have caught up with the others'."""
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{self.monitor}/healthz", timeout=2).status_code == 200
        return False


def places(folder: Path, size: int) -> list[Place]:
    """Folders and free ports for so many servers."""
    made = []
    for number in range(size):
        name = f"nats-{number}" if size > 1 else "nats"
        (folder / name).mkdir(parents=True, exist_ok=True)
        made.append(Place(name, folder / name, free_port(), free_port(), free_port()))
    return made


@dataclass
class Cluster:
    """Servers that replicate JetStream among them. Each may be killed and started again."""

    places: list[Place]
    processes: list[Process]

    @property
    def url(self) -> str:
        """For `BATON_NATS_URL`."""
        return ",".join(place.url for place in self.places)

    def start(self, number: int) -> None:
        """Start a server that was killed or stopped, and wait until it has caught up."""
        place = self.places[number]
        self.processes[number].stop()
        self.processes[number] = Process(place.argv(self.places), place.log)
        wait_until(place.healthy, f"{place.name} has caught up", within_s=60)


@contextlib.contextmanager
def nats_cluster(folder: Path, size: int = 3, options: Sequence[str] = ()) -> Iterator[Cluster]:
    """A JetStream cluster with routes between its servers (for `BATON_REPLICAS=3`); `options` are further ones of
    nats-server."""
    where = places(folder, size)
    with contextlib.ExitStack() as stack:
        cluster = Cluster(where, [Process([*place.argv(where), *options], place.log) for place in where])
        stack.callback(lambda: [process.stop() for process in cluster.processes])
        wait_until(lambda: all(place.healthy() for place in where), "the cluster is healthy", within_s=60)
        yield cluster


def _argv(folder: Path, port: int) -> list[str]:
    return [str(BIN / "nats-server"), "-js", "-sd", str(folder / "js"), "-a", "127.0.0.1", "-p", str(port)]


def _port(folder: Path, protocol: str = "nats") -> int:
    """The port that the server has told; 0 while the file is not there or not yet whole."""
    for file in folder.glob("*.ports"):
        try:
            return int(json.loads(file.read_text())[protocol][0].rpartition(":")[2])
        except ValueError:
            return 0
    return 0
