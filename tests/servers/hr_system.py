"""HR systems to test against: the demo's own process, and a server that answers what a test wants."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.servers.local_http import serving
from tests.servers.processes import ROOT


@contextmanager
def demo_erp(*options: str) -> Iterator[str]:
    """The demo's HR system as a process of its own; yields its base URL and checks that it ends cleanly."""
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.hr_assistant.erp", "--port", "0", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.search(r"http://\S+", line)
        assert address is not None, f"the HR system said {line!r}"
        yield address[0]
        process.terminate()
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def broken_hr_system(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server on a free port that leaves each GET to `answer`."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                answer(self)
            except OSError:
                self.close_connection = True  # the client has seen enough

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serving(Answering) as address:
        yield address
