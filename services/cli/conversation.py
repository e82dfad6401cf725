"""One question and its answer over a WebSocket that may break: connect, ask, follow, come back, cancel."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from baton_proto.messages import MAX_MESSAGE_BYTES

from .answer import Answer, Outcome
from .display import Display

DONE, FAILED, INTERRUPTED = 0, 1, 130
CONNECT_S = 10.0
CANCEL_S = 5.0
RETRY_WAITS_S = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Waits before each new try to reach a gateway that was lost; a frame received starts them anew."""
NO_RETURN = {1009, 4001, 4003, 4029}
"""Close codes after which coming back makes no sense, or not soon (DESIGN: close codes)."""


class CannotConnect(Exception):
    """The gateway cannot be reached, or not any more; the text says where and why."""


class NobodyReads(Exception):
    """Whoever read our output (`baton ask … | head`) has gone. Not an OSError: the connection is well."""


class _Refused(Exception):
    """The gateway does not want this client; the text is its reason."""


async def converse(url: str, token: str, query: dict[str, Any], display: Display) -> int:
    """Ask, show, and come back when the connection breaks; the exit status.

    The client chooses the request id, so that the same query can be sent again: it attaches to the request that runs.

    Raises:
        CannotConnect: it never came to an end.
    """
    answer = Answer(f"ask-{secrets.token_hex(8)}")
    query = {"type": "query", "request_id": answer.request_id, **query}
    with _interrupts() as interrupted:
        following = asyncio.create_task(_follow(url, token, query, answer, display, interrupted))
        stopping = asyncio.create_task(interrupted.wait())
        try:
            await asyncio.wait([following, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                display.note("stopping")
                await asyncio.wait([following], timeout=CANCEL_S)
            if following.done():
                following.result()
        except _Refused as error:
            answer.end = {"type": "error", "code": "refused", "message": str(error)}
        finally:
            for task in (following, stopping):
                task.cancel()
            await asyncio.gather(following, stopping, return_exceptions=True)
            with suppress(BrokenPipeError):
                display.end(answer)
        if interrupted.is_set():
            return INTERRUPTED
    return DONE if answer.end is not None and answer.end["type"] == "done" else FAILED


@contextmanager
def _interrupts() -> Iterator[asyncio.Event]:
    """Set by the first Ctrl-C; the second one is a KeyboardInterrupt as usual."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_interrupt() -> None:
        event.set()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGINT, on_interrupt)
    try:
        yield event
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def _follow(
    url: str, token: str, query: dict[str, Any], answer: Answer, display: Display, interrupted: asyncio.Event
) -> None:
    """Until the answer has ended."""
    waits = iter(RETRY_WAITS_S)
    connected_once = False
    while answer.end is None:
        before = answer.next_seq
        try:
            async with _connection(url, token) as socket:
                connected_once = True
                await _one_connection(socket, query, answer, display, interrupted)
                continue
        except (ConnectionClosed, OSError, InvalidHandshake, TimeoutError) as error:
            reason = _reason(error)
            if isinstance(error, ConnectionClosed) and error.rcvd is not None and error.rcvd.code in NO_RETURN:
                raise _Refused(f"the gateway closed the connection ({reason})") from None
        except InvalidURI as error:
            raise CannotConnect(str(error)) from None
        if answer.next_seq > before:
            waits = iter(RETRY_WAITS_S)
        wait = next(waits, None)
        if not connected_once:
            raise CannotConnect(f"no connection to {url}: {reason}. Is Baton running? `make run` starts it.")
        if wait is None:
            raise CannotConnect(f"the connection to {url} was lost and did not come back: {reason}.")
        display.note("again")
        await asyncio.sleep(wait)


def _connection(url: str, token: str) -> connect:
    local = urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
    return connect(
        url,
        additional_headers={"Authorization": f"Bearer {token}"} if token else None,
        open_timeout=CONNECT_S,
        close_timeout=1.0,
        max_size=MAX_MESSAGE_BYTES,
        compression=None,
        proxy=None if local else True,
        user_agent_header="baton-ask",
    )


async def _one_connection(
    socket: ClientConnection, query: dict[str, Any], answer: Answer, display: Display, interrupted: asyncio.Event
) -> None:
    """Until the answer has ended. Raises `ConnectionClosed` if the connection ends before."""
    await socket.send(json.dumps(_resume(answer) if answer.next_seq else query))
    repairing_at = -1
    cancelling = asyncio.create_task(_cancel_when(interrupted, socket, answer.request_id))
    try:
        while answer.end is None:
            raw = await socket.recv(decode=True)
            frame = json.loads(raw)
            taken = answer.take(frame)
            try:
                display.frame(str(raw), taken.frame, answer, taken.new)
            except BrokenPipeError:
                raise NobodyReads from None
            if taken.outcome is Outcome.GAP and repairing_at != answer.next_seq:
                repairing_at = answer.next_seq  # what is on its way does not join on either, and needs no answer
                await socket.send(json.dumps(_resume(answer)))
            if frame["type"] == "hello" and frame.get("auth") == "required":
                raise _Refused("the gateway wants a token: give one with --token")
    finally:
        cancelling.cancel()
        await asyncio.gather(cancelling, return_exceptions=True)


def _resume(answer: Answer) -> dict[str, Any]:
    return {"type": "resume", "request_id": answer.request_id, "after_seq": answer.next_seq - 1}


async def _cancel_when(interrupted: asyncio.Event, socket: ClientConnection, request_id: str) -> None:
    await interrupted.wait()
    await socket.send(json.dumps({"type": "cancel", "request_id": request_id}))


def _reason(error: Exception) -> str:
    if isinstance(error, InvalidStatus):
        return f"HTTP {error.response.status_code}"
    if isinstance(error, ConnectionClosed):
        close = error.rcvd
        return f"{close.code} {close.reason}".strip() if close else "it broke off"
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_S:g} s"
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return str(error)
