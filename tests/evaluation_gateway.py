"""A gateway for `baton eval`, in a thread: it names documents, shows them, and answers each question as it is told."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from .scripted_gateway import HELLO

FINGERPRINT = "corpus=c1 retriever=r#1 model=extractive:v1#2"
Answering = Callable[[dict[str, Any]], list[dict[str, Any] | str]]


def frames(
    text: str = "Ten days [1].",
    *,
    document: str = "d" * 32,
    fingerprint: str = FINGERPRINT,
    cited: tuple[int, ...] = (1,),
    **source: Any,
) -> list[dict[str, Any] | str]:
    """A good answer with one source."""
    first = {"n": 1, "id": f"{document}:0", "document_id": document, "title": "A", "url": "", "snippet": "Ten days."}
    marks = [{"n": n, "start": text.index(f"[{n}]"), "end": text.index(f"[{n}]") + 3} for n in cited]
    return [
        {"type": "sources", "seq": 1, "sources": [{**first, "score": 1.0, **source}]},
        {"type": "answer_chunk", "seq": 2, "content": text},
        {
            "type": "done",
            "seq": 3,
            "cited": list(cited),
            "citations": marks,
            "finish_reason": "stop",
            "fingerprint": fingerprint,
            "timings": {"ttfb_ms": 1, "ttft_ms": 2, "retrieval_ms": 1},
        },
    ]


@contextlib.contextmanager
def gateway(
    answering: Answering, names: dict[str, str], pages: dict[str, tuple[dict[str, str], str]] | None = None
) -> Iterator[str]:
    """Its address, until the block ends.

    Args:
        answering: the frames (or, as text, what is none) of a query.
        names: of documents, by id.
        pages: headers and text by path; nothing else is there.
    """
    listed = {"files": [{"document_id": one, "name": name} for one, name in names.items()], "truncated": False}
    shown = {"/documents": ({}, json.dumps(listed)), **(pages or {})}

    def plain(connection: ServerConnection, request: Request) -> Response | None:
        if request.path.startswith("/ws"):
            return None
        headers, text = shown.get(request.path, ({}, None))
        status = HTTPStatus.OK if text is not None else HTTPStatus.NOT_FOUND
        body = (text or "").encode()
        told = {"Content-Length": str(len(body)), "Connection": "close", **headers}
        return Response(status, status.phrase, Headers(told), body)

    def handle(connection: ServerConnection) -> None:
        connection.send(json.dumps(HELLO))
        for message in connection:
            for frame in answering(json.loads(message)):
                connection.send(frame if isinstance(frame, str) else json.dumps(frame))

    with serve(handle, "127.0.0.1", 0, process_request=plain) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"ws://127.0.0.1:{_port(server)}/ws"
        server.shutdown()
        thread.join(10)


def _port(server: Server) -> int:
    return int(server.socket.getsockname()[1])
