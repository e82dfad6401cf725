"""One question and its answer over a WebSocket that may break: connect, ask, follow, come back, cancel."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from .answer import Answer, Outcome
from .coming_back import NO_RETURN, PATIENCE_S, ComingBack
from .connecting import open_socket, reason_of
from .display import Display

DONE, FAILED, INTERRUPTED = 0, 1, 130
CANCEL_S = 5.0
"""How long a stopped question waits for its end, or for a connection on which to say so."""
CANCEL_RETRY_S = 0.25
MAX_REFUSALS = 5
"""How often a message is sent again that was refused as `retryable`, and missing frames are asked for, in a row."""
REFUSED_WAIT_S = 1.0
MAX_REFUSED_WAIT_S = 30.0
QUIET_S = 30.0
"""Nothing came for so long, though the connection lives: make sure that the gateway still follows the request."""
MAX_QUIET = 20


class CannotConnect(Exception):
    """The gateway cannot be reached, or not any more; the text says where and why."""


class NobodyReads(Exception):
    """Whoever read our output (`baton ask … | head`) has gone. Not an OSError: the connection is well."""


class _Refused(Exception):
    """The gateway does not want this client; the text is its reason."""


def new_request_id() -> str:
    return f"ask-{secrets.token_hex(8)}"


async def converse(
    urls: Sequence[str],
    token: str,
    query: dict[str, Any],
    display: Display,
    patience_s: float = PATIENCE_S,
    answer: Answer | None = None,
) -> int:
    """Ask, show, and come back when the connection breaks; the exit status.

    The client chooses the request id, so that the same query can be sent again: it attaches to the request that runs.

    Args:
        urls: gateways of one system; each new try goes to the next one.
        patience_s: how long to try to come back.
        answer: a new one to fill, for who wants to know more than the exit status.

    Raises:
        CannotConnect: it never came to an end.
    """
    answer = answer or Answer(new_request_id())
    query = {"type": "query", "request_id": answer.request_id, **query}
    with _interrupts() as interrupted:
        conversation = _Conversation(urls, token, query, answer, display, interrupted, patience_s)
        following = asyncio.create_task(conversation.run())
        stopping = asyncio.create_task(interrupted.wait())
        try:
            await asyncio.wait([following, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not following.done() and conversation.sent:
                display.note("stopping")
                await asyncio.wait([following], timeout=CANCEL_S)
                if not following.done() and not conversation.told_to_cancel:
                    display.note("unstopped")
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


class _Conversation:
    """One question over as many connections as it takes."""

    def __init__(
        self,
        urls: Sequence[str],
        token: str,
        query: dict[str, Any],
        answer: Answer,
        display: Display,
        interrupted: asyncio.Event,
        patience_s: float,
    ) -> None:
        self._urls = urls
        self._token = token
        self._query = query
        self._answer = answer
        self._display = display
        self._interrupted = interrupted
        self._coming_back = ComingBack(patience_s)
        self.sent = False
        self._resuming = False
        self._refusals = 0
        self.told_to_cancel = False

    async def run(self) -> None:
        """Until the answer has ended.

        Raises:
            CannotConnect, NobodyReads, _Refused
        """
        connected_once = False
        for number, url in enumerate(itertools.cycle(self._urls), 1):
            opened: float | None = None
            code: int | None = None
            try:
                async with open_socket(url, self._token) as socket:
                    opened = time.monotonic()
                    connected_once = True
                    await self._talk(socket)
                    return
            except InvalidURI as error:
                raise CannotConnect(str(error)) from None
            except (ConnectionClosed, OSError, InvalidHandshake, TimeoutError) as error:
                reason = reason_of(error)
                code = error.rcvd.code if isinstance(error, ConnectionClosed) and error.rcvd else None
            if code in NO_RETURN:
                raise _Refused(f"{NO_RETURN[code]} (the connection was closed with {reason})")
            if not connected_once:
                if number < len(self._urls):
                    continue
                where = ", ".join(self._urls)
                raise CannotConnect(f"no connection to {where}: {reason}. Is Baton running? `make run` starts it.")
            lasted_s = time.monotonic() - opened if opened is not None else 0.0
            await self._wait(self._coming_back.lost(code, lasted_s), url, reason)

    async def _wait(self, wait_s: float | None, url: str, reason: str) -> None:
        """Wait before the next try: not long if the question has been stopped, for then it only needs to be told."""
        if self._interrupted.is_set():
            await asyncio.sleep(CANCEL_RETRY_S)
            return
        if wait_s is None:
            raise CannotConnect(
                f"the connection to {url} was lost and did not come back: {reason}. The answer goes on without us; "
                f"its request id is {self._answer.request_id}."
            )
        if self._coming_back.first_try:
            self._display.note("again")
        await self._pause(wait_s)

    async def _talk(self, socket: ClientConnection) -> None:
        """On one connection, until the answer has ended. Raises `ConnectionClosed` if the connection ends before."""
        self._resuming = False
        await self._open(socket)
        cancelling = asyncio.create_task(self._cancel_when_interrupted(socket))
        quiet = 0
        try:
            while self._answer.end is None:
                try:
                    async with asyncio.timeout(QUIET_S):
                        raw = await socket.recv(decode=True)
                except TimeoutError:
                    quiet += 1
                    if quiet > MAX_QUIET:
                        raise _Refused("the gateway says nothing about this question any more") from None
                    await self._open(socket)
                    continue
                quiet = 0
                await self._on_frame(socket, str(raw), json.loads(raw))
        finally:
            cancelling.cancel()
            await asyncio.gather(cancelling, return_exceptions=True)

    async def _open(self, socket: ClientConnection) -> None:
        """Send the question, or, where something of it is known or it was stopped, ask for what is missing."""
        if self._answer.next_seq or (self.sent and self._interrupted.is_set()):
            await self._resume(socket)
        else:
            await socket.send(json.dumps(self._query))
            self.sent = True

    async def _resume(self, socket: ClientConnection) -> None:
        self._resuming = True
        after = self._answer.next_seq - 1
        await socket.send(json.dumps({"type": "resume", "request_id": self._answer.request_id, "after_seq": after}))

    async def _cancel_when_interrupted(self, socket: ClientConnection) -> None:
        await self._interrupted.wait()
        with suppress(ConnectionClosed):
            await self._cancel(socket)

    async def _cancel(self, socket: ClientConnection) -> None:
        await socket.send(json.dumps({"type": "cancel", "request_id": self._answer.request_id}))
        self.told_to_cancel = True

    async def _on_frame(self, socket: ClientConnection, raw: str, frame: dict[str, Any]) -> None:
        if frame.get("type") == "hello" and frame.get("auth") == "required":
            raise _Refused("the gateway wants a token: give one with --token")
        if frame.get("request_id") not in (self._answer.request_id, None):
            return
        if frame.get("type") == "error" and "seq" not in frame:
            new = await self._on_refusal(socket, frame)
        else:
            taken = self._answer.take(frame)
            frame, new = taken.frame, taken.new
            if new and "seq" in frame:
                self._refusals = 0
                self._resuming = False
                self._coming_back.progress()
            elif frame.get("type") == "resumed":
                self._resuming = False
            if taken.outcome is Outcome.GAP or self._leaves_out(frame):
                await self._ask_again(socket)
        try:
            self._display.frame(raw, frame, self._answer, new)
        except BrokenPipeError:
            raise NobodyReads from None

    def _leaves_out(self, frame: dict[str, Any]) -> bool:
        """Whether a `resumed` begins behind frames that have not been seen: the answer to an older `resume`."""
        resumed = frame.get("type") == "resumed" and frame.get("recovered")
        return bool(resumed) and frame["next_seq"] > self._answer.next_seq

    async def _ask_again(self, socket: ClientConnection) -> None:
        """Frames are missing: ask for them, unless that has been done and they are about to come."""
        if self._resuming:
            return
        self._refusals += 1
        if self._refusals > MAX_REFUSALS:
            raise _Refused("part of the answer is missing and could not be fetched again")
        await self._resume(socket)

    async def _on_refusal(self, socket: ClientConnection, frame: dict[str, Any]) -> bool:
        """An error about a message, not about the answer: send it again where that may help; whether it is the end."""
        if frame.get("code") == "unauthorized":
            raise _Refused(f"{frame['message']}; give a valid token with --token")
        if self._interrupted.is_set() and not self._answer.next_seq:
            # It was stopped, and there is nothing of it, or not yet: then there is nothing to wait for either.
            self._answer.end = {"type": "done", "finish_reason": "cancelled"}
            return False
        self._refusals += 1
        if not frame.get("retryable") or self._refusals > MAX_REFUSALS:
            return self._answer.take(frame).new
        wait_s = min(frame.get("retry_after_ms", REFUSED_WAIT_S * 1000) / 1000, MAX_REFUSED_WAIT_S)
        if self._interrupted.is_set():
            # It is the cancel that was refused.
            await asyncio.sleep(CANCEL_RETRY_S)
            await self._cancel(socket)
            return False
        self._display.note("busy", frame["message"], f"{wait_s:g}")
        await self._pause(wait_s)
        if self._interrupted.is_set() and not self._answer.next_seq:
            self._answer.end = {"type": "done", "finish_reason": "cancelled"}
        else:
            await self._open(socket)
        return False

    async def _pause(self, wait_s: float) -> None:
        """Wait, but not longer than until the question is stopped."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._interrupted.wait()
