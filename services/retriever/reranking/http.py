"""Reranking by a server: `POST {url}` in the form of Jina, Cohere and vLLM, or in that of text-embeddings-inference.

The former take the passages as `documents` and answer `{"results": [{"index", "relevance_score"}]}`; the latter takes
them as `texts` and answers `[{"index", "score"}]`.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx

from services.common.config import RetrieverSettings
from services.common.errors import ServiceError
from services.common.settings import SettingsError

MAX_RESPONSE_BYTES = 4 * 1024 * 1024
_REFUSED = (400, 422)


@asynccontextmanager
async def open_http(settings: RetrieverSettings) -> AsyncIterator[HttpReranker]:
    """The server that `settings.rerank_url` names.

    Raises:
        SettingsError: it names none.
    """
    if not settings.rerank_url:
        raise SettingsError(["BATON_RERANK_URL: needed with BATON_RERANKER=http"])
    headers = {"Authorization": f"Bearer {settings.rerank_api_key}"} if settings.rerank_api_key else {}
    url = settings.rerank_url.rstrip("/")
    url = url if url.endswith("/rerank") else url + "/rerank"
    async with httpx.AsyncClient(headers=headers, timeout=settings.rerank_timeout_s) as client:
        yield HttpReranker(client, url, settings.rerank_model)


_Form = Callable[[str, str, list[str]], dict[str, Any]]


class HttpReranker:
    """Tries once for each question: what was found is already there, and somebody waits for it.

    Which form the server takes is known after the first question: one that refuses `documents` is asked with `texts`.
    """

    def __init__(self, client: httpx.AsyncClient, url: str, model: str) -> None:
        self._client = client
        self._url = url
        self._model = model
        self._forms: Sequence[_Form] = (_documents, _texts)

    async def rerank(self, query: str, passages: Sequence[str]) -> list[float]:
        status, data = 0, b""
        for form in self._forms:
            status, data = await self._ask(form(self._model, query, list(passages)))
            if status == 200:
                self._forms = (form,)
                return _scores(data, len(passages))
            if status not in _REFUSED:
                break
        raise _failed(
            f"The reranking server answered with status {status}. Check BATON_RERANK_URL, _MODEL and _API_KEY."
        )

    async def _ask(self, body: dict[str, Any]) -> tuple[int, bytes]:
        try:
            async with self._client.stream("POST", self._url, json=body) as answer:
                return answer.status_code, await _body(answer)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _failed(f"The reranking server cannot be reached ({type(error).__name__}).") from None


def _documents(model: str, query: str, passages: list[str]) -> dict[str, Any]:
    body = {"query": query, "documents": passages, "top_n": len(passages)}
    return {**body, "model": model} if model else body


def _texts(model: str, query: str, passages: list[str]) -> dict[str, Any]:
    return {"query": query, "texts": passages, "truncate": True}  # a passage too long is otherwise refused, with all


async def _body(answer: httpx.Response) -> bytes:
    data = bytearray()
    async for piece in answer.aiter_bytes():
        data += piece
        if len(data) > MAX_RESPONSE_BYTES:
            raise _failed(f"The reranking server's answer has more than {MAX_RESPONSE_BYTES:,} bytes.")
    return bytes(data)


def _scores(data: bytes, count: int) -> list[float]:
    try:
        answer = json.loads(data)
        rows = answer if isinstance(answer, list) else answer["results"]
        scores = {int(row["index"]): _score(row) for row in rows}
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise _failed("The reranking server's answer is not what /rerank returns.") from None
    if scores.keys() != set(range(count)) or not all(math.isfinite(score) for score in scores.values()):
        raise _failed("The reranking server's answer does not give every passage a score.")
    return [scores[index] for index in range(count)]


def _score(row: dict[str, Any]) -> float:
    return float(row["relevance_score"] if "relevance_score" in row else row["score"])


def _failed(message: str) -> ServiceError:
    return ServiceError("retrieval_failed", message, retryable=True)
