"""Readers that misbehave in the ways that a library may, for the tests of the sandbox."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from services.retriever.bad_document import BadDocument
from services.retriever.extract import Document

ANSWERS = 3
"""Where the child has its answers: the first file that it opened."""


def misbehave(name: str, data: bytes) -> Document:
    match name:
        case "memory":
            hoard = [b"x" * 1_000_000]
            while True:
                hoard.append(bytes(hoard[-1]) + b"x")
        case "loop":
            while True:
                pass
        case "family":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            Path(data.decode()).write_text(f"{os.getpid()} {child.pid}")
            while True:
                pass
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            os._exit(3)
        case "bad":
            raise BadDocument("no good, 不行")
        case "print":
            print("noise " * 1000, flush=True)
        case "forge":
            # As a file would that has taken the process over: past the protocol's own code.
            os.write(ANSWERS, b"d" + len(data).to_bytes(8, "big") + data)
            time.sleep(60)
        case "large file":
            Path("big").write_bytes(b"x" * 2_000_000)
        case "environment":
            limits = {kind: resource.getrlimit(getattr(resource, kind))[0] for kind in ("RLIMIT_CORE", "RLIMIT_NOFILE")}
            seen = {"environment": dict(os.environ), "folder": os.listdir(), "pid": os.getpid(), **limits}
            return Document("seen", json.dumps(seen), "text/plain", "en")
    return Document(name, f"{os.getpid()}", "text/plain", "en", True, (0, 5), {"year": 2026, "部门": "hr"})
