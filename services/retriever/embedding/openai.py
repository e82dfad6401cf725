"""Embeddings by any OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx

from services.common.config import RetrieverSettings
from services.common.errors import ServiceError
from services.common.settings import SettingsError

from .port import Embedder

BATCH = 64
REQUEST_TIMEOUT_S = 30.0
RETRY_BUDGET_S = 30.0
MAX_TRIES = 5
MAX_RESPONSE_BYTES = 64 * 1024 * 1024


@asynccontextmanager
async def open_openai(settings: RetrieverSettings) -> AsyncIterator[Embedder]:
    """Any server with `POST {embedding_url}/embeddings`."""
    missing = [
        name
        for name, value in (
            ("BATON_EMBEDDING_URL", settings.embedding_url),
            ("BATON_EMBEDDING_MODEL", settings.embedding_model),
        )
        if not value
    ]
    if missing:
        raise SettingsError([f"{name}: needed with BATON_EMBEDDER=openai" for name in missing])
    headers = {"Authorization": f"Bearer {settings.embedding_api_key}"} if settings.embedding_api_key else {}
    async with httpx.AsyncClient(headers=headers, timeout=REQUEST_TIMEOUT_S) as client:
        yield OpenAIEmbedder(client, settings.embedding_url.rstrip("/") + "/embeddings", settings.embedding_model)


class OpenAIEmbedder:
    """Sends texts in batches, and repeats a refused batch (429, 5xx, no connection) with growing, jittered pauses."""

    def __init__(self, client: httpx.AsyncClient, url: str, model: str) -> None:
        self._client = client
        self._url = url
        self._model = model

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        vectors: list[list[float]] = []
        for first in range(0, len(texts), BATCH):
            vectors += await self._batch(texts[first : first + BATCH])
        if len({len(vector) for vector in vectors}) > 1:
            raise _failed("The embedding server gave vectors of different lengths.")
        return vectors

    async def _batch(self, texts: Sequence[str]) -> list[list[float]]:
        give_up = time.monotonic() + RETRY_BUDGET_S
        for attempt in range(1, MAX_TRIES + 1):
            pause = random.uniform(0.5, 1.0) * 0.5 * 2 ** (attempt - 1)
            try:
                answer, data = await self._post({"model": self._model, "input": list(texts)})
            except httpx.InvalidURL as error:
                raise _failed(f"BATON_EMBEDDING_URL is no address ({error}).", retryable=False) from None
            except httpx.RequestError as error:
                problem = f"The embedding server cannot be reached ({type(error).__name__})."
            else:
                if answer.status_code == 200:
                    return _vectors(data, len(texts))
                problem = f"The embedding server answered with status {answer.status_code}."
                if answer.status_code != 429 and answer.status_code < 500:
                    raise _failed(problem + " Check BATON_EMBEDDING_URL, _MODEL and _API_KEY.", retryable=False)
                pause = max(pause, _retry_after(answer))
            if attempt == MAX_TRIES or time.monotonic() + pause > give_up:
                break
            await asyncio.sleep(pause)
        raise _failed(problem)

    async def _post(self, body: dict[str, Any]) -> tuple[httpx.Response, bytes]:
        data = bytearray()
        async with self._client.stream("POST", self._url, json=body) as answer:
            async for piece in answer.aiter_bytes():
                data += piece
                if len(data) > MAX_RESPONSE_BYTES:
                    raise _failed(f"The embedding server's answer has more than {MAX_RESPONSE_BYTES:,} bytes.")
        return answer, bytes(data)


def _vectors(data: bytes, count: int) -> list[list[float]]:
    try:
        rows: list[dict[str, Any]] = sorted(json.loads(data)["data"], key=lambda row: row["index"])
        vectors = [[float(number) for number in row["embedding"]] for row in rows]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _failed("The embedding server's answer is not what /v1/embeddings returns.", retryable=False) from None
    if len(vectors) != count:
        raise _failed(f"The embedding server gave {len(vectors)} vectors for {count} texts.")
    if not all(vector and all(math.isfinite(number) for number in vector) for vector in vectors):
        raise _failed("The embedding server gave an empty vector or one with numbers that are none.")
    return vectors


def _retry_after(answer: httpx.Response) -> float:
    try:
        return max(0.0, float(answer.headers.get("retry-after", "0")))
    except ValueError:  # an HTTP date: our own pause will do
        return 0.0


def _failed(message: str, *, retryable: bool = True) -> ServiceError:
    return ServiceError("retrieval_failed", message, retryable=retryable)
