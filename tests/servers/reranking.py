"""A real server for `/rerank`, whose scores follow from the texts alone: words shared with the question count."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.servers.local_http import JsonHandler, serving


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

    class Handler(JsonHandler):
        def do_POST(self) -> None:
            body = json.loads(self.body())
            state.requests.append({"path": self.path, **body})
            state.authorization.append(self.headers.get("authorization"))
            time.sleep(state.delay_s)
            failure = state.failures.pop(0) if state.failures else None
            if failure is None and state.form not in body:
                failure = 422
            status = failure if isinstance(failure, int) else 200
            self.reply(status, _scored(state.form, body) if failure is None else failure)

    with serving(Handler) as address:
        state.url = f"{address}/v1"
        yield state


def _scored(form: str, body: dict[str, Any]) -> Any:
    name = "relevance_score" if form == "documents" else "score"
    rows = [{"index": n, name: shared(body["query"], text)} for n, text in enumerate(body[form])]
    rows.sort(key=lambda row: -row[name])  # servers answer best first; `index` counts
    return {"results": rows} if form == "documents" else rows
