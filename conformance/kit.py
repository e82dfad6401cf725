"""What a check works with: the worker under test, what is asked of it, and how requests are made for it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from baton_proto import codec, subjects
from baton_proto.messages import LogFrame, Passage, ToolCall, ToolSpec, WorkItem
from services.common.bus import Bus, Unconfirmed
from services.common.clock import now_ms

from .process import WorkerProcess
from .promise import Kind, NotSeen
from .request import Request
from .witness import Witness

DEADLINE_MS = 600_000
"""Of a good item: enough for one that waits while a slow worker deals with others."""
CHANGE_TRIES, CLEAN_TRIES = 10, 3
QUESTION = "How many days of annual leave do employees have, and what becomes of days not taken?"
_LEAVE = (
    "Employees have 20 days of annual leave each calendar year. Days not taken by 31 December can be carried over "
    "until 31 March. After that date unused annual leave expires. Part-time employees have annual leave in proportion."
)
_NOTICE = (
    "Annual leave of more than five days is requested two weeks ahead. The manager answers within three working days. "
    "Leave that was granted can be moved once."
)
PASSAGES = (
    Passage(n=1, id="p1", document_id="d1", title="Annual leave", url="/documents/d1", text=_LEAVE, score=2.0),
    Passage(n=2, id="p2", document_id="d2", title="Requesting leave", url="/documents/d2", text=_NOTICE, score=1.0),
)


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked.

    Attributes:
        calls: what a tools worker is to run, each with its tool's name and arguments.
        restricted: a group, and the id of a document that only it may read and that the question finds.
        patience_s: bounds every wait for the worker's part in one request.
        start_s: bounds the wait for the worker to announce itself.
    """

    question: str = QUESTION
    calls: Sequence[tuple[str, dict[str, Any]]] = ()
    restricted: tuple[str, str] | None = None
    patience_s: float = 20.0
    start_s: float = 60.0
    attempts: int = 10
    """Tries to get in between a worker's first frame and its last."""


@dataclass
class Kit:
    """One worker under test."""

    bus: Bus
    kind: Kind
    stage: str
    witness: Witness
    options: Options
    process: WorkerProcess | None = None
    alone: bool = False
    """Whether the NATS is the kit's own, so that it may do to its streams what it likes."""
    owner: str = field(default_factory=lambda: f"conformance-{secrets.token_hex(6)}")
    requests: list[Request] = field(default_factory=list)
    announcing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the check whose tool is announced: a generator sees the tools of all."""
    _blocking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _blocker: asyncio.Task[Any] | None = None
    """Who holds `_blocking`."""

    @property
    def variant(self) -> str:
        return self.witness.variant

    @property
    def patience_s(self) -> float:
        return self.options.patience_s

    @property
    def ack_wait_s(self) -> float:
        return self.witness.ack_wait_s

    @property
    def again_s(self) -> float:
        """Longest wait for an item that is delivered again."""
        return self.ack_wait_s * 2 + self.patience_s

    @property
    def slots(self) -> int:
        """Requests that the worker serves at once, as it says."""
        return max(1, sum(said.slots for said in self.witness.present()))

    def item(self, **changes: Any) -> dict[str, Any]:
        """A good item for this worker, as the map that travels; `changes` may hold fields that nobody knows."""
        request_id = f"conformance-{secrets.token_hex(8)}"
        key = subjects.request_key(self.owner, request_id)
        now = now_ms()
        item = WorkItem(
            stage=self.stage,
            key=key,
            shard=self.bus.address(key).shard,
            request_id=request_id,
            owner=self.owner,
            query=self.options.question,
            language="en",
            received_ms=now,
            queued_ms=now,
            deadline_ms=now + DEADLINE_MS,
            cache=False,
            variant=self.variant,
            varied=[self.stage] if self.variant else [],
            passages=[] if self.kind == "retriever" else list(PASSAGES),
            calls=self.calls() if self.kind == "tools" else [],
        )
        return {**codec.item_to_map(item), **changes}

    def calls(self) -> list[ToolCall]:
        """The calls that a tools worker is given, each with an id of its own."""
        named = self.options.calls or [(spec.name, _arguments(spec)) for spec in self.tools()[:2]]
        return [ToolCall(call_id=f"call_{secrets.token_hex(4)}", name=name, arguments=args) for name, args in named]

    def tools(self) -> list[ToolSpec]:
        """The tools that the worker has announced last.

        Raises:
            NotSeen: none.
        """
        for said, _ in reversed(self.witness.announced):
            if said.tools:
                return said.tools
        raise NotSeen("the worker announces no tool; name calls for it with --call NAME=JSON")

    async def request(
        self,
        item: Mapping[str, Any] | None = None,
        *,
        written: Sequence[LogFrame] = (),
        unknown: bool = False,
        as_object: bool = False,
        droppable: bool = False,
        among: int = 1,
    ) -> Request:
        """A request whose log has come to this worker's stage, with what an earlier holder has `written` since; nobody
        has been told yet.

        Args:
            item: fields of the item that are not the usual ones.
            unknown, as_object, droppable: as in `Request`.
            among: so many requests wait for the worker together; one with fewer slots gets the more time.
        """
        fields = self.item(**(item or {}))
        how = {"unknown": unknown, "as_object": as_object}
        patience_s = self.patience_s * math.ceil(among / self.slots)
        one = Request(self.bus, self.kind, self.witness, fields, patience_s, **how)
        one.droppable = droppable
        self.requests.append(one)
        await one.open(written)
        return one

    async def answered(self) -> list[LogFrame]:
        """The frames that the worker wrote to a good request, from the telling to the end, all its promises checked."""
        one = await self.request()
        await one.tell()
        return await one.finished()

    @asynccontextmanager
    async def blocked(self, *requests: Request) -> AsyncIterator[None]:
        """Let the streams of these requests' logs take nothing, and say so to whoever appends; one check at a time.

        Raises:
            NotSeen: it is somebody else's NATS.
        """
        if not self.alone:
            raise NotSeen("it takes a NATS of the kit's own: leave out --nats")
        async with self.unblocked(), AsyncExitStack() as stack:
            for stream in {subjects.log_stream(one.at.shard) for one in requests}:
                config = (await self.bus.api(f"STREAM.INFO.{stream}"))["config"]
                stack.push_async_callback(self._change, stream, config)
                await self.bus.api(f"STREAM.UPDATE.{stream}", **{**config, "max_msg_size": 1})
            yield

    async def _change(self, stream: str, config: dict[str, Any]) -> None:
        """Give a stream this configuration; again where NATS does not answer, or it would take nothing for ever."""
        for left in reversed(range(CHANGE_TRIES)):
            try:
                await self.bus.api(f"STREAM.UPDATE.{stream}", **config)
            except Unconfirmed:
                if not left:
                    raise
            else:
                return

    @asynccontextmanager
    async def unblocked(self) -> AsyncIterator[None]:
        """Let no other check block a log meanwhile: a worker whose log takes nothing is late without any fault."""
        if self._blocker is asyncio.current_task():
            yield
            return
        async with self._blocking:
            self._blocker = asyncio.current_task()
            try:
                yield
            finally:
                self._blocker = None

    async def met(self, *requests: Request) -> None:
        """Tell the worker of requests whose logs are `blocked`, and wait until it holds them: a quick one is not met
        in the middle of its work otherwise.

        Raises:
            NotSeen: it does not come to write anything.
        """
        for one in requests:
            await one.tell()
        for one in requests:
            if not await self.witness.until(lambda one=one: bool(one.attempts), one.patience_s):  # type: ignore[misc]
                raise NotSeen(f"it did not begin to write within {one.patience_s:g} s; more time by --timeout may help")

    async def clean_up(self) -> None:
        """Leave nothing of these requests in NATS."""
        for request in self.requests:
            for _ in range(CLEAN_TRIES):
                with contextlib.suppress(Unconfirmed):
                    await request.forget()
                    break


def _arguments(spec: ToolSpec) -> dict[str, Any]:
    """Arguments that fit a tool's schema in simple cases; where they do not, that is a result with `ok` false."""
    properties = spec.parameters.get("properties") or {}
    wanted = spec.parameters.get("required") or []
    return {name: _value(properties.get(name) or {}) for name in wanted}


def _value(schema: dict[str, Any]) -> Any:
    for key in ("default", "const"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if schema.get(key):
            return schema[key][0]
    kind = schema.get("type")
    simple: dict[Any, Any] = {"integer": schema.get("minimum", 1), "number": schema.get("minimum", 1), "boolean": True}
    return simple.get(kind, [] if kind == "array" else {} if kind == "object" else "1")
