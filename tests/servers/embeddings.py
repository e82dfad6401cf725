"""A real server for `/v1/embeddings`, whose vectors follow from the text alone: words shared are nearness."""

from __future__ import annotations

import contextlib
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.servers.local_http import JsonHandler, serving

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

    class Handler(JsonHandler):
        def do_POST(self) -> None:
            body = json.loads(self.body())
            state.requests.append(body)
            state.authorization.append(self.headers.get("authorization"))
            failure = state.failures.pop(0) if state.failures else None
            rows = [{"index": n, "embedding": vector(text)} for n, text in enumerate(body["input"])]
            # Servers need not keep the order; `index` counts.
            answer = failure if isinstance(failure, dict) else {"data": rows[::-1]}
            self.reply(failure if isinstance(failure, int) else 200, answer)

    with serving(Handler) as address:
        state.url = f"{address}/v1"
        yield state
