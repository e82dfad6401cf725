"""A real server for `/v1/embeddings`, whose vectors follow from the text alone: words shared are nearness."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DIMENSION = 64


@dataclass
class Embeddings:
    """`failures` are answered first, one a request: a status, or a whole body in place of the embeddings."""

    url: str = ""
    failures: list[int | dict[str, Any]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    authorization: list[str | None] = field(default_factory=list)


def vector(text: str) -> list[float]:
    numbers = [1e-3] * DIMENSION
    for word in text.lower().split():
        for piece in [word[n : n + 3] for n in range(max(1, len(word) - 2))]:
            numbers[zlib.crc32(piece.encode()) % DIMENSION] += 1
    length = math.sqrt(sum(number * number for number in numbers))
    return [number / length for number in numbers]


@contextlib.contextmanager
def embeddings_server() -> Iterator[Embeddings]:
    state = Embeddings()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            state.requests.append(body)
            state.authorization.append(self.headers.get("authorization"))
            failure = state.failures.pop(0) if state.failures else None
            rows = [{"index": n, "embedding": vector(text)} for n, text in enumerate(body["input"])]
            # Servers need not keep the order; `index` counts.
            answer = failure if isinstance(failure, dict) else {"data": rows[::-1]}
            data = json.dumps(answer).encode()
            self.send_response(failure if isinstance(failure, int) else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
