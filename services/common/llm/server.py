"""Requests to a chat completions server: streaming, time-outs, retries before the first token, and failures."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx

from services.common.config import LlmSettings
from services.common.errors import ServiceError
from services.common.retry_after import retry_after_ms

from . import errors
from .sse import EventTooLarge, SseParser
from .stream import BadStream, ChatTurn, ServerError, Thinking

_MAX_ATTEMPTS = 4
_FIRST_PAUSE_S = 0.25
# A server that has told its finish reason may still send the usage; who keeps the stream open is not waited for.
_AFTER_FINISH_S = 2.0
_ANSWER_TOKENS = frozenset({"max_tokens", "max_completion_tokens"})
_MAX_ERROR_BODY = 64 * 1024
_MAX_PLAIN_BODY = 8 * 1024 * 1024

log = logging.getLogger(__name__)


class ContinuationRefused(Exception):
    """The server does not go on from the assistant message at the end of this request."""


class ChatServer:
    """`refused` are optional fields of a request that this server does not know; do not send them again. `continues`
    is False once the server has said that it does not go on from an assistant message.

    Args:
        client: without time-outs for reading; the settings' own are used. Closed by whoever opened it.
    """

    def __init__(self, client: httpx.AsyncClient, settings: LlmSettings) -> None:
        self.refused: set[str] = set()
        self.continues = True
        self._client = client
        self._settings = settings
        base = settings.llm_url.rstrip("/").removesuffix("/chat/completions")
        self._url = f"{base}/chat/completions"
        self._random = random.Random()

    async def stream(self, body: dict[str, Any]) -> AsyncGenerator[str | ChatTurn, None]:
        """`pieces` without `Thinking`."""
        async with aclosing(self.pieces(body)) as pieces:
            async for piece in pieces:
                if not isinstance(piece, Thinking):
                    yield piece

    async def pieces(self, body: dict[str, Any]) -> AsyncGenerator[str | Thinking | ChatTurn, None]:
        """The pieces of one completion and, last, the whole turn; `Thinking` once, when the model begins to reason.
        Tried again while the model has not begun and the time for the first token lasts.

        Raises:
            ServiceError
            ContinuationRefused: the last message is an assistant's, and the server takes no such request.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.first_token_timeout_s
        attempt = 0
        earlier: ServiceError | None = None
        while True:
            turn = ChatTurn()
            try:
                async with aclosing(self._attempt(body, turn, deadline)) as pieces:
                    async for piece in pieces:
                        yield piece
                yield turn
                return
            except _FieldRefused as refused:
                self._give_up_field(refused.field, body)
            except _AnswerTooLong as refused:
                self._shorten_answer(refused.limit, body)
            except ServiceError as failure:
                if earlier is not None and failure.code == "model_stalled" and not turn.progress:
                    raise earlier from None  # says more than that the time is over
                earlier, attempt = failure, attempt + 1
                pause = self._pause_s(failure, attempt)
                hopeless = turn.progress or not failure.retryable or failure.code == "model_stalled"
                if hopeless or attempt >= _MAX_ATTEMPTS or loop.time() + pause >= deadline:
                    raise
                await asyncio.sleep(pause)

    def _pause_s(self, failure: ServiceError, attempt: int) -> float:
        if failure.retry_after_ms is not None:
            return failure.retry_after_ms / 1000
        return _FIRST_PAUSE_S * float(2 ** (attempt - 1)) * self._random.uniform(0.5, 1.5)

    def _give_up_field(self, field: str, body: dict[str, Any]) -> None:
        log.warning("the language model's server does not know %s; it is not sent any more", field)
        self.refused.add(field)
        value = body.pop(field)
        if field == "max_tokens":
            body["max_completion_tokens"] = value

    def _shorten_answer(self, limit: int, body: dict[str, Any]) -> None:
        log.warning("the language model gives no answer over %d tokens; BATON_MAX_TOKENS should not be larger", limit)
        for name in _ANSWER_TOKENS & body.keys():
            body[name] = min(body[name], limit)

    async def _attempt(
        self, body: dict[str, Any], turn: ChatTurn, deadline: float
    ) -> AsyncGenerator[str | Thinking, None]:
        """One request. Leaving the generator closes the connection."""
        response = await self._send(body, deadline)
        try:
            if response.status_code != httpx.codes.OK:
                await self._refuse(response, body, deadline)
            if response.headers.get("content-type", "").startswith("application/json"):
                yield await self._plain(response, turn, deadline)
                return
            async with aclosing(self._read(response, turn, deadline)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            await response.aclose()

    async def _send(self, body: dict[str, Any], deadline: float) -> httpx.Response:
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if self._settings.llm_api_key:
            headers["Authorization"] = f"Bearer {self._settings.llm_api_key}"
        content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        headers["Content-Type"] = "application/json"
        request = self._client.build_request("POST", self._url, content=content, headers=headers)
        try:
            async with asyncio.timeout_at(deadline):
                return await self._client.send(request, stream=True)
        except TimeoutError:
            raise errors.stalled(self._settings.first_token_timeout_s, first=True) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            log.warning("cannot reach the language model's server: %s", error or type(error).__name__)
            raise errors.unreachable() from error

    async def _refuse(self, response: httpx.Response, body: dict[str, Any], deadline: float) -> None:
        """Raises what a status other than 200 means."""
        try:
            async with asyncio.timeout_at(deadline):
                text = (await _bounded(response, _MAX_ERROR_BODY)).decode("utf-8", "replace")
        except (TimeoutError, httpx.HTTPError):
            text = ""
        continuing = body["messages"][-1]["role"] == "assistant"
        if continuing and errors.refuses_to_continue(response.status_code, text):
            self._give_up_continuing(response.status_code, text)
            raise ContinuationRefused
        too_long = errors.overflow(response.status_code, text)
        limit = errors.answer_limit(response.status_code, text, body)
        if limit is not None:
            raise _AnswerTooLong(limit)
        field = None if too_long else errors.refused_field(response.status_code, text, body)
        if field is not None:
            raise _FieldRefused(field)
        log.warning("the language model's server answered HTTP %d: %s", response.status_code, self._without_key(text))
        if continuing and response.status_code in (400, 422, 500, 501) and not too_long:
            raise ContinuationRefused  # it does not say why; the same question without the answer's beginning may do
        after = retry_after_ms(response.headers, time.time())
        raise errors.http_failure(response.status_code, text, after)

    def _give_up_continuing(self, status: int, text: str) -> None:
        if self.continues:
            log.warning(
                "the language model's server does not continue answers as BATON_LLM_CONTINUE says (HTTP %d: %s); those "
                "of lost generators start again from now on",
                status,
                self._without_key(text),
            )
        self.continues = False

    async def _plain(self, response: httpx.Response, turn: ChatTurn, deadline: float) -> str:
        """A server that does not stream sends one completion as a whole."""
        try:
            async with asyncio.timeout_at(deadline):
                data = (await _bounded(response, _MAX_PLAIN_BODY)).decode("utf-8", "replace")
        except TimeoutError:
            raise errors.stalled(self._settings.first_token_timeout_s, first=True) from None
        except httpx.HTTPError:
            raise errors.cut_off() from None
        return self._fed(turn, data) + turn.flush()

    async def _read(
        self, response: httpx.Response, turn: ChatTurn, deadline: float
    ) -> AsyncGenerator[str | Thinking, None]:
        loop = asyncio.get_running_loop()
        parser = SseParser()
        body = response.aiter_bytes()
        ended = thought = False
        while not ended:
            received = await self._next(body, turn, deadline)
            ended = received is None
            try:
                events = list(parser.finish() if received is None else parser.feed(received))
            except EventTooLarge as error:
                log.warning("the language model's server: %s", error)
                raise errors.not_understood() from None
            for data in events:
                if data.strip() == "[DONE]":
                    turn.finished = turn.finished or "stop"
                    ended = True
                    break
                before = turn.progress
                text = self._fed(turn, data)
                if turn.thinking and not thought:
                    thought = True
                    yield Thinking()
                if text:
                    yield text
                if turn.progress != before:
                    deadline = loop.time() + self._settings.token_timeout_s
            if turn.finished:
                deadline = min(deadline, loop.time() + _AFTER_FINISH_S)
        if rest := turn.flush():
            yield rest
        if not turn.finished:
            raise errors.cut_off() if turn.progress else errors.not_understood()

    async def _next(self, body: AsyncIterator[bytes], turn: ChatTurn, deadline: float) -> bytes | None:
        """The next bytes, or None at the end of what there is to wait for."""
        try:
            async with asyncio.timeout_at(deadline):
                return await anext(body, None)
        except TimeoutError:
            if turn.finished:
                return None
            first = turn.progress == 0
            seconds = self._settings.first_token_timeout_s if first else self._settings.token_timeout_s
            raise errors.stalled(seconds, first=first) from None
        except (httpx.HTTPError, OSError):
            if turn.finished:
                return None
            raise errors.cut_off() from None

    def _fed(self, turn: ChatTurn, data: str) -> str:
        try:
            return turn.feed(json.loads(data))
        except ServerError as error:
            log.warning("the language model's server reported: %s", self._without_key(str(error)))
            raise errors.stream_failure(error.error) from None
        except (BadStream, ValueError, RecursionError) as error:
            log.warning("the language model's server sent no chat completion: %s", self._without_key(str(error)))
            raise errors.not_understood() from None

    def _without_key(self, text: str) -> str:
        key = self._settings.llm_api_key
        return (text.replace(key, "***") if key else text)[:500]


class _AnswerTooLong(Exception):
    """More tokens are asked for than the server ever gives."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


class _FieldRefused(Exception):
    """The server does not know an optional field of the request."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field


async def _bounded(response: httpx.Response, most: int) -> bytes:
    """The body, or its first `most` bytes."""
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) >= most:
            break
    return bytes(body[:most])
