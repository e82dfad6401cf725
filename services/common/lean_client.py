"""nats-py's client, quicker in two places: with a cheaper parser of headers (its own looks at each character of each
name in Python, a third of what a replayed frame costs, bench/resumes.py), and with subscriptions whose messages pass
neither that nor a queue (a fifth of what a relayed token costs, bench/delivery.py)."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable

from nats.aio.client import Client
from nats.aio.msg import Msg

Take = Callable[[bytes, int], None]
"""Called with the data of a message and its stream sequence (0: no stream has republished it). Must not wait."""

_SEQUENCE = b"\r\nNats-Sequence:"


class AtOnce(functools.partial[Awaitable[None]]):
    """A subscription's callback whose messages a LeanClient gives to `take` as they are read from the connection, in
    order, without a queue that could overflow."""

    @staticmethod
    def of(take: Take) -> AtOnce:
        return AtOnce(_deliver, take)

    @property
    def take(self) -> Take:
        take: Take = self.args[0]
        return take


async def _deliver(take: Take, message: Msg) -> None:
    """nats-py's own way, from its queue."""
    take(message.data, int((message.headers or {}).get("Nats-Sequence", "0")))


def stream_sequence(headers: bytes | None) -> int:
    """`Nats-Sequence` in the headers of a message as they come, 0 where there is none."""
    at = headers.rfind(_SEQUENCE) if headers else -1
    return int(headers[at + len(_SEQUENCE) :].partition(b"\r\n")[0]) if headers and at >= 0 else 0


class LeanClient(Client):
    """A Client that differs in nothing else. The test of this file fails when nats-py calls these otherwise."""

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        subscription = self._subs.get(sid)
        callback = subscription._cb if subscription is not None else None
        if not isinstance(callback, AtOnce):
            await super()._process_msg(sid, subject, reply, data, headers)  # type: ignore[arg-type]
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        try:
            callback.take(data, stream_sequence(headers))
        except Exception as error:
            await self._error_cb(error)

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        headers: dict[str, str] = {}
        for line in raw.split(b"\r\n"):
            name, colon, value = line.partition(b":")
            if colon and (key := _key(name)) is not None:
                headers[key] = str(value.strip(), "utf-8", "replace")
        return headers


@functools.lru_cache(maxsize=256)
def _key(name: bytes) -> str | None:
    """A header's name, if it is one. The same few come with every message."""
    try:
        key = name.strip().decode("ascii")
    except UnicodeDecodeError:
        return None
    return key if key.split() == [key] else None  # no white space inside
