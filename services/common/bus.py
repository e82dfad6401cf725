"""The bus: all that Baton asks of NATS, and the only place (with its siblings below) where nats is imported.

Every wait is bounded. Nothing here knows what a frame means; `log.py` does.
"""

from __future__ import annotations

import asyncio
import contextvars
import io
import json
import logging
from base64 import b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import ObjectMeta
from nats.js.errors import NotFoundError
from nats.js.object_store import ObjectStore

from baton_proto import subjects
from baton_proto.subjects import LogAddress

from .config import NatsSettings
from .inbox import Inbox
from .lean_client import AtOnce

log = logging.getLogger(__name__)
T = TypeVar("T")

REQUEST_TIMEOUT_S = 2.0
OBJECT_TIMEOUT_S = 10.0
CANCEL_AGAIN_S = 0.5
REPLAY_MESSAGES = 256
REPLAY_BYTES = 512 * 1024
"""Most of one batch; a message that is larger by itself comes alone."""
REPLAYS_AT_ONCE = 32
NEWEST_ROUNDS = 8
"""Looks further back, where the last messages of a stream are none that are asked for."""
_OBJECTS = f"OBJ_{subjects.DOCUMENTS_BUCKET}"
_OBJECT_META = f"$O.{subjects.DOCUMENTS_BUCKET}.M."
_OBJECT_CHUNKS = f"$O.{subjects.DOCUMENTS_BUCKET}.C."
_WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
_FULL = frozenset({10047, 10077, 10122, 10023, 10068})
_NOT_FOUND = frozenset({10014, 10037, 10059})  # consumer, message, stream


class Refused(Exception):
    """The stream's last sequence for the subject is not the expected one."""


class Unconfirmed(Exception):
    """No answer, or one that does not tell whether the message is stored."""


class Full(Exception):
    """The stream is at its limit and takes nothing more."""


class Stored(NamedTuple):
    """A message as a stream keeps it. `subject` is known where several were asked for."""

    data: bytes
    stream_seq: int
    subject: str = ""


class Kept(NamedTuple):
    """What is known of an object without its data."""

    name: str
    description: str
    age_s: float


class Bus:
    """One connection to NATS. Open it with `connect`."""

    def __init__(self, client: Client, settings: NatsSettings, name: str) -> None:
        self.client = client
        self.settings = settings
        self.name = name
        self._objects: ObjectStore | None = None
        self._replays = Inbox(client, REPLAYS_AT_ONCE)

    @property
    def connected(self) -> bool:
        return bool(self.client.is_connected)

    @property
    def reconnects(self) -> int:
        """How often the connection was lost and made again."""
        return int(self.client.stats["reconnects"])

    def address(self, key: str) -> LogAddress:
        return subjects.address(key, self.settings.shards)

    # --- storing ------------------------------------------------------------------------------------------------------

    async def append(self, at: LogAddress, data: bytes, expected: int) -> int:
        """Store `data` as the log's next message if its last stream sequence is `expected` (0: there is none).

        Returns its stream sequence.

        Raises:
            Refused, Unconfirmed, Full
        """
        headers = {
            "Nats-Expected-Last-Subject-Sequence": str(expected),
            "Nats-Expected-Stream": subjects.log_stream(at.shard),
        }
        return await self.store(subjects.log_subject(at), data, headers)

    async def store(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> int:
        """Publish into a stream and wait until it is stored; returns the stream sequence.

        Raises:
            Refused, Unconfirmed, Full
        """
        answer = await self._ask(subject, data, headers)
        if (error := answer.get("error")) is not None:
            code = error.get("err_code")
            if code in _WRONG_LAST_SEQUENCE:
                raise Refused(error.get("description", ""))
            if code in _FULL:
                raise Full(error.get("description", ""))
            raise Unconfirmed(error.get("description", "unknown answer from JetStream"))
        return int(answer["seq"])

    async def push_work(self, queue: str, data: bytes, message_id: str) -> None:
        """Put a work message into a queue; one with the same `message_id` is stored once.

        Raises:
            Unconfirmed, Full
        """
        await self.store(subjects.work_subject(queue), data, {"Nats-Msg-Id": message_id})

    # --- reading ------------------------------------------------------------------------------------------------------

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The last message of a subject, from the stream's leader.

        Raises:
            Unconfirmed: nobody answered.
        """
        answer = await self.api(f"STREAM.MSG.GET.{stream}", last_by_subj=subject)
        if (message := answer.get("message")) is None:
            return None
        return Stored(b64decode(message.get("data", "")), int(message["seq"]))

    async def direct_last(self, stream: str, subject: str, seconds: float) -> bytes | None:
        """The last message of a subject, from any replica that has the stream: quick, and perhaps a moment old.

        Raises:
            Unconfirmed: nobody answered in time.
        """
        try:
            answer = await self.client.request(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"", timeout=seconds)
        except (nats.errors.Error, TimeoutError) as error:
            raise Unconfirmed(f"{subject}: {error or type(error).__name__}") from None
        headers = answer.headers or {}
        if "Status" in headers:
            if headers["Status"] == "404":
                return None
            raise Unconfirmed(f"{subject}: {headers['Status']}")
        return None if headers.get("KV-Operation") else answer.data

    async def tail(self, at: LogAddress) -> Stored | None:
        """The last message of a log, from the stream's leader."""
        return await self.last(subjects.log_stream(at.shard), subjects.log_subject(at))

    async def replay(self, at: LogAddress, after: int = 0) -> list[Stored]:
        """The messages of a log with a stream sequence above `after`, in order, by batched direct get.

        A replica may answer that lags behind: who must have the end compares with `tail`.

        Raises:
            Unconfirmed: nobody answered.
        """
        found: list[Stored] = []
        more = True
        while more:
            batch, more = await self.replay_batch(at, found[-1].stream_seq if found else after)
            found += batch
        return found

    async def replay_batch(
        self, at: LogAddress, after: int = 0, messages: int = REPLAY_MESSAGES, size: int = REPLAY_BYTES
    ) -> tuple[list[Stored], bool]:
        """The first messages of a log with a stream sequence above `after`, and whether there are more.

        Args:
            messages, size: most messages and about most bytes.

        Raises:
            Unconfirmed: nobody answered.
        """
        stream, subject = subjects.log_stream(at.shard), subjects.log_subject(at)
        found, left = await self._next_messages(stream, subject, after + 1, messages, size)
        return found, bool(found) and left > 0

    async def newest(self, stream: str, subject: str, most: int, take: Callable[[bytes], bool]) -> None:
        """Give `take` the messages behind a subject with a wildcard, the last ones of a stream in groups, until so many
        of them have been taken: those for which it returns true. What is changed meanwhile may be given twice, the
        newer one later. A replica may answer that lags behind.

        Raises:
            Unconfirmed: nobody answered.
        """
        state = await self.stream_state(stream)
        first, behind = int(state.get("first_seq", 0)), int(state.get("last_seq", 0)) + 1
        taken, looked_at, end = 0, 0, behind
        for _ in range(NEWEST_ROUNDS):
            looked_at += most - taken
            start = await self._start_of_last(stream, subject, looked_at, first, end)
            at = start
            while at < end:
                found, left = await self._next_messages(stream, subject, at, REPLAY_MESSAGES, REPLAY_BYTES)
                taken += sum(take(one.data) for one in found if one.stream_seq < end)
                at = found[-1].stream_seq + 1 if found and left else end
            if taken >= most or start <= first:
                break
            end = start
        # What was changed meanwhile has left its place for one behind all others.
        async for _, data, _ in self.later(stream, subject, behind - 1):
            take(data)

    async def _start_of_last(self, stream: str, subject: str, count: int, first: int, end: int) -> int:
        """The stream sequence between these two from which on there are so many messages, or as many less as there are
        none that low."""
        low, high = first, end
        while low < high:
            # The first look is at the very beginning: as a rule there are fewer in all.
            middle = low if low == first and high == end else (low + high) // 2
            found, left = await self._next_messages(stream, subject, middle, 1, 1)
            if len(found) + left <= count:
                high = middle
            else:
                low = middle + 1
        return high

    async def _next_messages(
        self, stream: str, subject: str, seq: int, messages: int, size: int
    ) -> tuple[list[Stored], int]:
        """Messages behind a subject from a stream sequence on, and how many more there are (ADR-31 of NATS).

        Raises:
            Unconfirmed: nobody answered.
        """
        found: list[Stored] = []
        left = 0

        def collect(message: Msg) -> bool:
            nonlocal left
            headers = message.headers or {}
            status = headers.get("Status")
            if status is None:
                found.append(Stored(message.data, int(headers["Nats-Sequence"]), headers.get("Nats-Subject", "")))
                return False
            if status not in ("204", "404"):
                raise Unconfirmed(f"replay: {status}")
            left = int(headers.get("Nats-Num-Pending", "0"))
            return True

        request = {"batch": messages, "max_bytes": size, "seq": max(1, seq), "next_by_subj": subject}
        try:
            await self._replays.ask(
                f"$JS.API.DIRECT.GET.{stream}", json.dumps(request).encode(), REQUEST_TIMEOUT_S, collect
            )
        except (nats.errors.Error, TimeoutError, LookupError, ValueError) as error:
            raise Unconfirmed(f"replay: {error or type(error).__name__}") from None
        return found, left

    async def later(self, stream: str, subject: str, after: int = 0) -> AsyncIterator[tuple[str, bytes, int]]:
        """The messages behind a subject with a wildcard and a stream sequence above `after`: subject, data and stream
        sequence of each, in order. A replica may answer that lags behind.

        Raises:
            Unconfirmed: nobody answered.
        """
        while True:
            found, left = await self._next_messages(stream, subject, after + 1, REPLAY_MESSAGES, REPLAY_BYTES)
            for one in found:
                yield one.subject, one.data, one.stream_seq
            if not found or not left:
                return
            after = found[-1].stream_seq

    async def purge(self, stream: str, subject: str) -> None:
        """Remove all messages of a subject from a stream.

        Raises:
            Unconfirmed: nobody answered.
        """
        await self.api(f"STREAM.PURGE.{stream}", filter=subject)

    async def delete_stored(self, stream: str, stream_seq: int) -> bool:
        """Delete one message of a stream; whether it was there.

        Raises:
            Unconfirmed: nobody answered.
        """
        request = json.dumps({"seq": stream_seq, "no_erase": True}).encode()
        answer = await self._ask(f"$JS.API.STREAM.MSG.DELETE.{stream}", request)
        return answer.get("success") is True

    # --- objects ------------------------------------------------------------------------------------------------------

    async def put_object(self, name: str, data: bytes, description: str = "") -> None:
        """Keep `data` under `name`, replacing what was there.

        Raises:
            Unconfirmed
        """
        try:
            bucket = await self._bucket()
            await bucket.put(name, data, meta=ObjectMeta(description=description))
        except (nats.errors.Error, TimeoutError) as error:
            raise Unconfirmed(f"object {name}: {error or type(error).__name__}") from None

    async def get_object(self, name: str) -> bytes:
        """What is kept under `name`.

        Raises:
            KeyError: nothing is.
            Unconfirmed
        """
        return (await self.get_described_object(name))[0]

    async def get_described_object(self, name: str) -> tuple[bytes, str]:
        """What is kept under `name`, with its description.

        Raises:
            KeyError: nothing is.
            Unconfirmed
        """
        try:
            bucket = await self._bucket()
            # By itself the client library puts each chunk behind a copy of all before it: 10 s for 50 MB.
            data = io.BytesIO()
            found = await within(OBJECT_TIMEOUT_S, bucket.get(name, writeinto=data))
        except NotFoundError:
            raise KeyError(name) from None
        except (nats.errors.Error, TimeoutError) as error:
            raise Unconfirmed(f"object {name}: {error or type(error).__name__}") from None
        return data.getvalue(), found.info.description or ""

    async def object_description(self, name: str) -> str:
        """The description of what is kept under `name`; its data is not read.

        Raises:
            KeyError: nothing is.
            Unconfirmed
        """
        try:
            bucket = await self._bucket()
            found = await within(OBJECT_TIMEOUT_S, bucket.get_info(name))
        except NotFoundError:
            raise KeyError(name) from None
        except (nats.errors.Error, TimeoutError) as error:
            raise Unconfirmed(f"object {name}: {error or type(error).__name__}") from None
        return found.description or ""

    async def has_object(self, name: str) -> bool:
        """Whether something is kept under `name`; its data is not read.

        Raises:
            Unconfirmed
        """
        try:
            bucket = await self._bucket()
            await within(OBJECT_TIMEOUT_S, bucket.get_info(name))
        except NotFoundError:
            return False
        except (nats.errors.Error, TimeoutError) as error:
            raise Unconfirmed(f"object {name}: {error or type(error).__name__}") from None
        return True

    async def delete_object(self, name: str) -> None:
        """Forget what is kept under `name`; nothing there is no error.

        Raises:
            Unconfirmed
        """
        try:
            bucket = await self._bucket()
            await bucket.delete(name)
        except NotFoundError:
            return
        except (nats.errors.Error, TimeoutError) as error:
            raise Unconfirmed(f"object {name}: {error or type(error).__name__}") from None
        # The client library leaves a note about each object that was deleted, for ever.
        await self.purge(_OBJECTS, _OBJECT_META + urlsafe_b64encode(name.encode()).decode())

    async def objects(self, prefix: str) -> AsyncIterator[Kept]:
        """All objects whose names start so. It reads what is known of every object: for what is done rarely.

        Raises:
            Unconfirmed
        """
        async for info in self._object_infos():
            try:
                name, age_s = info["name"], _age_s(info["mtime"])
            except (KeyError, TypeError, ValueError):
                continue
            if name.startswith(prefix):
                yield Kept(name, info.get("description") or "", age_s)

    async def drop_stray_chunks(self, age_s: float) -> int:
        """Remove what is left of objects whose storing was begun and never finished, and whose last piece is so old at
        least; of how many. It reads what is known of every object, as `objects` does.

        Args:
            age_s: far more than storing an object and this call take.

        Raises:
            Unconfirmed
        """
        kept = {info.get("nuid") async for info in self._object_infos()}
        strays: list[str] = []
        offset = 0
        while True:  # at most 100,000 at once
            answer = await self.api(f"STREAM.INFO.{_OBJECTS}", subjects_filter=f"{_OBJECT_CHUNKS}*", offset=offset)
            found = answer.get("state", {}).get("subjects") or {}
            if not found:
                break
            strays += [subject for subject in found if subject.removeprefix(_OBJECT_CHUNKS) not in kept]
            offset += len(found)
        dropped = 0
        for subject in strays:
            answer = await self.api(f"STREAM.MSG.GET.{_OBJECTS}", last_by_subj=subject)
            if "message" in answer and _age_s(answer["message"]["time"]) > age_s:
                await self.purge(_OBJECTS, subject)
                dropped += 1
        return dropped

    async def _object_infos(self) -> AsyncIterator[dict[str, Any]]:
        """What the client library keeps of each object that was not deleted."""
        async for _, data, _ in self.later(_OBJECTS, f"{_OBJECT_META}*"):
            try:
                info = msgspec.json.decode(data)
            except msgspec.DecodeError:
                continue
            if isinstance(info, dict) and not info.get("deleted"):
                yield info

    async def _bucket(self) -> ObjectStore:
        if self._objects is None:
            self._objects = await self.client.jetstream(timeout=5).object_store(subjects.DOCUMENTS_BUCKET)
        return self._objects

    async def stream_state(self, stream: str) -> dict[str, Any]:
        """The stream's state as JetStream tells it (`messages`, `bytes`, …); empty where there is no such stream.

        Raises:
            Unconfirmed: nobody answered.
        """
        state: dict[str, Any] = (await self.api(f"STREAM.INFO.{stream}")).get("state", {})
        return state

    async def api(self, name: str, /, **request: Any) -> dict[str, Any]:
        """An answer of the JetStream API. That a stream, a consumer or a message is not found is an answer too.

        Raises:
            Unconfirmed: nobody answered, or with another error.
        """
        answer = await self._ask(f"$JS.API.{name}", json.dumps(request).encode() if request else b"")
        if (error := answer.get("error")) is not None and error.get("err_code") not in _NOT_FOUND:
            raise Unconfirmed(f"{name}: {error.get('description', 'unknown answer from JetStream')}")
        return answer

    # --- plain messages -----------------------------------------------------------------------------------------------

    async def subscribe(self, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Call `callback` for each message; one at a time, so it must be quick.

        Raises:
            Unconfirmed: there is no connection.
        """
        try:
            return await self.client.subscribe(subject, cb=callback)
        except nats.errors.Error as error:
            raise Unconfirmed(str(error)) from None

    async def follow(self, at: LogAddress, callback: Callable[[Stored], None]) -> Callable[[], Awaitable[None]]:
        """Call `callback` with each message that is stored in a log from now on; returns how to stop.

        Raises:
            Unconfirmed: there is no connection.
        """
        run = contextvars.copy_context().run  # so that what it logs is about the request it is called for
        on_message = AtOnce.of(lambda data, stream_seq: run(callback, Stored(data, stream_seq)))
        subscription = await self.subscribe(subjects.live_subject(at), on_message)

        async def stop() -> None:
            await quietly(subscription.unsubscribe())

        return stop

    async def publish(self, subject: str, data: bytes, reply: str = "", headers: dict[str, str] | None = None) -> None:
        """Send without an answer; it may be lost, and while NATS is away it is."""
        await quietly(self.client.publish(subject, data, reply=reply, headers=headers))

    async def request(self, subject: str, data: bytes, seconds: float = REQUEST_TIMEOUT_S) -> bytes:
        """Send and wait for an answer.

        Raises:
            Unconfirmed: none came.
        """
        try:
            answer = await self.client.request(subject, data, timeout=seconds)
        except (nats.errors.Error, TimeoutError) as error:
            raise Unconfirmed(f"{subject}: {error or type(error).__name__}") from None
        return answer.data

    async def answer(self, subject: str, respond: Callable[[bytes], bytes | None]) -> None:
        """Answer every request on a subject with what `respond` gives; None leaves it to others.

        Raises:
            Unconfirmed: there is no connection.
        """

        async def on_request(message: Msg) -> None:
            answer = respond(message.data)
            if answer is not None and message.reply:
                await self.publish(message.reply, answer)

        await self.subscribe(subject, on_request)

    async def _ask(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> dict[str, Any]:
        try:
            answer = await self.client.request(subject, data, timeout=REQUEST_TIMEOUT_S, headers=headers)
            parsed: dict[str, Any] = msgspec.json.decode(answer.data)
        except (nats.errors.Error, TimeoutError, msgspec.DecodeError) as error:
            raise Unconfirmed(f"{subject}: {error or type(error).__name__}") from None
        return parsed


def _age_s(time: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()


async def within(seconds: float, awaitable: Awaitable[T]) -> T:
    """Await for so long at most. Not `asyncio.wait_for`: before Python 3.12 it may swallow a cancellation that comes at
    the moment its awaitable ends, and a task that was told to stop goes on for ever.

    Raises:
        TimeoutError
    """
    async with asyncio.timeout(seconds):
        return await awaitable


async def end_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended, whatever they end with.

    They are told again every now and then: nats-py waits with `asyncio.wait_for`, which may swallow a cancellation
    before Python 3.12 (see `within`), and a loop around it would go on for ever. Not for tasks that clean up slowly.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)


async def quietly(awaitable: Awaitable[Any]) -> None:
    """Await what may fail because NATS is away, where nothing can be done about it."""
    try:
        await awaitable
    except (TimeoutError, nats.errors.Error, OSError) as error:
        log.debug("ignored: %s", error)
