"""Readers that misbehave in the ways that a library may, for the tests of the sandbox."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from services.retriever.bad_document import BadDocument
from services.retriever.extract import Document


def _works(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


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
            while child.pid:
                pass
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            os._exit(3)
        case "bad":
            raise BadDocument("no good, 不行")
        case "print":
            print("noise " * 1000, flush=True)
        case "large file":
            Path("big").write_bytes(b"x" * 2_000_000)
        case "forged":
            return Document(name, "text", "text/plain", "en", True, (0, 5))
        case "spy":
            outside, port = json.loads(data)
            attempts: dict[str, Callable[[], object]] = {
                "the worker's environment": Path(f"/proc/{os.getppid()}/environ").read_bytes,
                "a file": Path(outside).read_bytes,
                "a new file": lambda: Path("new").write_bytes(b"x"),
                "another's file": lambda: Path(outside).write_bytes(b"x"),
                "the network": lambda: socket.create_connection(("127.0.0.1", port), 5).close(),
                "a signal": lambda: os.kill(os.getppid(), 0),
            }
            return Document(
                "seen", json.dumps([what for what, attempt in attempts.items() if _works(attempt)]), "", "en"
            )
        case "environment":
            limits = {kind: resource.getrlimit(getattr(resource, kind))[0] for kind in ("RLIMIT_CORE", "RLIMIT_NOFILE")}
            seen = {"environment": dict(os.environ), "folder": os.listdir(), "pid": os.getpid(), **limits}
            return Document("seen", json.dumps(seen), "text/plain", "en")
    return Document(name, f"{os.getpid()}", "text/plain", "en", True, (0, 1), {"year": 2026, "部门": "hr"})
