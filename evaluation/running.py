"""A whole Baton for an evaluation: started with its embedded parts in a folder of its own, fed, and taken down."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx

from services.cli.options import is_local

from .replay import CannotAsk

START_S = 180.0
STOP_S = 30.0
INGEST_S = 3_600.0
HTTP_S = 30.0
OWN = (
    "BATON_NATS_URL",
    "BATON_MILVUS_URI",
    "BATON_LEAVE_URL",
    "BATON_GATEWAY_PORT",
    "BATON_METRICS_PORT",
    "BATON_JWT_SECRET",
    "BATON_JWT_JWKS",
)
"""Settings of a shell that do not reach a system started here: they name servers, or users, of another one."""
DEFAULTS = {"BATON_EXTRACTIVE_DELAY_MS": "0", "PYTHONUNBUFFERED": "1"}
"""The extractive generator writes slowly for people to watch; nobody watches here."""
_ADDRESS = re.compile(r"^  page +(http://\S+)", re.M)
_SETTING = re.compile(r"^  settings +(BATON_\w+)=(\S+)", re.M)
_NAME = re.compile(r"BATON_[A-Z0-9_]+")


@dataclass(frozen=True, slots=True)
class Running:
    """A system to ask. `environ` are the settings with which other commands reach it."""

    url: str
    environ: Mapping[str, str]


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Inside of it SIGTERM is a KeyboardInterrupt as SIGINT is, so that what was started here is taken down too; also
    in the background of a shell, where SIGINT is ignored. Only for a process's main thread."""
    usual = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def started(settings: Mapping[str, str]) -> Iterator[Running]:
    """`baton run` on free ports, without documents, until the block ends.

    Raises:
        CannotAsk: it does not start; the text has what it printed last.
    """
    usual = {name: value for name, value in os.environ.items() if name not in OWN}
    environ = {**DEFAULTS, **usual, **settings}
    folder = Path(tempfile.mkdtemp(prefix="baton-eval-"))
    argv = [sys.executable, "-m", "services.cli", "run", "--port", "0", "--no-documents", "--data-dir", str(folder)]
    try:
        with (folder / "run.log").open("wb") as log:
            process = subprocess.Popen(
                argv,
                env=environ,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            printed = _until_up(process, folder / "run.log")
            address = _ADDRESS.search(printed)
            assert address is not None
            place = urlsplit(address[1])
            yield Running(f"ws://{place.netloc}/ws", {**environ, **dict(_SETTING.findall(printed))})
        finally:
            _stop(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def ingest(running: Running, folder: Path) -> None:
    """Bring in all files of a folder, and wait until they are found.

    Raises:
        CannotAsk: it did not work for all of them.
    """
    argv = [sys.executable, "-m", "services.cli", "ingest", str(folder)]
    status, printed = _run(argv, running.environ, INGEST_S)
    if status != 0:
        raise CannotAsk(f"the documents in {folder} could not all be ingested:\n{_tail(printed)}")


def names_of(running: Running) -> dict[str, str]:
    """The name of each document by its id, as the store has it.

    Raises:
        CannotAsk
    """
    status, printed = _run([sys.executable, "-m", "services.cli", "documents", "--json"], running.environ, 120)
    try:
        documents = json.loads(printed.strip().splitlines()[-1]) if status == 0 else []
    except (ValueError, IndexError):
        status = status or 1
    if status != 0:
        raise CannotAsk(f"`baton documents` does not say what there is:\n{_tail(printed)}")
    return _by_id(documents)


def names_at(url: str, token: str) -> dict[str, str]:
    """The name of each document by its id, as a gateway tells them (`GET /documents`).

    Raises:
        CannotAsk
    """
    address = documents_address(url)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        response = httpx.get(address, headers=headers, timeout=HTTP_S, trust_env=not is_local(url))
        response.raise_for_status()
        told = response.json()
        if told.get("truncated"):
            raise ValueError("it has more than it tells")
        return _by_id(told["files"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError, KeyError, TypeError) as error:
        raise CannotAsk(
            f"{address} does not name the documents ({error}); name the folder they came from with --corpus, or "
            "evaluate a system that is started for it"
        ) from None


def documents_address(url: str) -> str:
    """That of the documents, by that of the WebSocket."""
    scheme, netloc, path, _, _ = urlsplit(url)
    return urlunsplit((scheme.replace("ws", "http"), netloc, path.removesuffix("/ws") + "/documents", "", ""))


def parse_settings(text: str) -> dict[str, str]:
    """`BATON_A=1,BATON_B=2`, or a file with `NAME=VALUE` in each line. A comma before no setting belongs to the value.

    Raises:
        CannotAsk: it is neither.
    """
    lines = re.split(r",(?=BATON_[A-Z0-9_]+=)", text)
    if not text.startswith("BATON_"):
        try:
            lines = Path(text).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CannotAsk(f"{text}: no address, no settings such as BATON_TOP_K=8, and no file: {error}") from None
    settings: dict[str, str] = {}
    for line in filter(None, (line.strip().removeprefix("export ") for line in lines)):
        name, equals, value = line.partition("=")
        if line.startswith("#"):
            continue
        if not equals or not _NAME.fullmatch(name.strip()):
            raise CannotAsk(f"{text}: {line!r} is no setting; expected BATON_NAME=VALUE")
        settings[name.strip()] = value.strip().strip("\"'")
    return settings


def _by_id(documents: list[Mapping[str, str]]) -> dict[str, str]:
    return {one["document_id"]: one["name"] for one in documents if one.get("document_id")}


def _until_up(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        printed = log.read_text(encoding="utf-8", errors="replace")
        if re.search(r"^  stop +", printed, re.M):
            return printed
        if process.poll() is not None:
            raise CannotAsk(f"Baton did not start:\n{_tail(printed)}")
        time.sleep(0.1)
    raise CannotAsk(f"Baton was not up within {START_S:g} s:\n{_tail(log.read_text(errors='replace'))}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    finally:  # also what a process that died has left behind, and where somebody cannot wait (a second Ctrl-C)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _run(argv: list[str], environ: Mapping[str, str], within_s: float) -> tuple[int, str]:
    try:
        done = subprocess.run(argv, env=dict(environ), capture_output=True, text=True, timeout=within_s)
    except subprocess.TimeoutExpired:
        return 1, f"not done within {within_s:g} s"
    return done.returncode, done.stdout + (done.stderr if done.returncode else "")


def _tail(printed: str) -> str:
    return "\n".join(f"  {line}" for line in printed.strip().splitlines()[-12:])
