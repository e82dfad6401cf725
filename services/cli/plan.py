"""Which processes `baton run` starts, with which settings: worked out before anything starts, without I/O."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from services.retriever.stores.opening import STORES

from .supervisor import Command

ROOT = Path(__file__).resolve().parents[2]
ERP_MODULE = "examples.hr_assistant.erp"
MILVUS_LITE = "services.cli.milvus_lite"
DOCUMENTS = ROOT / "examples" / "hr_assistant" / "documents"
WORKERS = ("retriever", "generator", "tools", "ingest")
MODULES = {"ingest": "services.retriever.ingestion"}
"""Where a service's module is not called as the service."""
SERVICES = (*WORKERS, "gateway")
MAX_REPLICAS = 32
DRAIN_S = 2.5
"""Below `stop_s` of the services' commands, so that a drain ends before patience does."""

NATS_PORT = 4222
MILVUS_PORT = 19530


class BadReplicas(ValueError):
    """`--replicas` cannot be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Part:
    """A process and where it answers. `kind` is nats, milvus, erp or a service's name."""

    kind: str
    command: Command
    port: int


@dataclass(frozen=True, slots=True)
class Plan:
    """`parts` are what we start, in the order of starting; `environ` is what every process gets and other commands
    need to talk to this system. `nats` and `milvus` are (host, port) of somebody else's, where a setting names one."""

    parts: Sequence[Part]
    environ: Mapping[str, str]
    nats: tuple[str, int]
    milvus: tuple[str, int] | None
    gateway_ports: Sequence[int] = field(default=())

    def of(self, *kinds: str) -> list[Part]:
        return [part for part in self.parts if part.kind in kinds]


def parse_replicas(text: str) -> dict[str, int]:
    """`retriever=3,gateway=2` as a number for every service; 1 where none is named.

    Raises:
        BadReplicas: an unknown service or a bad number.
    """
    replicas = dict.fromkeys(SERVICES, 1)
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = part.partition("=")
        if name not in replicas:
            raise BadReplicas(f"{name!r} is none of {', '.join(SERVICES)}")
        if not number.isdecimal() or not 0 <= int(number) <= MAX_REPLICAS:
            raise BadReplicas(f"{part!r}: the number must be from 0 to {MAX_REPLICAS}")
        replicas[name] = int(number)
    if replicas["gateway"] == 0:
        raise BadReplicas("at least one gateway is needed")
    return replicas


def host_and_port(url: str, default_port: int) -> tuple[str, int]:
    """Where the first server of a setting such as `nats://a:4222,nats://b:4222` listens.

    Raises:
        ValueError: it is no URL with a host.
    """
    first = url.split(",")[0].strip()
    parts = urlsplit(first if "://" in first else f"tcp://{first}")
    if not parts.hostname:
        raise ValueError(f"{url!r} names no host")
    return parts.hostname, parts.port or default_port


TakePorts = Callable[[int, Sequence[int]], Sequence[int]]
"""Finds `count` free ports, if it can those that are preferred: `take_ports(count, preferred)`."""


def make_plan(
    environ: Mapping[str, str],
    data: Path,
    replicas: Mapping[str, int],
    gateway_ports: Sequence[int],
    take_ports: TakePorts,
) -> Plan:
    """The plan for this environment.

    A NATS, a Milvus or an HR system that the environment names is used instead of starting one.

    Raises:
        ValueError: a setting names no host.
    """
    env = {**environ, "PYTHONUNBUFFERED": "1"}
    env.setdefault("BATON_DRAIN_S", str(DRAIN_S))
    parts: list[Part] = []
    nats = _nats(env, data, take_ports, parts)
    milvus = _milvus(env, data, take_ports, parts)
    if not env.get("BATON_LEAVE_URL"):
        (port,) = take_ports(1, ())
        env["BATON_LEAVE_URL"] = f"http://127.0.0.1:{port}"
        argv = [sys.executable, "-m", ERP_MODULE, "--port", str(port)]
        parts.append(Part("erp", Command("erp", argv, dict(env), stop_s=1.5), port))
    # Somebody's own retriever has a store that nobody knows how to write to.
    ingested = env.get("BATON_RETRIEVER", "milvus") in STORES
    counts = {worker: replicas[worker] if ingested or worker != "ingest" else 0 for worker in WORKERS}
    metrics = list(take_ports(sum(counts.values()), ()))
    for worker, of in counts.items():
        parts.extend(_service(worker, n, of, env, "BATON_METRICS_PORT", metrics.pop()) for n in range(of))
    of = len(gateway_ports)
    parts.extend(_service("gateway", n, of, env, "BATON_GATEWAY_PORT", port) for n, port in enumerate(gateway_ports))
    return Plan(parts, env, nats, milvus, gateway_ports)


def _nats(env: dict[str, str], data: Path, take_ports: TakePorts, parts: list[Part]) -> tuple[str, int]:
    if url := env.get("BATON_NATS_URL"):
        return host_and_port(url, NATS_PORT)
    (port,) = take_ports(1, (NATS_PORT,))
    env["BATON_NATS_URL"] = f"nats://127.0.0.1:{port}"
    parts.append(Part("nats", nats_command(data / "nats", port, env), port))
    return "127.0.0.1", port


def nats_command(data: Path, port: int, env: Mapping[str, str]) -> Command:
    """A nats-server on loopback that keeps its streams in `data`."""
    argv = [_beside_python("nats-server"), "--addr", "127.0.0.1", "--port", str(port)]
    return Command("nats", [*argv, "--jetstream", "--store_dir", str(data)], dict(env), stop_s=1.5)


def _milvus(env: dict[str, str], data: Path, take_ports: TakePorts, parts: list[Part]) -> tuple[str, int] | None:
    if env.get("BATON_RETRIEVER") == "local":
        env.setdefault("BATON_STORE_DIR", str(data / "store"))
    if env.get("BATON_RETRIEVER", "milvus") != "milvus":
        return None  # somebody's own retriever: what it searches is its own affair
    if uri := env.get("BATON_MILVUS_URI"):
        return host_and_port(uri, MILVUS_PORT)
    (port,) = take_ports(1, (MILVUS_PORT,))
    env["BATON_MILVUS_URI"] = f"http://127.0.0.1:{port}"
    argv = [sys.executable, "-m", MILVUS_LITE, "server", "--data-dir", str(data / "milvus")]
    argv += ["--host", "127.0.0.1", "--port", str(port)]
    # It closes its files on SIGINT only; SIGTERM ends it on the spot.
    command = Command("milvus", argv, dict(env), stop_s=1.5, stop_signal=signal.SIGINT)
    parts.append(Part("milvus", command, port))
    return "127.0.0.1", port


def _service(kind: str, n: int, of: int, env: Mapping[str, str], port_setting: str, port: int) -> Part:
    name = kind if of == 1 else f"{kind}-{n + 1}"
    argv = [sys.executable, "-m", MODULES.get(kind, f"services.{kind}")]
    return Part(kind, Command(name, argv, {**env, port_setting: str(port)}, stop_s=3.0), port)


def _beside_python(program: str) -> str:
    """A program of the same environment as this Python, also where its folder is not on the PATH."""
    return str(Path(sys.executable).with_name(program))
