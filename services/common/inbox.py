"""Questions that are answered with many messages, all over one subscription: one for each would cost more than its
answers when hundreds of clients come back at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from nats.aio.client import Client
from nats.aio.msg import Msg

PENDING_BYTES = 256 * 1024 * 1024
"""Far more than the answers that may be on their way at once; a full subscription would drop some of them."""


@dataclass(slots=True)
class _Question:
    collect: Callable[[Msg], bool]
    answered: asyncio.Future[None]


class Inbox:
    """Collects answers by question.

    Args:
        at_once: questions that may be open; further ones wait for their turn.
    """

    def __init__(self, client: Client, at_once: int) -> None:
        self._client = client
        self._prefix = client.new_inbox()
        self._turn = asyncio.Semaphore(at_once)
        self._opening = asyncio.Lock()
        self._opened = False
        self._number = 0
        self._questions: dict[str, _Question] = {}

    async def ask(self, subject: str, data: bytes, seconds: float, collect: Callable[[Msg], bool]) -> None:
        """Publish a question and give each answer to `collect` until it says that this was the last.

        Raises:
            TimeoutError: the last answer has not come in time.
            nats.errors.Error: it could not be asked; or whatever `collect` raised.
        """
        async with self._turn:
            await self._open()
            self._number += 1
            name = str(self._number)
            question = _Question(collect, asyncio.get_running_loop().create_future())
            self._questions[name] = question
            try:
                async with asyncio.timeout(seconds):
                    await self._client.publish(subject, data, reply=f"{self._prefix}.{name}")
                    await question.answered
            finally:
                del self._questions[name]

    async def _open(self) -> None:
        async with self._opening:
            if not self._opened:
                subject = f"{self._prefix}.*"
                await self._client.subscribe(subject, cb=self._on_answer, pending_bytes_limit=PENDING_BYTES)
                self._opened = True

    async def _on_answer(self, message: Msg) -> None:
        question = self._questions.get(message.subject.rpartition(".")[2])
        if question is None or question.answered.done():
            return  # too late: nobody waits for it any more
        try:
            if question.collect(message):
                question.answered.set_result(None)
        except Exception as error:
            question.answered.set_exception(error)
