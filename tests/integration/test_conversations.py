"""Conversations: follow-ups, a second question while one runs, and what is kept; two real gateways, workers in this
process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec
import pytest
import websockets
from nats.js.api import DiscardPolicy, KeyValueConfig

from baton_proto import codec, subjects
from baton_proto.messages import (
    AnswerChunk,
    Conversation,
    ConversationTurn,
    Done,
    Returned,
    RunningTurn,
    Source,
    Sources,
    Timings,
    Usage,
    WorkItem,
)
from services.common import claims, conversations
from services.common.bus import Refused
from services.common.clock import now_ms
from services.common.config import NatsSettings
from services.common.connection import connect
from services.common.endings import record_end, stored_answer
from services.common.errors import ServiceError
from services.common.job import Job
from services.common.turns import begun, entered
from tests.integration.test_gateway_protocol import SECRET, connected, gateway, receive, token
from tests.rig import Rig, RunningWorker, rig
from tests.servers.nats import Nats, nats_server
from tests.servers.processes import eventually
from tests.system import Frame, answer, assert_contiguous, workers_alive

SOURCE = Source(n=1, id="p", document_id="d", title="t", url="/documents/d", snippet="s", score=1.0)


def _done(reason: str = "stop") -> Done:
    return Done(finish_reason=reason, cited=[1], citations=[], usage=Usage(), timings=Timings())  # type: ignore[arg-type]


@dataclass
class Answering:
    """Answers "re <query> [1]". A query that begins with `slow` has half of its answer and then waits for `proceed`."""

    begun: list[str] = field(default_factory=list)
    seen: dict[str, WorkItem] = field(default_factory=dict)
    proceed: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, job: Job) -> None:
        query = job.item.query
        self.begun.append(query)
        self.seen[query] = job.item
        if not job.written:
            await job.write(Sources(sources=[SOURCE]))
            await job.write(AnswerChunk(content="re "))
        if query.startswith("slow"):
            await job.flush()
            await self.proceed.wait()
        if query.startswith("failing"):
            raise ServiceError("model_failed", "no")
        await job.write(AnswerChunk(content=f"{query} [1]"))
        await job.finish(_done())


class User:
    """One connection of somebody; the frames of each request as they come."""

    def __init__(self, socket: Any, port: int, headers: dict[str, str]) -> None:
        self._socket = socket
        self._port = port
        self._headers = headers
        self.frames: dict[str, list[Frame]] = {}
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            async for data in self._socket:
                frame = json.loads(data)
                self.frames.setdefault(frame.get("request_id", ""), []).append(frame)

    async def send(self, **message: Any) -> None:
        await self._socket.send(json.dumps(message))

    async def ask(self, query: str, conversation: str | None, **fields: Any) -> str:
        """Ask, and wait until it is accepted or refused; returns the request id."""
        name = fields.pop("request_id", None) or f"r{secrets.token_hex(4)}"
        named = {"conversation_id": conversation} if conversation else {}
        await self.send(query=query, request_id=name, **named, **fields)
        await eventually(lambda: self.frames.get(name), f"{query!r} is accepted or refused")
        return name

    async def end_of(self, name: str) -> Frame:
        def last() -> Frame:
            return self.frames.get(name, [{"type": ""}])[-1]

        await eventually(lambda: last()["type"] in ("done", "error"), f"{name} has ended")
        return last()

    async def answered(self, query: str, conversation: str | None, **fields: Any) -> list[Frame]:
        name = await self.ask(query, conversation, **fields)
        assert (await self.end_of(name))["type"] == "done"
        assert_contiguous(self.frames[name])
        return self.frames[name]

    async def http(self, method: str, path: str, **headers: str) -> httpx.Response:
        async with httpx.AsyncClient(headers={**self._headers, **headers}, timeout=60) as client:
            return await client.request(method, f"http://127.0.0.1:{self._port}{path}")

    async def conversation(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.http("GET", f"/conversations/{name}")).json()
        return found

    async def turns(self, name: str) -> list[tuple[str, str]]:
        return [(one["query"], one["outcome"]) for one in (await self.conversation(name))["turns"]]

    async def listed(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.http("GET", "/conversations")).json()["conversations"]
        return found


@dataclass
class Place:
    """Both gateways and a worker; users come by `user`."""

    rig: Rig
    ports: tuple[int, int]
    answering: Answering
    worker: RunningWorker

    @asynccontextmanager
    async def user(self, gateway: int = 0, name: str = "") -> AsyncIterator[User]:
        name = name or self.owner
        headers = {"Authorization": f"Bearer {token(sub=name)}"}
        async with connected(self.ports[gateway], additional_headers=headers) as socket:
            assert (await receive(socket))["type"] == "hello"
            yield User(socket, self.ports[gateway], headers)

    owner: str = field(default_factory=lambda: f"alice-{secrets.token_hex(3)}")

    async def begun(self, query: str) -> None:
        await eventually(lambda: query in self.answering.begun, f"{query!r} is being answered")


@dataclass
class Servers:
    nats: Nats
    ports: tuple[int, int]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folders = [tmp_path_factory.mktemp(name) for name in ("nats", "first", "second")]
    settings = {"BATON_JWT_SECRET": SECRET}
    with (
        nats_server(folders[0]) as nats,
        gateway(folders[1], nats, **settings) as one,
        gateway(folders[2], nats, **settings) as other,
    ):
        yield Servers(nats, (one[0], other[0]))


def run(servers: Servers, scenario: Callable[[Place], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        answering = Answering()
        async with (
            asyncio.timeout(100),
            rig(servers.nats.url) as one,
            one.worker(answering, **settings) as worker,
        ):
            for port in servers.ports:
                await _until_heard(port)
            await scenario(Place(one, servers.ports, answering, worker))
            answering.proceed.set()
            await one.settled()

    asyncio.run(main())


async def _until_heard(port: int) -> None:
    async def heard() -> bool:
        return "retrieve" in await asyncio.to_thread(workers_alive, port)

    await eventually(heard, "the gateway knows the worker")


def _code(frame: Frame) -> tuple[str, str | None]:
    return frame["type"], frame.get("code") or frame.get("finish_reason")


# --- follow-ups -------------------------------------------------------------------------------------------------------


def test_a_follow_up_hears_the_turns_before_it_from_any_gateway(servers: Servers) -> None:
    async def scenario(place: Place) -> None:
        async with place.user() as user, place.user(1) as elsewhere:
            await user.answered("first", "c")
            await elsewhere.answered("second", "c")
            await user.answered("third", "c")
            heard = [(past.query, past.answer) for past in place.answering.seen["third"].history]
            assert heard == [("first", "re first"), ("second", "re second")]
            assert place.answering.seen["first"].history == []

            kept = await elsewhere.conversation("c")
            assert (kept["title"], kept["dropped"], kept["running"]) == ("first", 0, [])
            assert [turn["answer"] for turn in kept["turns"]] == ["re first [1]", "re second [1]", "re third [1]"]
            assert kept["turns"][0]["sources"] == [msgspec.to_builtins(SOURCE)]
            assert kept["turns"][0]["cited"] == [1]
            assert kept["created_ms"] <= kept["turns"][0]["asked_ms"] <= kept["updated_ms"]

    run(servers, scenario)


def test_a_conversation_that_the_client_did_not_name_is_kept_under_the_name_it_is_told(servers: Servers) -> None:
    async def scenario(place: Place) -> None:
        async with place.user() as user:
            frames = await user.answered("first", None)
            name = frames[0]["conversation_id"]
            await user.answered("second", name)
            assert [past.query for past in place.answering.seen["second"].history] == ["first"]
            assert [one["conversation_id"] for one in await user.listed()] == [name]

    run(servers, scenario)


def test_questions_that_failed_are_turns_too(servers: Servers) -> None:
    async def scenario(place: Place) -> None:
        async with place.user() as user:
            await user.end_of(await user.ask("failing", "c"))
            name = await user.ask("slow", "c")
            await place.begun("slow")
            await user.send(type="cancel", request_id=name)
            await user.end_of(name)
            await user.answered("third", "c")
            kept = (await user.conversation("c"))["turns"]
            told = [(turn["query"], turn["outcome"], turn.get("answer")) for turn in kept]
            assert told == [
                ("failing", "model_failed", None),
                ("slow", "cancelled", "re "),
                ("third", "stop", "re third [1]"),
            ]

    run(servers, scenario)


def test_a_request_that_is_sent_again_is_attached_to_and_changes_no_conversation(servers: Servers) -> None:
    async def scenario(place: Place) -> None:
        async with place.user() as user, place.user(1) as other:
            await user.answered("first", "c", request_id="again")
            running = await user.ask("slow", "c")
            await place.begun("slow")
            # Whatever runs, and whatever conversation it names this time: it is shown, never refused as busy.
            for conversation in ("c", None, "another"):
                frames = await other.answered("first", conversation, request_id="again")
                assert frames[0]["conversation_id"] == "c"
                other.frames.clear()
            await other.ask("slow", "third", request_id=running)
            assert other.frames[running][0]["conversation_id"] == "c"

            async def only_one() -> bool:
                return [one["conversation_id"] for one in await user.listed()] == ["c"]

            await eventually(only_one, "the claims in the others are taken back")
            place.answering.proceed.set()
            await user.end_of(running)
            assert place.answering.begun == ["first", "slow"]
            assert await user.turns("c") == [("first", "stop"), ("slow", "stop")]

    run(servers, scenario)


# --- a second question while one runs ---------------------------------------------------------------------------------


def test_a_second_question_is_refused_until_the_first_has_ended(servers: Servers) -> None:
    async def scenario(place: Place) -> None:
        async with place.user() as user, place.user(1) as elsewhere:
            running = await user.ask("slow", "c")
            await place.begun("slow")
            for one in (user, elsewhere):
                for choice in ({}, {"if_busy": "reject"}):
                    name = await one.ask("second", "c", **choice)
                    refused = one.frames[name][0]
                    assert (_code(refused), refused["retryable"]) == (("error", "conversation_busy"), True)
                    assert "seq" not in refused
            await elsewhere.answered("second", "another")  # only this conversation is busy
            place.answering.proceed.set()
            await user.end_of(running)
            await elsewhere.answered("second", "c")
            assert await user.turns("c") == [("slow", "stop"), ("second", "stop")]

    run(servers, scenario)


def test_questions_that_wait_are_answered_in_the_order_in_which_they_came(servers: Servers) -> None:
    async def scenario(place: Place) -> None:
        async with place.user() as user, place.user(1) as elsewhere:
            names = [await user.ask("slow", "c")]
            await place.begun("slow")
            for number, one in enumerate((elsewhere, user, elsewhere)):
                name = await one.ask(f"waits {number}", "c", if_busy="enqueue")
                assert one.frames[name][0]["type"] == "accepted"
                names.append(name)
            assert (await user.conversation("c"))["running"] == names
            await eventually(lambda: place.worker.worker.running == 1, "the others hold no slot")
            last = subjects.request_key(place.owner, names[3])

            async def asked_for_often() -> bool:
                note = await place.rig.bus.last(subjects.CANCEL_STREAM, subjects.returned_subject(last))
                return note is not None and codec.decode(note.data, Returned).deliveries >= 6

            # More often than an item may be delivered that kills its workers.
            await eventually(asked_for_often, "the last one has been looked at often")
            assert place.answering.begun == ["slow"]
            place.answering.proceed.set()
            assert _code(await elsewhere.end_of(names[3])) == ("done", "stop")
            assert place.answering.begun == ["slow", "waits 0", "waits 1", "waits 2"]
            heard = [past.query for past in place.answering.seen["waits 2"].history]
            assert heard == ["slow", "waits 0", "waits 1"]
            assert answer(elsewhere.frames[names[3]]) == "re waits 2 [1]"
            assert_contiguous(elsewhere.frames[names[3]])

    run(servers, scenario, max_deliveries=2)


def test_no_more_than_four_wait(servers: Servers) -> None:
    async def scenario(place: Place) -> None:
        async with place.user() as user:
            await user.ask("slow", "c")
            await place.begun("slow")
            for number in range(4):
                assert user.frames[await user.ask(f"{number}", "c", if_busy="enqueue")][0]["type"] == "accepted"
            for choice in ("enqueue", "interrupt"):
                refused = user.frames[await user.ask("fifth", "c", if_busy=choice)][0]
                assert _code(refused) == ("error", "conversation_busy")

    run(servers, scenario)


def test_an_interrupting_question_cancels_what_runs_and_waits_and_begins_then(servers: Servers) -> None:
    async def scenario(place: Place) -> None:
        async with place.user() as user, place.user(1) as elsewhere:
            running = await user.ask("slow", "c")
            await place.begun("slow")
            waiting = await user.ask("waits", "c", if_busy="enqueue")
            name = await elsewhere.ask("instead", "c", if_busy="interrupt")
            assert _code(await elsewhere.end_of(name)) == ("done", "stop")
            assert _code(await user.end_of(running)) == _code(await user.end_of(waiting)) == ("done", "cancelled")
            assert place.answering.begun == ["slow", "instead"]
            heard = [(past.query, past.answer) for past in place.answering.seen["instead"].history]
            assert sorted(heard) == [("slow", "re"), ("waits", "")]  # in the order in which they happened to end

    run(servers, scenario)


def test_a_question_that_waits_can_be_cancelled_and_the_next_one_still_waits_for_what_runs(servers: Servers) -> None:
    async def scenario(place: Place) -> None:
        async with place.user() as user, place.user(1) as elsewhere:
            running = await user.ask("slow", "c")
            await place.begun("slow")
            second = await user.ask("second", "c", if_busy="enqueue")
            third = await user.ask("third", "c", if_busy="enqueue")
            await elsewhere.send(type="cancel", request_id=second)
            assert _code(await user.end_of(second)) == ("done", "cancelled")
            # Its place is free for another one, and nobody has begun meanwhile.
            await asyncio.sleep(0.6)
            assert place.answering.begun == ["slow"]
            place.answering.proceed.set()
            assert _code(await user.end_of(third)) == ("done", "stop")
            await user.end_of(running)
            assert place.answering.begun == ["slow", "third"]
            assert sorted(await user.turns("c")) == [("second", "cancelled"), ("slow", "stop"), ("third", "stop")]

    run(servers, scenario)


def test_a_question_that_waits_keeps_its_deadline(servers: Servers) -> None:
    async def scenario(place: Place) -> None:
        async with place.user() as user:
            await user.ask("slow", "c")
            await place.begun("slow")
            waiting = await user.ask("waits", "c", if_busy="enqueue", deadline_ms=1_000)
            assert _code(await user.end_of(waiting)) == ("error", "deadline")
            assert place.answering.begun == ["slow"]

    run(servers, scenario)


def test_waiting_survives_the_gateway_and_every_worker(nats: Nats, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("gateways")
    (folder / "other").mkdir()

    async def main(port: int, kill: Callable[[], None], other: int) -> None:
        answering = Answering()
        async with rig(nats.url) as one, asyncio.timeout(100):
            async with connected(port) as socket, one.worker(answering) as first:
                user = User(socket, port, {})
                await _until_heard(port)
                await user.ask("slow", "c", request_id="slow")
                await eventually(lambda: answering.begun, "it is being answered")
                await user.ask("waits", "c", request_id="waits", if_busy="enqueue")
                kill()
                await first.die()
            answering.proceed.set()
            async with one.worker(answering, ack_wait_s=2.0), connected(other) as socket:
                user = User(socket, other, {})
                for name in ("slow", "waits"):
                    await user.send(type="resume", request_id=name)
                assert _code(await user.end_of("waits")) == ("done", "stop")
                assert _code(await user.end_of("slow")) == ("done", "stop")
            assert answering.begun == ["slow", "slow", "waits"]
            assert [past.query for past in answering.seen["waits"].history] == ["slow"]

    with gateway(folder, nats) as (port, process), gateway(folder / "other", nats) as (other, _):
        asyncio.run(main(port, process.kill, other))


# --- recording --------------------------------------------------------------------------------------------------------


async def _claimed(one: Rig, item: WorkItem) -> None:
    assert (await claims.claim(one.bus, item, "reject", fresh=False)).made


def test_a_turn_whose_holder_died_before_recording_it_is_recorded_by_the_next_claim(servers: Servers) -> None:
    async def main() -> None:
        async with rig(servers.nats.url) as one:
            owner = secrets.token_hex(4)
            first, second = one.item(owner=owner, query="first"), one.item(owner=owner, query="second")
            await _claimed(one, first)
            await one.start(first, push=False)
            with pytest.raises(ServiceError):
                await claims.claim(one.bus, second, "reject", fresh=False)
            tail = await one.bus.tail(one.bus.address(first.key))
            assert tail is not None
            await one.append(first, AnswerChunk(content="late"), _done(), next_seq=1, last=tail.stream_seq)
            claimed = await claims.claim(one.bus, second, "reject", fresh=False)
            assert [(past.query, past.answer) for past in claimed.item.history] == [("first", "late")]
            # And when the holder's item comes again, nothing is recorded twice.
            await record_end(one.bus, one.bus.address(first.key))
            found = await claims.settled(one.bus, owner, "c")
            assert found is not None
            assert [turn.query for turn in found.turns] == ["first"]
            assert [running.key for running in found.running] == [second.key]

    asyncio.run(main())


def test_a_claim_whose_gateway_died_before_making_the_log_keeps_nobody_out_for_long(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with rig(servers.nats.url) as one:
            owner = secrets.token_hex(4)
            first, second = one.item(owner=owner), one.item(owner=owner)
            await _claimed(one, first)
            with pytest.raises(ServiceError):
                await claims.claim(one.bus, second, "reject", fresh=False)
            monkeypatch.setattr(claims, "CREATING_MS", 0)
            assert (await claims.claim(one.bus, second, "reject", fresh=False)).item.after is None
            found = await claims.settled(one.bus, owner, "c")
            assert found is None or [running.key for running in found.running] != [first.key]

    asyncio.run(main())


def test_of_two_claims_at_once_one_is_let_in(servers: Servers) -> None:
    async def main() -> None:
        async with rig(servers.nats.url) as one:
            owner = secrets.token_hex(4)
            items = [one.item(owner=owner) for _ in range(6)]
            tried = await asyncio.gather(
                *(claims.claim(one.bus, item, "reject", fresh=False) for item in items), return_exceptions=True
            )
            assert sum(isinstance(one, claims.Claim) for one in tried) == 1
            assert sum(isinstance(one, ServiceError) for one in tried) == 5

    asyncio.run(main())


def test_a_request_that_was_refused_leaves_no_conversation(servers: Servers) -> None:
    async def scenario(place: Place) -> None:
        async with place.user() as user:
            for _ in range(50):
                await place.rig.bus.store(subjects.running_subject(place.owner), b"", {"Nats-TTL": "60"})
            refused = user.frames[await user.ask("first", "c")][0]
            assert _code(refused) == ("error", "rate_limited")

            async def gone() -> bool:
                return (await user.http("GET", "/conversations/c")).status_code == 404

            # Soon: whoever looks at a claim takes it for dead after a while.
            await eventually(gone, "the claim is taken back", within_s=claims.CREATING_MS / 1000 - 1)
            assert await user.listed() == []
            subject = subjects.conversation_subject(place.owner, "c")
            left = await place.rig.bus.client.jetstream().get_last_msg(conversations.STREAM, subject)
            assert left.headers is not None
            assert left.headers["Nats-TTL"] == "60"

    run(servers, scenario)


# --- list, read, delete -----------------------------------------------------------------------------------------------


def test_only_its_owner_can_see_continue_or_delete_a_conversation(servers: Servers) -> None:
    async def scenario(place: Place) -> None:
        async with place.user() as alice, place.user(name=f"bob-{secrets.token_hex(3)}") as bob:
            await alice.answered("first", "c")
            for method in ("GET", "DELETE"):
                of_alice, of_nobody = [await bob.http(method, f"/conversations/{name}") for name in ("c", "never")]
                assert (of_alice.status_code, of_alice.json()) == (of_nobody.status_code, of_nobody.json())
                assert (of_alice.status_code, of_alice.json()["error"]["code"]) == (404, "not_found")
            assert await bob.listed() == []
            # His own conversation of the same name is another one.
            await bob.answered("mine", "c")
            assert place.answering.seen["mine"].history == []
            assert (await bob.http("DELETE", "/conversations/c")).status_code == 204
            assert await alice.turns("c") == [("first", "stop")]
            async with httpx.AsyncClient() as nobody:
                url = f"http://127.0.0.1:{place.ports[0]}/conversations"
                for answer_ in (await nobody.get(url), await nobody.delete(f"{url}/c")):
                    assert (answer_.status_code, answer_.json()["error"]["code"]) == (401, "unauthorized")

    run(servers, scenario)


def test_conversations_are_listed_the_newest_first(servers: Servers) -> None:
    async def scenario(place: Place) -> None:
        async with place.user() as user:
            for name in ("one", "two", "three"):
                await user.answered(f"about   {name}\n" + "x" * 100, name)
            await user.answered("again", "one")

            async def recorded() -> bool:
                return all(one["running"] == 0 for one in await user.listed())

            await eventually(recorded, "the last turn is recorded")
            listed = await user.listed()
            assert [one["conversation_id"] for one in listed] == ["one", "three", "two"]
            assert [(one["turns"], one["running"]) for one in listed] == [(2, 0), (1, 0), (1, 0)]
            assert (listed[1]["title"][:14], len(listed[1]["title"])) == ("about three xx", 80)

    run(servers, scenario)


def test_the_newest_are_found_among_many_and_behind_many_that_were_deleted(servers: Servers) -> None:
    async def main() -> None:
        async with rig(servers.nats.url) as one:
            owner, other = secrets.token_hex(4), secrets.token_hex(4)
            for number in range(60):
                conversation = entered(begun(f"c{number}", f"{number}", number), _running(number))
                await conversations.put(one.bus, owner if number % 2 else other, conversation, 0)
            for number in range(35, 60):
                who = owner if number % 2 else other
                found = await conversations.load(one.bus, who, f"c{number}")
                await conversations.mark_deleted(one.bus, who, f"c{number}", found.revision)
            newest = await conversations.newest(one.bus, owner, 5)
            assert [found.conversation_id for found in newest] == ["c33", "c31", "c29", "c27", "c25"]
            assert len(await conversations.newest(one.bus, owner, 200)) == 17

    asyncio.run(main())


@pytest.mark.parametrize("asked", range(0, 22, 3))
def test_a_conversation_that_changes_while_the_newest_are_looked_for_is_among_them(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, asked: int
) -> None:
    """It lies behind all others from then on, whichever question to NATS it was that came before."""

    async def main() -> None:
        async with rig(servers.nats.url) as one:
            owner = secrets.token_hex(4)
            for number in range(20):
                conversation = entered(begun(f"c{number}", "", 1), _running(number))
                revision = (await conversations.put(one.bus, owner, conversation, 0)).revision
                if number >= 8:  # so that it takes more than one look back
                    await conversations.mark_deleted(one.bus, owner, f"c{number}", revision)
            questions = 0

            def watched(ask: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
                async def answered(*args: Any) -> Any:
                    nonlocal questions
                    answer, questions = await ask(*args), questions + 1
                    if questions == asked + 1:
                        for number in (1, 6):
                            await conversations.change(one.bus, owner, f"c{number}", _later)
                    return answer

                return answered

            for name in ("stream_state", "_next_messages"):
                monkeypatch.setattr(one.bus, name, watched(getattr(one.bus, name)))
            found = await conversations.newest(one.bus, owner, 8)
            assert questions > asked
            assert sorted(each.conversation_id for each in found) == [f"c{number}" for number in range(8)]
            changed = {each.conversation_id for each in found if each.updated_ms == 1_000}
            assert changed in (set(), {"c1", "c6"})

    asyncio.run(main())


def _later(conversation: Conversation) -> Conversation:
    return msgspec.structs.replace(conversation, updated_ms=1_000)


def _running(number: int) -> RunningTurn:
    return RunningTurn(key=f"{number:032x}", request_id="r", since_ms=number)


def test_of_a_deleted_conversation_nothing_is_left(servers: Servers) -> None:
    async def scenario(place: Place) -> None:
        async with place.user() as user:
            name = await user.ask("first", "c")
            await user.end_of(name)
            bus, key = place.rig.bus, subjects.request_key(place.owner, name)

            async def kept() -> bool:
                return await stored_answer(bus, key) is not None

            await eventually(kept, "its answer is kept")
            deleted = await user.http("DELETE", "/conversations/c")
            assert (deleted.status_code, deleted.content) == (204, b"")
            assert await bus.tail(bus.address(key)) is None
            assert await stored_answer(bus, key) is None
            user.frames.clear()
            await user.send(type="resume", request_id=name)
            assert _code(await user.end_of(name)) == ("error", "not_found")
            assert (await user.http("GET", "/conversations/c")).status_code == 404
            assert (await user.http("DELETE", "/conversations/c")).status_code == 404
            assert await user.listed() == []
            # The same name begins a new one.
            await user.answered("anew", "c")
            assert place.answering.seen["anew"].history == []
            assert await user.turns("c") == [("anew", "stop")]

    run(servers, scenario)


def test_deleting_a_conversation_cancels_what_runs_and_waits_in_it_and_keeps_nothing_of_it(servers: Servers) -> None:
    async def scenario(place: Place) -> None:
        async with place.user() as user, place.user(1) as elsewhere:
            await user.answered("first", "c")
            running = await user.ask("slow", "c")
            await place.begun("slow")
            waiting = await user.ask("waits", "c", if_busy="enqueue")
            assert (await elsewhere.http("DELETE", "/conversations/c")).status_code == 204
            for name in (running, waiting):
                assert _code(await user.end_of(name)) == ("done", "cancelled")
            assert place.answering.begun == ["first", "slow"]
            bus = place.rig.bus
            await place.rig.settled()

            async def forgotten() -> bool:  # whoever ends a request records it first, and sees then what has become
                keys = [subjects.request_key(place.owner, name) for name in (running, waiting)]
                left = [await bus.tail(bus.address(key)) or await stored_answer(bus, key) for key in keys]
                return not any(left)

            await eventually(forgotten, "nothing of them is left")
            assert (await conversations.load(bus, place.owner, "c")).deleted

    run(servers, scenario)


def test_an_end_that_is_recorded_late_does_not_bring_a_deleted_conversation_back(servers: Servers) -> None:
    async def main() -> None:
        async with rig(servers.nats.url) as one:
            owner = secrets.token_hex(4)
            item = one.item(owner=owner)
            at = one.bus.address(item.key)
            await _claimed(one, item)
            await one.start(item, push=False)
            found = await conversations.load(one.bus, owner, "c")
            await conversations.mark_deleted(one.bus, owner, "c", found.revision)
            tail = await one.bus.tail(at)
            assert tail is not None
            await one.append(item, AnswerChunk(content="late"), _done(), next_seq=1, last=tail.stream_seq)
            await record_end(one.bus, at)
            assert (await conversations.load(one.bus, owner, "c")).conversation is None
            assert await one.bus.tail(at) is None
            assert await stored_answer(one.bus, item.key) is None
            with pytest.raises(Refused):
                await conversations.put(one.bus, owner, begun("c", "q", 0), found.revision)

    asyncio.run(main())


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_a_conversation_stays_within_its_bounds(servers: Servers) -> None:
    async def main() -> None:
        async with rig(servers.nats.url) as one:
            owner = secrets.token_hex(4)
            turns = [
                ConversationTurn(request_id=f"r{number}", asked_ms=1, query="q", outcome="stop", answer="长" * 5_000)
                for number in range(30)
            ]
            big = msgspec.structs.replace(begun("c", "q", 1), turns=turns)
            item = one.item(owner=owner)
            await conversations.put(one.bus, owner, big, 0)
            await _claimed(one, item)
            await one.start(item, push=False)
            tail = await one.bus.tail(one.bus.address(item.key))
            assert tail is not None
            await one.append(item, AnswerChunk(content="last"), _done(), next_seq=1, last=tail.stream_seq)
            await record_end(one.bus, one.bus.address(item.key))
            found = (await conversations.load(one.bus, owner, "c")).conversation
            assert found is not None
            assert found.turns[-1].answer == "last"
            assert 0 < found.dropped == 31 - len(found.turns)
            stored = await one.bus.last(conversations.STREAM, subjects.conversation_subject(owner, "c"))
            assert stored is not None
            assert len(stored.data) <= 384 * 1024

    asyncio.run(main())


@pytest.mark.parametrize("existing", [False, True])
def test_conversations_and_cached_values_expire_and_make_room_as_the_settings_say(nats: Nats, existing: bool) -> None:
    """Also where an older version has made the buckets: those refused what was new when they were full."""
    changes = {
        "conversations_max_age_s": 3_600,
        "conversations_max_bytes": 2_000_000,
        "cache_max_age_s": 60,
        "cache_max_bytes": 3_000_000,
    }
    buckets = (subjects.CONVERSATIONS_BUCKET, subjects.CACHE_BUCKET)

    async def main() -> None:
        if existing:
            async with connect(NatsSettings(url=nats.url), "before") as bus:
                for bucket in buckets:
                    config = KeyValueConfig(bucket=bucket, ttl=30 * 24 * 3600, max_bytes=256 * 1024 * 1024, direct=True)
                    await bus.client.jetstream().create_key_value(config)
                await conversations.put(bus, "alice", begun("c", "kept", now_ms()), 0)
        async with asyncio.timeout(60), rig(nats.url, **changes) as one:
            for bucket, age, size in zip(buckets, (3_600, 60), (2_000_000, 3_000_000), strict=True):
                config_ = (await one.bus.client.jetstream().stream_info(f"KV_{bucket}")).config
                assert (config_.max_age, config_.max_bytes) == (age, size)
                assert (config_.discard, config_.max_msgs_per_subject) == (DiscardPolicy.OLD, 1)
            if existing:
                found = (await conversations.load(one.bus, "alice", "c")).conversation
                assert isinstance(found, Conversation)
                assert found.title == "kept"

    asyncio.run(main())


# --- without authentication -------------------------------------------------------------------------------------------


def test_without_authentication_a_foreign_name_for_this_machine_reads_nothing(
    nats: Nats, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with gateway(tmp_path_factory.mktemp("gateway"), nats) as (port, _):
        url = f"http://127.0.0.1:{port}/conversations"
        assert httpx.get(url).json() == {"conversations": []}
        for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
            refused = httpx.get(url, headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
            document = httpx.get(f"http://127.0.0.1:{port}/documents/{'0' * 32}", headers=headers)
            assert document.status_code == 403
        assert httpx.get(f"{url}/no%20such").status_code == 404
