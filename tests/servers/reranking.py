"""A real server for `/rerank`, whose scores follow from the texts alone: words shared with the question count."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal


@dataclass
class Reranking:
    """`failures` are answered first, one a request: a status, or a whole body in place of the scores."""

    form: Literal["documents", "texts"] = "documents"
    url: str = ""
    delay_s: float = 0.0
    failures: list[int | Any] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    authorization: list[str | None] = field(default_factory=list)


def shared(query: str, passage: str) -> float:
    words = set(query.lower().split())
    return len(words & set(passage.lower().split())) / (len(words) or 1)


@contextlib.contextmanager
def reranking_server(form: Literal["documents", "texts"] = "documents") -> Iterator[Reranking]:
    """In the form of Jina, Cohere and vLLM (`documents`), or in that of text-embeddings-inference (`texts`)."""
    state = Reranking(form)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            state.requests.append({"path": self.path, **body})
            state.authorization.append(self.headers.get("authorization"))
            time.sleep(state.delay_s)
            failure = state.failures.pop(0) if state.failures else None
            if failure is None and state.form not in body:
                failure = 422
            status = failure if isinstance(failure, int) else 200
            answer = _scored(state.form, body) if failure is None else failure
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
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


def _scored(form: str, body: dict[str, Any]) -> Any:
    name = "relevance_score" if form == "documents" else "score"
    rows = [{"index": n, name: shared(body["query"], text)} for n, text in enumerate(body[form])]
    rows.sort(key=lambda row: -row[name])  # servers answer best first; `index` counts
    return {"results": rows} if form == "documents" else rows
