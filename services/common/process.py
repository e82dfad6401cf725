"""What every `__main__` does alike: read settings or say what is wrong, set up telemetry, obey signals."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import make_wsgi_app

from baton_proto.messages import ToolSpec

from . import metrics, streams, tracing
from .bus import Bus
from .config import ALL_SETTINGS, NatsSettings, ProcessSettings, WorkerSettings
from .connection import connect
from .job import Handler
from .lag import PULSE, Pulse
from .logs import set_up_logging
from .presence import Presence, watch
from .settings import SettingsError, describe, load
from .worker import Worker

CLOSING_S = 15.0
"""Most seconds between the end of a drain (BATON_DRAIN_S) and the end of the process: what is not finished is given
back or closed, then connections and implementations close. Whoever sends SIGTERM waits for both together."""


def read_settings(service: str, *groups: type) -> list[Any]:
    """The settings of this process. Prints what is wrong and exits with 2; `--help` prints the settings and exits."""
    wanted = (*groups, ProcessSettings)
    if any(argument in ("-h", "--help") for argument in sys.argv[1:]):
        print(_help(service, wanted))
        raise SystemExit(0)
    try:
        *settings, process = load(wanted, ALL_SETTINGS)
    except SettingsError as error:
        print(f"{service}: the settings are wrong:", *error.problems, sep="\n  ", file=sys.stderr)
        raise SystemExit(2) from None
    set_up_logging(service, process.log, process.log_level)
    tracing.set_up_tracing(service, package_version(), contents=process.trace_contents)
    metrics.BUILD.labels(package_version(), service, process.variant or metrics.NO_VARIANT).set(1)
    return [*settings, process]


def package_version() -> str:
    try:
        return version("baton")
    except PackageNotFoundError:
        return "0+source"


def _help(service: str, groups: Iterable[type]) -> str:
    lines = [f"python -m services.{service}", "", "Settings, from the environment:"]
    for group in groups:
        for info in describe(group):
            default = "" if info.default in ("", (), None) else f" [{info.default}]"
            lines.append(f"  {info.env}{default}\n      {info.help}")
    return "\n".join(lines)


def instance_name(service: str) -> str:
    """A name for this process that no other one has."""
    return f"{service}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def run(main: Awaitable[None]) -> None:
    """Run a service's main coroutine to its end, on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        runner = asyncio.Runner()
    else:
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    try:
        with runner:
            runner.run(_awaiting(main))
    except SettingsError as error:
        # Some settings show their mistakes only when an implementation is opened: a file, a module, a time zone.
        print("the settings are wrong:", *error.problems, sep="\n  ", file=sys.stderr)
        raise SystemExit(2) from None
    finally:
        tracing.shut_down_tracing()


async def _awaiting(main: Awaitable[None]) -> None:
    beating = asyncio.create_task(PULSE.beat(), name="pulse")
    try:
        await main
    finally:
        beating.cancel()


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets. A second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        metrics.DRAINING.set(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop


@dataclass(frozen=True, slots=True)
class Opened:
    """An implementation that is open: its handler, and the tools that it serves at the moment."""

    handler: Handler
    tools: Callable[[], Sequence[ToolSpec]] = tuple


OpenHandler = Callable[[Bus, Presence], contextlib.AbstractAsyncContextManager[Opened]]


async def serve_stage(
    stage: str,
    open_handler: OpenHandler,
    nats: NatsSettings,
    worker: WorkerSettings,
    process: ProcessSettings,
) -> None:
    """The whole life of a worker process: connect, make streams, open the implementation, serve, drain, close."""
    await serve(process, lambda stop, ready: _serve(stage, open_handler, nats, worker, process, stop, ready))


async def serve(
    process: ProcessSettings, serving: Callable[[asyncio.Event, threading.Event], Coroutine[Any, Any, None]]
) -> None:
    """The life of a process that has metrics and obeys signals. `serving` is given the event on which it has to drain
    and end, and the one that it sets when it is ready; before that it is cancelled instead."""
    stop = stop_on_signals()
    ready = threading.Event()
    with metrics_server(process, ready, PULSE):
        try:
            await _until_stopped(stop, ready, serving(stop, ready))
        finally:
            ready.clear()


async def _serve(
    stage: str,
    open_handler: OpenHandler,
    nats: NatsSettings,
    worker: WorkerSettings,
    process: ProcessSettings,
    stop: asyncio.Event,
    ready: threading.Event,
) -> None:
    async with (
        connect(nats, instance_name(stage.split(".")[0])) as bus,
        streams.kept(bus),
        watch(bus) as presence,
        open_handler(bus, presence) as opened,
    ):
        ready.set()
        serving = Worker(bus, stage, opened.handler, worker, opened.tools, process.variant)
        await serving.run(stop, process.drain_s)


async def _until_stopped(stop: asyncio.Event, ready: threading.Event, serving: Awaitable[None]) -> None:
    """Await `serving`. Once ready it drains by itself on `stop`, and is not ready any more; before, while it is still
    waiting for NATS or its implementation, it is cancelled."""
    task = asyncio.ensure_future(serving)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not task.done() and not ready.is_set():
        task.cancel()
    ready.clear()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@contextlib.contextmanager
def metrics_server(process: ProcessSettings, ready: threading.Event, pulse: Pulse) -> Iterator[None]:
    """`/metrics`, `/healthz` and `/readyz` of a worker, from a thread of its own; nothing where the port is 0."""
    if not process.metrics_port:
        yield
        return
    exposition = make_wsgi_app()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return exposition(environ, start_response)  # type: ignore[no-any-return]
        if path not in ("/healthz", "/readyz"):
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"try /metrics, /healthz or /readyz\n"]
        healthy = pulse.there() and (path == "/healthz" or ready.is_set())
        start_response("200 OK" if healthy else "503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"ok\n" if healthy else b"not ready\n" if pulse.there() else b"stuck\n"]

    try:
        server = make_server(process.metrics_host, process.metrics_port, app, handler_class=_QuietHandler)
    except OSError as error:
        print(f"BATON_METRICS_PORT={process.metrics_port}: cannot listen there: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        return


def load_factory(setting: str, value: str, shipped: dict[str, str]) -> Any:
    """What a setting names: one of ours by its short name, or `module:attribute` of anybody's.

    Exits with 2 and a message when it cannot be loaded: it is a mistake in the settings.
    """
    target = shipped.get(value, value)
    module_name, _, attribute = target.partition(":")
    try:
        if not attribute:
            raise ImportError(f"expected one of {', '.join(shipped)}, or module:attribute")
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        print(f"{setting}={value!r}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
