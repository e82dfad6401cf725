"""`/documents` where there is too much of something: files that wait, those who watch, readers who do not read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette

from baton_proto.messages import FileRecord
from services.common import streams
from services.common.bus import Bus
from services.common.config import GatewaySettings, NatsSettings
from services.common.connection import connect
from services.common.documents import DocumentMeta, Documents, Original
from services.gateway import catalogue, documents, http_answers
from services.gateway.auth import Authenticator
from services.gateway.documents import DocumentRoutes
from tests.integration.test_documents_http import GUARDED, User
from tests.integration.test_gateway_protocol import gateway
from tests.servers.nats import Nats
from tests.servers.processes import eventually, wait_until

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def served(nats: Nats) -> AsyncIterator[tuple[Bus, DocumentRoutes, int]]:
    """The routes in this process, to change their bounds; answers leave in small pieces."""
    settings = GatewaySettings()
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        async with connect(NatsSettings(url=nats.url, shards=4), "gateway") as bus, streams.kept(bus):
            routes = DocumentRoutes(bus, Authenticator(settings), settings)
            config = uvicorn.Config(Starlette(routes=routes.routes()), log_level="error", lifespan="off")
            config.timeout_graceful_shutdown = 1
            server = uvicorn.Server(config)
            task = asyncio.create_task(server.serve(sockets=[listening]))
            try:
                yield bus, routes, listening.getsockname()[1]
            finally:
                await routes.leave()
                server.should_exit = True
                await asyncio.wait_for(task, 20)


@contextlib.contextmanager
def asking(port: int, path: str) -> Any:
    """Somebody who asks and takes nothing by themselves."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
        one.connect(("127.0.0.1", port))
        one.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        one.setblocking(False)
        yield one


async def rest(one: socket.socket) -> bytes:
    """What still comes, to the end of the connection or of the answer."""
    found = b""
    async with asyncio.timeout(60):
        while not found.endswith(b"\r\n0\r\n\r\n") and (
            some := await asyncio.get_running_loop().sock_recv(one, 65_536)
        ):
            found += some
    return found


def test_a_file_too_many_is_refused_until_another_has_been_read(nats: Nats, tmp_path: Path) -> None:
    with gateway(tmp_path, nats, **GUARDED, BATON_INGEST_MAX_ITEMS="2") as (port, _):
        alice = User(port, "alice")
        assert [alice.upload(f"{n}.md").status_code for n in range(2)] == [202, 202]
        refused = alice.upload("2.md")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) > 0
        # Nothing of it is left behind, and a file that waits already is as it was.
        assert sorted(file["name"] for file in alice.files()) == ["0.md", "1.md"]
        assert alice.upload("1.md", b"# Another").status_code == 503
        assert {file["state"] for file in alice.files()} == {"queued"}
        assert alice.http.delete(f"/documents/{alice.files()[0]['file']}").status_code == 503


def test_who_watches_is_sent_away_by_a_replica_that_leaves_and_misses_nothing_at_another(
    nats: Nats, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    with (
        gateway(tmp_path, nats, **GUARDED) as (port, process),
        gateway(tmp_path / "other", nats, **GUARDED) as (
            other,
            _,
        ),
    ):
        alice, there = User(port, "alice"), User(other, "alice")
        with alice.http.stream("GET", "/documents/events") as stream:
            lines = stream.iter_lines()
            assert next(lines) == ": watching"
            process.popen.send_signal(signal.SIGTERM)
            # It ends as an answer ends; httpx would say so if it were cut off.
            assert [line for line in lines if line] == []
        with there.http.stream("GET", "/documents/events") as stream:
            lines = stream.iter_lines()
            assert next(lines) == ": watching"
            assert there.upload("a.md").status_code == 202
            event = next(line for line in lines if line.startswith("data: "))
            assert json.loads(event.removeprefix("data: "))["name"] == "a.md"
        wait_until(lambda: not process.alive, "it has gone")
        assert process.popen.returncode == 0, process.text()


def test_one_user_watches_so_often_at_most_and_is_let_in_again(nats: Nats, tmp_path: Path) -> None:
    with gateway(tmp_path, nats, **GUARDED) as (port, _), contextlib.ExitStack() as stack:
        alice, bob = User(port, "alice"), User(port, "bob")

        def watch(user: User) -> httpx.Response:
            return stack.enter_context(user.http.stream("GET", "/documents/events"))

        streams = [watch(alice) for _ in range(documents.MAX_LISTENERS_OF_ONE)]
        assert {stream.status_code for stream in streams} == {200}
        refused = watch(alice)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        assert watch(bob).status_code == 200
        streams[0].close()

        def let_in() -> bool:  # keeps no refused answer open: alice's client has so many connections and no more
            with alice.http.stream("GET", "/documents/events") as stream:
                return stream.status_code == 200

        wait_until(let_in, "a place is free again")


async def test_all_together_watch_so_often_at_most(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_LISTENERS", 2)
    async with served(nats) as (_, _, port):
        with contextlib.ExitStack() as stack:
            watching = [stack.enter_context(asking(port, "/documents/events")) for _ in range(3)]
            begun = await asyncio.gather(*(asyncio.get_running_loop().sock_recv(one, 12) for one in watching))
            assert sorted(begun) == [b"HTTP/1.1 200", b"HTTP/1.1 200", b"HTTP/1.1 429"]


async def test_who_does_not_read_the_events_is_let_go_before_many_wait(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "MAX_WAITING", 20)
    async with served(nats) as (_, routes, port):
        with asking(port, "/documents/events") as one:
            listeners = routes._catalogue._listeners
            await eventually(lambda: listeners, "it watches")
            (listener,) = listeners
            for told in range(5_000):
                if not listeners:
                    break
                routes._catalogue.added(_record(told))
                assert listener._waiting.qsize() <= 21
                await asyncio.sleep(0)
            assert not listeners
            # What had been told before comes, and then the end as it should be.
            text = (await rest(one)).decode()
            assert text.endswith("\r\n0\r\n\r\n")
            assert 0 < text.count("data: ") < told


def _record(n: int) -> FileRecord:
    return FileRecord(
        file=f"{n:032x}",
        owner="anonymous",
        name=f"{n} ".ljust(1_000, "x"),
        upload="0" * 32,
        state="queued",
        updated_ms=n,
        readers=["everybody"],
    )


async def test_who_takes_nothing_of_an_answer_gives_its_place_back(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 12_000
    async with served(nats) as (bus, routes, port):
        meta = DocumentMeta("A film", "application/pdf", "film.pdf", "", ("everybody",))
        await Documents(bus).put("d" * 32, Original(data, meta))
        address = f"/documents/{'d' * 32}?original=1"
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            answer = await http.get(address)
            assert (answer.content == data, answer.headers["content-length"]) == (True, str(len(data)))
            assert answer.headers["cache-control"] == "no-store"
        reading, watching = routes._reading._taken, routes._watching._taken
        with asking(port, "/documents/events"):
            await eventually(lambda: routes._catalogue._listeners, "it watches")
            monkeypatch.setattr(http_answers, "STALL_S", 0.2)
            with asking(port, address) as one:
                # By its first bytes: it may be broken off before anybody looks.
                assert await asyncio.get_running_loop().sock_recv(one, 12) == b"HTTP/1.1 200"
                for n in range(200):
                    routes._catalogue.added(_record(n))
                await eventually(lambda: not reading.total() and not watching.total(), "both were broken off")


async def test_one_who_reads_too_much_at_once_is_told_so(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "READ_AT_ONCE", 1)
    async with served(nats) as (bus, routes, port):
        meta = DocumentMeta("A film", "application/pdf", "film.pdf", "", ("everybody",))
        await Documents(bus).put("d" * 32, Original(bytes(1_000_000), meta))
        address = f"/documents/{'d' * 32}?original=1"
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            with asking(port, address) as one:
                await eventually(lambda: routes._reading._taken.total() == 1, "it has begun")
                assert (await http.get(address)).status_code == 429
                one.close()
                await eventually(lambda: not routes._reading._taken.total(), "whoever hung up has no place")
            assert (await http.get(address)).status_code == 200
