"""Who is let in, who waits, and for how long: floods, places, full queues, deadlines; on real gateways."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets

from baton_proto import codec, subjects
from baton_proto.messages import Announcement, Done, Error, LogFrame, Timings, Usage, WorkRef
from services.common import waiting
from services.common.job import Job
from services.common.log import read_log
from services.common.presence import announce
from services.common.streams import ensure_consumer
from tests.integration.test_gateway_protocol import SECRET, connected, gateway, receive, token
from tests.rig import Rig, rig
from tests.servers.nats import Nats
from tests.servers.processes import Process, eventually
from tests.system import workers_alive

Frame = dict[str, Any]
SERVICE_S = 0.1
MANY = {"BATON_REQUESTS_PER_CONNECTION": "300", "BATON_REQUESTS_PER_USER": "300"}


def _end() -> Done:
    return Done(finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=Timings())


async def _slow(job: Job) -> None:
    await asyncio.sleep(SERVICE_S)
    await job.finish(_end())


async def _hang(_: Job) -> None:
    await asyncio.Event().wait()


class Client:
    """One connection of one user; `ended` has each request's last frame and when it came."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self.ended: dict[str, tuple[Frame, float]] = {}
        self.accepted: set[str] = set()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while True:
            try:
                data = await self._socket.recv()
            except websockets.ConnectionClosed:
                return
            frame = json.loads(data)
            if frame["type"] == "accepted":
                self.accepted.add(frame["request_id"])
            elif frame["type"] in ("done", "error"):
                self.ended[frame["request_id"]] = frame, time.monotonic()

    async def ask(self, name: str, **fields: Any) -> None:
        self.ended.pop(name, None)
        await self._socket.send(json.dumps({"query": "q", "request_id": name, **fields}))

    async def send(self, **message: Any) -> None:
        await self._socket.send(json.dumps(message))

    async def end_of(self, name: str) -> Frame:
        await eventually(lambda: name in self.ended, f"{name} has ended")
        return self.ended[name][0]

    async def is_told(self, name: str) -> None:
        """Ask, and wait until it is accepted or refused."""
        await self.ask(name)
        await eventually(lambda: name in self.accepted or name in self.ended, f"{name} is accepted or refused")

    async def is_accepted(self, *names: str) -> None:
        await eventually(lambda: self.accepted >= set(names), f"{names} are accepted")


@contextlib.asynccontextmanager
async def client(port: int, user: str | None = "alice") -> AsyncIterator[Client]:
    """A connection to a gateway that has heard of the workers."""
    stages = {"retrieve"}
    await eventually(lambda: _hears(port, stages), "the gateway knows the workers")
    headers = {"Authorization": f"Bearer {token(sub=user)}"} if user else {}
    async with connected(port, additional_headers=headers) as socket:
        assert (await receive(socket))["type"] == "hello"
        yield Client(socket)


async def _hears(port: int, stages: set[str]) -> bool:
    return stages <= set(await asyncio.to_thread(workers_alive, port))


@contextlib.asynccontextmanager
async def only_announced(one: Rig, slots: int = 1) -> AsyncIterator[None]:
    """A retriever that is there but takes nothing: what is asked stays in the queue."""
    said = Announcement(worker="asleep", stage="retrieve", slots=slots, running=0)
    await ensure_consumer(one.bus, "retrieve", 2.0, slots)
    saying = asyncio.create_task(announce(one.bus, lambda: said))
    try:
        yield
    finally:
        saying.cancel()
        await asyncio.gather(saying, return_exceptions=True)


@contextlib.contextmanager
def gateways(folder: Path, nats: Nats, count: int, **settings: str) -> Iterator[list[tuple[int, Process]]]:
    with contextlib.ExitStack() as stack:
        running = []
        for number in range(count):
            (folder / str(number)).mkdir()
            running.append(stack.enter_context(gateway(folder / str(number), nats, **settings)))
        yield running


def _run(
    nats: Nats,
    folder: Path,
    scenario: Callable[[Rig, list[tuple[int, Process]]], Awaitable[None]],
    count: int = 1,
    **settings: str,
) -> None:
    async def main(running: list[tuple[int, Process]]) -> None:
        async with rig(nats.url) as one:
            await scenario(one, running)

    with gateways(folder, nats, count, **{"BATON_JWT_SECRET": SECRET, **settings}) as running:
        asyncio.run(main(running))


def _key(request_id: str, user: str = "alice") -> str:
    return subjects.request_key(user, request_id)


async def _last(one: Rig, request_id: str) -> LogFrame | None:
    position = await read_log(one.bus, one.bus.address(_key(request_id)))
    return position.final if position else None


async def _places(one: Rig) -> int:
    return (await waiting.stream_state(one.bus, subjects.RUNNING_STREAM)).messages


async def _waiting(one: Rig) -> int:
    return (await waiting.stream_state(one.bus, subjects.WAITING_STREAM)).messages


@pytest.mark.parametrize(
    ("users", "count"), [(("alice", "bob"), 200), ((None, None), 120)], ids=["users", "connections without users"]
)
def test_who_asks_one_question_does_not_wait_behind_a_flood(
    nats: Nats, tmp_path: Path, users: tuple[str | None, str | None], count: int
) -> None:
    flood = [f"flood-{number}" for number in range(count)]
    begun: list[str] = []
    gate = asyncio.Event()
    gate.set()

    async def slow(job: Job) -> None:
        begun.append(job.item.request_id)
        await asyncio.sleep(SERVICE_S / 4)
        await gate.wait()
        await job.finish(_end())

    async def scenario(one: Rig, running: list[tuple[int, Process]]) -> None:
        (first, _), (second, _) = running
        async with (
            one.worker(slow, concurrency=4),
            client(first, users[0]) as alice,
            client(second, users[1]) as bob,
        ):
            for name in flood:
                await alice.ask(name)
            await eventually(lambda: len(alice.ended) >= count / 5, "the flood is being answered")
            # However long the machine takes for his question, nothing is served meanwhile: only the order counts.
            gate.clear()
            before = len(begun)
            await bob.ask("one")
            await eventually(lambda: _is_in_a_queue(one, "one", users[1] or "anonymous"), "his question is queued")
            gate.set()
            assert (await bob.end_of("one"))["type"] == "done"
            passed, left = begun.index("one") - before, count - before
            assert passed < left / 3, f"{passed} of the {left} that waited were served before it"
            await eventually(lambda: len(alice.ended) == len(flood), "the flood is answered")
            assert {frame["type"] for frame, _ in alice.ended.values()} == {"done"}
            await eventually(lambda: _nothing_left(one), "nothing is left in a queue or a place")

    settings = {} if users[0] else {"BATON_JWT_SECRET": ""}
    _run(nats, tmp_path, scenario, count=2, **MANY, **settings)


async def _nothing_left(one: Rig) -> bool:
    return (await _places(one), await _waiting(one), await one.queued()) == (0, 0, 0)


def test_a_user_has_so_many_places_over_all_gateways_together(nats: Nats, tmp_path: Path) -> None:
    async def scenario(one: Rig, running: list[tuple[int, Process]]) -> None:
        (first, _), (second, _) = running
        async with (
            one.worker(_hang, drain_s=0.0),
            client(first) as here,
            client(second) as there,
            client(second, "bob") as bob,
        ):
            for side, name in ((here, "a"), (there, "b"), (here, "c"), (there, "d")):
                await side.ask(name)
                await side.is_accepted(name)
            for side in (here, there):
                await side.ask("e")
                refused = await side.end_of("e")
                assert (refused["code"], refused["retryable"]) == ("rate_limited", True)
                assert refused["retry_after_ms"] > 0
                assert "4 of your requests" in refused["message"]
                assert "seq" not in refused
            await bob.ask("e")
            await bob.is_accepted("e")
            # A request that runs is attached to, also at the limit, and takes no second place.
            await there.ask("a")
            await there.is_accepted("a")
            assert await _places(one) == 5
            await here.send(type="cancel", request_id="a")
            assert (await here.end_of("a"))["finish_reason"] == "cancelled"
            await eventually(lambda: _has_places(one, 4), "the place is free again")
            await there.ask("e")
            await there.is_accepted("e")

    _run(nats, tmp_path, scenario, count=2, BATON_REQUESTS_PER_USER="4")


async def _has_places(one: Rig, count: int) -> bool:
    return await _places(one) == count


def test_sending_a_known_request_again_leaves_the_places_as_they_are(nats: Nats, tmp_path: Path) -> None:
    async def scenario(one: Rig, running: list[tuple[int, Process]]) -> None:
        async with one.worker(_hang, drain_s=0.0), client(running[0][0]) as alice, client(running[1][0]) as again:
            await alice.ask("a")
            await alice.is_accepted("a")
            await again.ask("a")
            await again.is_accepted("a")
            await eventually(lambda: _has_places(one, 1), "the second place was given back")

    _run(nats, tmp_path, scenario, count=2)


def test_a_lost_gateways_waiting_requests_go_on_and_its_places_come_back(nats: Nats, tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def wait_at_the_gate(job: Job) -> None:
        await gate.wait()
        await job.finish(_end())

    names = [f"r{number}" for number in range(12)]

    async def scenario(one: Rig, running: list[tuple[int, Process]]) -> None:
        async with one.worker(wait_at_the_gate, concurrency=2), client(running[0][0]) as alice:
            for name in names:
                await alice.ask(name)
            await alice.is_accepted(*names)
            await _are_queued(one, *names)
            assert await _waiting(one) >= 3  # two are held, two are next, or twice two where both gateways saw room
            running[0][1].kill()
            gate.set()
            for name in names:
                await eventually(lambda name=name: _is_done(one, name), f"{name} is answered")  # type: ignore[misc]
            await eventually(lambda: _nothing_left(one), "nothing is left in a queue or a place")

    _run(nats, tmp_path, scenario, count=2, BATON_DIRECT_REQUESTS="1")


async def _is_waiting(one: Rig, count: int) -> bool:
    return await _waiting(one) == count


async def _is_done(one: Rig, name: str) -> bool:
    return isinstance(await _last(one, name), Done)


def test_places_of_a_lost_gateway_come_back_though_nobody_ends_the_requests(nats: Nats, tmp_path: Path) -> None:
    async def scenario(one: Rig, running: list[tuple[int, Process]]) -> None:
        async with only_announced(one), client(running[0][0]) as alice, client(running[1][0]) as elsewhere:
            # While it is alive, its gateway would end it one and a half seconds after its deadline.
            await alice.ask("a", deadline_ms=3000)
            await alice.is_accepted("a")
            running[0][1].kill()
            await elsewhere.ask("b")
            assert (await elsewhere.end_of("b"))["code"] == "rate_limited"

            async def let_in() -> bool:
                await elsewhere.ask("b")
                await eventually(lambda: "b" in elsewhere.ended or "b" in elsewhere.accepted, "an answer")
                return "b" in elsewhere.accepted

            await eventually(let_in, "the place is free")

    _run(nats, tmp_path, scenario, count=2, BATON_REQUESTS_PER_USER="1")


def test_a_full_queue_refuses_at_once_and_the_request_may_be_sent_again(nats: Nats, tmp_path: Path) -> None:
    names = [f"r{number}" for number in range(20)]

    async def scenario(one: Rig, running: list[tuple[int, Process]]) -> None:
        port = running[0][0]
        async with only_announced(one, slots=100), client(port) as alice, client(port, "bob") as bob:
            # 7 tenths of 20, and not one more; then those who have little running, up to the part that is kept for
            # answers that have begun.
            await _are_let_in_but_no_more(alice, names, 14)
            await _are_let_in_but_no_more(bob, [f"b{number}" for number in range(7)], 4)
            for frame, _ in [*alice.ended.values(), *bob.ended.values()]:
                assert (frame["code"], frame["retryable"]) == ("overloaded", True)
                assert 1000 <= frame["retry_after_ms"] <= 30_000
                assert "seq" not in frame
            again = next(iter(alice.ended))
            async with one.worker(_slow, concurrency=100):
                await eventually(lambda: _nothing_left(one), "the queue has drained")

                async def let_in() -> bool:
                    await alice.ask(again)
                    return (await alice.end_of(again))["type"] == "done"

                await eventually(let_in, "the refused request is answered")

    _run(nats, tmp_path, scenario, BATON_WORK_MAX_ITEMS="20")


async def _are_let_in_but_no_more(who: Client, names: list[str], count: int) -> None:
    """The first so many of the names are accepted, the others are refused at once."""

    async def let_in(name: str) -> bool:
        await who.is_told(name)
        return name in who.accepted

    for name in names[:count]:
        # What was on its way while the queues were looked at counts twice until they are looked at again.
        await eventually(lambda name=name: let_in(name), f"{name} is let in")  # type: ignore[misc]
    for name in names[count:]:
        asked = time.monotonic()
        assert not await let_in(name)
        assert who.ended[name][1] - asked < 5


def test_a_request_whose_time_is_up_while_it_waits_is_ended_though_its_gateway_is_lost(
    nats: Nats, tmp_path: Path
) -> None:
    async def scenario(one: Rig, running: list[tuple[int, Process]]) -> None:
        async with only_announced(one), client(running[0][0]) as alice:
            for name in names:
                await alice.ask(name, deadline_ms=6000)
            await alice.is_accepted(*names)

            await _are_queued(one, *names)
            running[0][1].kill()
            await eventually(lambda: _is_waiting(one, 0), "none waits any more")
            # Each of the two gateways may have moved one or two on before it saw that the workers have enough to do.
            moved_on = await _keys(one, subjects.WORK_STREAM)
            assert 1 <= len(moved_on) <= 4
            for name in names:
                if _key(name) not in moved_on:
                    last = await _last(one, name)
                    assert isinstance(last, Error)
                    assert last.code == "deadline"

    names = [f"r{number}" for number in range(6)]
    _run(nats, tmp_path, scenario, count=2, BATON_DIRECT_REQUESTS="1")


async def _are_queued(one: Rig, *names: str) -> None:
    """Each is with the workers or waits: a client hears that its request is accepted a moment before that."""
    keys = {_key(name) for name in names}

    async def all_are() -> bool:
        return await _keys(one, subjects.WORK_STREAM) | await _keys(one, subjects.WAITING_STREAM) == keys

    await eventually(all_are, f"{names} are queued")


async def _is_in_a_queue(one: Rig, name: str, user: str) -> bool:
    key = _key(name, user)
    return key in await _keys(one, subjects.WORK_STREAM) or key in await _keys(one, subjects.WAITING_STREAM)


async def _keys(one: Rig, stream: str) -> set[str]:
    """Of the requests whose references are in a stream."""
    found, seq = set(), 0
    while "message" in (answer := await one.bus.api(f"STREAM.MSG.GET.{stream}", seq=seq + 1, next_by_subj=">")):
        seq = answer["message"]["seq"]
        found.add(codec.decode(b64decode(answer["message"]["data"]), WorkRef).key)
    return found


def test_work_whose_time_was_up_in_the_queue_is_not_begun(nats: Nats, tmp_path: Path) -> None:
    begun: list[str] = []

    async def note(job: Job) -> None:
        begun.append(job.item.request_id)
        await job.finish(_end())

    async def scenario(one: Rig, running: list[tuple[int, Process]]) -> None:
        async with only_announced(one, slots=100), client(running[0][0]) as alice:
            for number in range(10):
                await alice.ask(f"r{number}", deadline_ms=5000)
            await alice.is_accepted(*(f"r{number}" for number in range(10)))
            asked = time.monotonic()
            await _are_queued(one, *(f"r{number}" for number in range(10)))
            await eventually(lambda: _is_waiting(one, 0), "all are with the workers")
        running[0][1].kill()
        await eventually(lambda: time.monotonic() > asked + 5.0, "their time is up")
        async with one.worker(note):
            await eventually(lambda: _is_queued(one, 0), "the queue is empty")
        assert begun == []
        for number in range(10):
            last = await _last(one, f"r{number}")
            assert isinstance(last, Error)
            assert last.code == "deadline"

    _run(nats, tmp_path, scenario)


async def _is_queued(one: Rig, count: int) -> bool:
    return await one.queued() == count


def test_a_waiting_request_can_be_cancelled_and_followed_without_jumping_the_queue(nats: Nats, tmp_path: Path) -> None:
    begun: list[str] = []

    async def note(job: Job) -> None:
        begun.append(job.item.request_id)
        await job.finish(_end())

    async def scenario(one: Rig, running: list[tuple[int, Process]]) -> None:
        (first, _), (second, _) = running
        async with only_announced(one), client(first) as alice, client(second) as elsewhere:
            names = ("x", "y", "a", "b", "c", "d")
            for number, name in enumerate(names, start=1):
                await alice.ask(name)
                await alice.is_accepted(name)
                await _are_queued(one, *names[:number])
            await elsewhere.send(type="resume", request_id="d", after_seq=-1)
            await elsewhere.ask("c")
            await elsewhere.is_accepted("c", "d")
            await eventually(lambda: _lie_in_one_queue_each(one, 6), "each lies in one queue, and once")
            # A gateway that stood still may only now move on one of the first, for which it saw room.
            assert await _keys(one, subjects.WAITING_STREAM) >= {_key("c"), _key("d")}
            await elsewhere.send(type="cancel", request_id="b")
            assert (await alice.end_of("b"))["finish_reason"] == "cancelled"
            async with one.worker(note):
                for name in ("x", "y", "a", "c", "d"):
                    assert (await alice.end_of(name))["type"] == "done"
            assert sorted(begun) == ["a", "c", "d", "x", "y"]

    _run(nats, tmp_path, scenario, count=2, BATON_DIRECT_REQUESTS="1")


async def _lie_in_one_queue_each(one: Rig, count: int) -> bool:
    return await one.queued() + await _waiting(one) == count


def test_while_workers_are_free_waiting_for_a_turn_costs_next_to_nothing(nats: Nats, tmp_path: Path) -> None:
    """Thirty at once on one connection, most of them beyond the direct ones, against all of them direct."""

    async def thirty(port: int, name: str) -> float:
        async with client(port) as alice:
            asked = time.monotonic()
            for number in range(30):
                await alice.ask(f"{name}-{number}")
            await eventually(lambda: len(alice.ended) == 30, "all are answered")
            return max(at for _, at in alice.ended.values()) - asked

    async def scenario(one: Rig, fair: int, direct: int) -> None:
        # What waiting costs, it costs in every round; what a busy machine does to one of a pair, it does to some.
        took: list[tuple[float, float]] = []
        async with one.worker(_slow, concurrency=32):
            while not took or (took[-1][0] >= 2 * took[-1][1] and len(took) < 6):
                turn = len(took)
                took.append((await thirty(fair, f"f{turn}"), await thirty(direct, f"d{turn}")))
        assert took[-1][0] < 2 * took[-1][1], took

    (tmp_path / "fair").mkdir()
    (tmp_path / "direct").mkdir()
    settings = {"BATON_JWT_SECRET": SECRET}
    with (
        gateway(tmp_path / "fair", nats, **settings) as (fair, _),
        gateway(tmp_path / "direct", nats, BATON_DIRECT_REQUESTS="1000", **settings) as (direct, _),
    ):

        async def main() -> None:
            async with rig(nats.url) as one:
                await scenario(one, fair, direct)

        asyncio.run(main())
