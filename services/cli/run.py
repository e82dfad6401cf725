"""`baton run`: the whole system on this machine, with an embedded NATS and Milvus and the demo's documents."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEFAULT_PORT = 8000
PORTS_TO_TRY = 100


class CannotRun(Exception):
    """Something stands in the way of a start; the text says what."""


def register(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "run",
        help="start everything on this machine",
        description="Starts NATS, Milvus Lite, the HR demo, a retriever, a generator, a tools worker, an ingest worker "
        "and a gateway, and brings in the demo's documents. Ctrl-C stops all of it. BATON_* settings are passed on; a "
        "NATS or Milvus that they name is used instead of starting one.",
    )
    parser.add_argument(
        "--port", type=int, help=f"port of the page; 0 = any free one (default: {DEFAULT_PORT} or the next free one)"
    )
    parser.add_argument(
        "--replicas",
        default="",
        metavar="SERVICE=N,…",
        help="processes of a service, as in retriever=3,generator=3,tools=3,ingest=2,gateway=2 (default: one of each)",
    )
    parser.add_argument("--no-documents", action="store_true", help="do not ingest the demo's documents")
    parser.add_argument("--data-dir", type=Path, help="where data and logs are kept (default: .baton in the checkout)")
    parser.add_argument("--verbose", action="store_true", help="show all that the services log, not only warnings")
    parser.set_defaults(func=main)


def main(arguments: argparse.Namespace) -> int:
    """0 after an orderly stop, 1 when something did not start or stay alive, 2 for wrong arguments or settings."""
    import asyncio

    from services.common.config import ALL_SETTINGS
    from services.common.settings import SettingsError, load

    from .plan import ROOT, BadReplicas, make_plan, parse_replicas
    from .ports import free_ports
    from .system import run_system

    data = (arguments.data_dir or ROOT / ".baton").absolute()
    try:
        load(ALL_SETTINGS, ALL_SETTINGS)
        replicas = parse_replicas(arguments.replicas)
        ports, notes = gateway_ports(arguments.port, os.environ, replicas["gateway"])
        # With --port 0 nobody counts on the usual internal ports either: several systems can start at once.
        plan = make_plan(
            os.environ,
            data,
            replicas,
            ports,
            lambda count, preferred: free_ports(count, () if arguments.port == 0 else preferred),
        )
    except SettingsError as error:
        return _refuse("the settings are wrong:", *error.problems)
    except (BadReplicas, ValueError) as error:
        return _refuse(str(error))
    except CannotRun as error:
        print(f"baton run: {error}", file=sys.stderr)
        return 1
    try:
        with only_one(data, ports[0]):
            return asyncio.run(run_system(plan, data, not arguments.no_documents, arguments.verbose, notes))
    except CannotRun as error:
        print(f"baton run: {error}", file=sys.stderr)
        return 1


def _refuse(first: str, *problems: str) -> int:
    print(f"baton run: {first}", *problems, sep="\n  ", file=sys.stderr)
    return 2


def gateway_ports(wanted: int | None, environ: Any, count: int) -> tuple[list[int], list[str]]:
    """A port for every gateway, and what a person should be told about the choice.

    A port that was asked for (`--port`, BATON_GATEWAY_PORT) is taken or refused; the usual one gives way.

    Raises:
        CannotRun: the port is taken.
    """
    from .ports import free_ports, holder_of, is_free, next_free

    host = environ.get("BATON_GATEWAY_HOST") or "127.0.0.1"
    if wanted is None and environ.get("BATON_GATEWAY_PORT"):
        wanted = int(environ["BATON_GATEWAY_PORT"])
    if wanted is not None and not 0 <= wanted <= 65_535:
        raise ValueError(f"--port {wanted}: a port is a number from 0 to 65535")
    if wanted == 0:
        return free_ports(count), []
    if wanted is not None and not is_free(wanted, host):
        raise CannotRun(_taken(wanted, holder_of(wanted)))
    first = wanted or DEFAULT_PORT
    found: list[int] = []
    for _ in range(count):
        port = next_free(first, PORTS_TO_TRY, host, found)
        if port is None:
            raise CannotRun(f"no free port from {first} to {first + PORTS_TO_TRY - 1}")
        found.append(port)
    notes = []
    if found[0] != first:
        holder = holder_of(first)
        notes.append(f"Port {first} is taken{f' by {holder}' if holder else ''}; using {found[0]}.")
    return found, notes


def _taken(port: int, holder: str | None) -> str:
    by = f" by {holder}" if holder else ""
    return f"port {port} is taken{by}. Stop that, or choose another port: make run PORT={port + 1}"


@contextlib.contextmanager
def only_one(data: Path, port: int) -> Iterator[None]:
    """Holds the lock of a data folder: two systems on one would spoil it. The kernel lets go of it with the process.

    Raises:
        CannotRun: another process holds it, or the folder cannot be written.
    """
    path = data / "lock"
    try:
        data.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise CannotRun(f"cannot write to {data}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotRun(_running(file)) from None
        file.truncate(0)
        json.dump({"pid": os.getpid(), "url": f"http://127.0.0.1:{port}"}, file)
        file.flush()
        yield


def _running(file: Any) -> str:
    file.seek(0)
    try:
        owner = json.load(file)
        where = f" as process {owner['pid']}, at {owner['url']}"
    except (ValueError, KeyError, TypeError):
        where = ""
    return f"it already runs here{where}. Stop it there with Ctrl-C, or give this one another --data-dir."
