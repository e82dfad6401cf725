"""MCP servers for tests: two that others wrote, and the means to look at what is said to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.servers.llm import node
from tests.servers.processes import ROOT, Process, accepts, free_port, running, wait_until

_EVERYTHING = ROOT / "tests/node/node_modules/@modelcontextprotocol/server-everything/dist/index.js"
EVERYTHING_STDIO = [*node(), str(_EVERYTHING), "stdio"]
"""The npm package `@modelcontextprotocol/server-everything` as a program."""
TIME_STDIO = [sys.executable, "-m", "mcp_server_time", "--local-timezone", "Asia/Shanghai"]
"""The package index's `mcp-server-time`."""


def by_hand(log: Path, *options: str) -> list[str]:
    return [sys.executable, "-I", str(ROOT / "tests/servers/mcp_by_hand.py"), str(log), *options]


def modern(log: Path, *port: str) -> list[str]:
    return [sys.executable, "-I", str(ROOT / "tests/servers/mcp_modern.py"), str(log), *port]


def messages(log: Path) -> list[dict[str, Any]]:
    """What a server by hand was sent; a last line that is still being written is left out."""
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


@dataclass
class Everything:
    """The same server over streamable HTTP. It binds all interfaces, whatever it is told."""

    port: int
    process: Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"


@contextlib.contextmanager
def everything_http(folder: Path, port: int | None = None) -> Iterator[Everything]:
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    argv = [*node(), str(_EVERYTHING), "streamableHttp"]
    with http_server(argv, port, folder / "everything.log") as process:
        yield Everything(port, process)


@contextlib.contextmanager
def http_server(argv: list[str], port: int, output: Path) -> Iterator[Process]:
    with running(argv, output, {"PORT": str(port)}) as process:
        wait_until(lambda: accepts(port) or not process.alive, "the MCP server accepts connections")
        assert process.alive, process.text()
        yield process


@dataclass
class Tap:
    """What went through: `sent` to the server, by connection, and `answered` by it."""

    port: int = 0
    sent: list[bytearray] = field(default_factory=list)
    answered: bytearray = field(default_factory=bytearray)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def posts(self, method: str) -> list[dict[str, Any]]:
        """The JSON-RPC messages of a method that were sent."""
        found = [json.loads(body) for connection in self.sent for body in _bodies(bytes(connection))]
        return [message for message in found if message.get("method") == method]


def _bodies(sent: bytes) -> Iterator[bytes]:
    """The bodies of the HTTP requests in `sent`."""
    while sent:
        head, _, sent = sent.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        size = int(length[1]) if length else 0
        if size and len(sent) >= size:
            yield sent[:size]
        sent = sent[size:]


@contextlib.asynccontextmanager
async def tap(port: int) -> AsyncIterator[Tap]:
    """A TCP connection to a server on this machine that is listened in on."""
    one = Tap()
    writers: set[asyncio.StreamWriter] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                kept += data
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        writers.add(back)
        one.sent.append(bytearray())
        await asyncio.gather(copy(reader, back, one.sent[-1]), copy(there, writer, one.answered))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


Answer = Callable[["HttpByHand", dict[str, Any]], None]


class HttpByHand(BaseHTTPRequestHandler):
    """An MCP server over streamable HTTP without any SDK, protocol 2025-06-18, with one tool `t`. Calls of it, and what
    `on` names, are left to a test."""

    protocol_version = "HTTP/1.1"
    on: Mapping[str, Answer]
    seen: list[tuple[str, dict[str, str]]]

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append((message["method"], {name.lower(): value for name, value in self.headers.items()}))
        if message["method"] in self.on:
            self.on[message["method"]](self, message)
        elif "id" not in message:
            self.reply(202, b"")
        elif message["method"] == "initialize":
            server = {"name": "http-by-hand", "version": "1"}
            self.result(message, protocolVersion="2025-06-18", capabilities={"tools": {}}, serverInfo=server)
        elif message["method"] == "tools/list":
            self.result(message, tools=[{"name": "t", "inputSchema": {"type": "object"}}])
        elif message["method"] == "ping":
            self.result(message)
        else:
            error = {"code": -32601, "message": "Method not found"}
            self.reply(200, json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}).encode())

    def do_GET(self) -> None:
        self.reply(405, b"")

    do_DELETE = do_GET

    def result(self, request: dict[str, Any], **result: Any) -> None:
        self.reply(200, json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode())

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@dataclass
class HttpServerByHand:
    url: str
    seen: list[tuple[str, dict[str, str]]]
    """Methods of messages that came, with their headers."""


@contextlib.contextmanager
def http_by_hand(**on: Answer) -> Iterator[HttpServerByHand]:
    """`on` is by method, with `_` for the slash."""
    seen: list[tuple[str, dict[str, str]]] = []
    answers = {name.replace("_", "/"): answer for name, answer in on.items()}
    handler = type("Handler", (HttpByHand,), {"on": answers, "seen": seen})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield HttpServerByHand(f"http://127.0.0.1:{server.server_port}/mcp", seen)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def processes(marker: str) -> list[int]:
    """The running processes whose command line has `marker`."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(folder.name)
            command = (folder / "cmdline").read_bytes()
            if marker.encode() in command and pid != os.getpid() and is_running(pid):
                found.append(pid)
    return found


def children(marker: str, parent: int) -> list[int]:
    """Those of `processes` that a process has started itself."""
    return [pid for pid in processes(marker) if _stat(pid)[1:2] == [str(parent)]]


def is_running(pid: int) -> bool:
    return _stat(pid)[:1] not in ([], ["Z"], ["X"])


def _stat(pid: int) -> list[str]:
    """The state of a process, its parent and so on (proc_pid_stat(5)); nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
