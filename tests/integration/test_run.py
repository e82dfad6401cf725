"""`baton run` as a process: what it refuses, and that it leaves nothing behind.

These start NATS and a gateway only, for the sake of time.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers.processes import ROOT, wait_until

SMALL = ["--port", "0", "--replicas", "retriever=0,generator=0,tools=0", "--no-documents"]
WITHOUT_MILVUS_AND_ERP = {"BATON_RETRIEVER": "somebodys:own", "BATON_LEAVE_URL": "http://127.0.0.1:1"}


class Run:
    """A `baton run`; `text` is what it has printed so far."""

    def __init__(self, data: Path, *arguments: str, **settings: str) -> None:
        self.output = data.parent / f"output-{len(list(data.parent.glob('output-*')))}"
        environ = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'proto'}", **WITHOUT_MILVUS_AND_ERP}
        with self.output.open("wb") as file:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "services.cli", "run", "--data-dir", str(data), *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**environ, **settings},
            )

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace")  # a character may not be whole yet

    def exit_status(self, within_s: float = 60) -> int:
        return self.popen.wait(within_s)

    def until_up(self) -> str:
        """The address of its page."""
        wait_until(lambda: "Ctrl-C" in self.text or self.popen.poll() is not None, "it is up or has ended", 60)
        found = re.search(r"page +(http://\S+)", self.text)
        assert found, self.text
        return found[1]

    def descendants(self) -> list[int]:
        listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
        return [pid for pid, parent in pairs if parent == self.popen.pid]


@contextmanager
def baton_run(data: Path, *arguments: str, **settings: str) -> Iterator[Run]:
    run = Run(data, *arguments, **settings)
    try:
        yield run
    finally:
        run.popen.kill()
        run.popen.wait(10)


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.fixture
def listener() -> Iterator[int]:
    """A port that somebody holds."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        yield held.getsockname()[1]


def test_it_starts_says_where_and_stops_without_leaving_a_process(tmp_path: Path) -> None:
    with baton_run(tmp_path / "data", *SMALL) as run:
        page = run.until_up()
        children = run.descendants()
        assert len(children) == 2, run.text
        with urllib.request.urlopen(f"{page}/readyz", timeout=10) as answer:
            assert answer.status == 200
        run.popen.send_signal(signal.SIGINT)
        assert run.exit_status() == 0
        assert gone(children)
        assert run.text.endswith("Stopped.\n")
        assert (tmp_path / "data" / "logs" / "gateway.log").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills children with their parent")
def test_kill_9_leaves_no_process_and_the_next_start_works(tmp_path: Path) -> None:
    with baton_run(tmp_path / "data", *SMALL) as run:
        run.until_up()
        children = run.descendants()
        run.popen.kill()
        run.exit_status()
        wait_until(lambda: gone(children), "no process is left")
    with baton_run(tmp_path / "data", *SMALL) as again:
        again.until_up()
        again.popen.terminate()
        assert again.exit_status() == 0


def test_a_second_one_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with baton_run(tmp_path / "data", *SMALL) as first:
        page = first.until_up()
        with baton_run(tmp_path / "data", *SMALL) as second:
            assert second.exit_status() == 1
            assert f"it already runs here as process {first.popen.pid}, at {page}" in second.text
        assert first.popen.poll() is None


def test_a_port_that_was_asked_for_and_is_taken_is_named_with_its_holder(tmp_path: Path, listener: int) -> None:
    with baton_run(tmp_path / "data", "--port", str(listener)) as run:
        assert run.exit_status() == 1
        assert f"port {listener} is taken" in run.text
        assert f"(process {os.getpid()})" in run.text
        assert "Traceback" not in run.text


def test_a_port_from_the_settings_counts_as_asked_for(tmp_path: Path, listener: int) -> None:
    with baton_run(tmp_path / "data", BATON_GATEWAY_PORT=str(listener)) as run:
        assert run.exit_status() == 1
        assert f"port {listener} is taken" in run.text


@pytest.mark.parametrize(
    ("arguments", "settings", "told"),
    [
        (["--replicas", "cook=1"], {}, "'cook' is none of"),
        (["--replicas", "gateway=0"], {}, "at least one gateway"),
        (["--port", "70000"], {}, "from 0 to 65535"),
        ([], {"BATON_LANGAUGE": "zh"}, "did you mean BATON_LANGUAGE?"),
        (["--port", "0"], {"BATON_NATS_URL": "nats://"}, "names no host"),
    ],
)
def test_wrong_arguments_and_settings_are_told_at_once(
    tmp_path: Path, arguments: list[str], settings: dict[str, str], told: str
) -> None:
    with baton_run(tmp_path / "data", *arguments, **settings) as run:
        assert run.exit_status() == 2
        assert told in run.text
        assert "Traceback" not in run.text


def test_a_service_that_cannot_start_ends_it_and_shows_why(tmp_path: Path) -> None:
    replicas = ["--port", "0", "--replicas", "generator=0,tools=0", "--no-documents"]
    with baton_run(tmp_path / "data", *replicas, BATON_RETRIEVER="no_such_module:x") as run:
        assert run.exit_status() == 1
        assert "retriever ended with status 2, so Baton stops" in run.text
        assert "no_such_module" in run.text


def test_an_external_nats_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with baton_run(tmp_path / "data", *SMALL, BATON_NATS_URL="nats://127.0.0.1:1") as run:
        assert run.exit_status() == 1
        assert "NATS at 127.0.0.1:1" in run.text
