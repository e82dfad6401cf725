"""The client protocol against a real gateway process: bad messages, limits, authentication, closing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import msgpack
import msgspec
import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from baton_proto import subjects
from baton_proto.messages import PRESENCE_TTL_MS, Done, Timings, Usage
from services.common.config import GatewaySettings
from services.common.job import Job
from tests.rig import rig
from tests.servers.nats import Nats
from tests.servers.processes import Process, free_port, running, wait_until

SECRET = "a secret of at least thirty-two bytes"


@contextlib.contextmanager
def gateway(folder: Path, nats: Nats, **settings: str) -> Iterator[tuple[int, Process]]:
    port = free_port()
    env = {"BATON_NATS_URL": nats.url, "BATON_GATEWAY_PORT": str(port), "BATON_LOG_SHARDS": "4", **settings}
    with running([sys.executable, "-m", "services.gateway"], folder / "gateway.log", env) as process:
        wait_until(lambda: _ready(port) or not process.alive, "the gateway is ready", within_s=60)
        assert process.alive, process.text()
        yield port, process


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@contextlib.asynccontextmanager
async def connected(port: int, **options: Any) -> AsyncIterator[ClientConnection]:
    options.setdefault("max_size", 2**24)
    async with websockets.connect(f"ws://127.0.0.1:{port}/ws", **options) as socket:
        yield socket


async def receive(socket: ClientConnection) -> dict[str, Any]:
    data = await asyncio.wait_for(socket.recv(), 60)
    message: dict[str, Any] = json.loads(data) if isinstance(data, str) else msgpack.unpackb(data)
    return message


async def until(socket: ClientConnection, *kinds: str) -> list[dict[str, Any]]:
    """The frames to the first of one of these kinds."""
    frames: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(60):
            while not frames or frames[-1]["type"] not in kinds:
                frames.append(await receive(socket))
    except TimeoutError as error:
        error.add_note(f"no {' or '.join(kinds)} came, but: {frames}")
        raise
    return frames


async def closed_with(socket: ClientConnection) -> int:
    async with asyncio.timeout(60):
        try:
            while True:
                await socket.recv()
        except websockets.ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 1006


async def closed(port: int, code: int) -> float:
    """How many connections a gateway has closed, or is about to close, with this code."""
    told = (await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{port}/metrics", timeout=60)).text
    (count,) = re.findall(rf'^baton_closed_connections_total\{{code="{code}"\}} (.+)$', told, re.MULTILINE)
    return float(count)


BAD = [
    ("this is not JSON", "bad_json"),
    ('{"query": NaN}', "bad_json"),
    ("[1, 2]", "bad_message"),
    ("{}", "bad_message"),
    ('{"query": ""}', "bad_message"),
    ('{"query": "   "}', "bad_message"),
    ('{"query": 7}', "bad_message"),
    ('{"query": "q", "top_k": 0}', "bad_message"),
    ('{"query": "q", "deadline_ms": "soon"}', "bad_message"),
    ('{"type": "shout", "query": "q"}', "unknown_type"),
    ('{"query": "q", "request_id": "no spaces"}', "bad_request_id"),
    ('{"query": "q", "request_id": 12}', "bad_request_id"),
    ('{"type": "cancel"}', "bad_request_id"),
    ('{"type": "cancel", "request_id": "nobody"}', "not_found"),
    ('{"type": "resume", "request_id": "nobody"}', "not_found"),
    (json.dumps({"query": "x" * 33_000}), "too_large"),
]


def test_every_bad_message_gets_a_clear_error_and_the_connection_lives_on(nats: Nats, tmp_path: Path) -> None:
    async def scenario(port: int) -> None:
        async with connected(port) as socket:
            assert (await receive(socket))["type"] == "hello"
            for message, code in BAD:
                await socket.send(message)
                answer = await receive(socket)
                assert (answer["type"], answer["code"]) == ("error", code), message
                assert answer["message"]
                assert "seq" not in answer
                assert "Traceback" not in answer["message"]
            await socket.send('{"type": "ping"}')
            assert await receive(socket) == {"type": "pong"}

    with gateway(tmp_path, nats) as (port, _):
        asyncio.run(scenario(port))


def test_a_message_of_eleven_megabytes_closes_with_1009_and_the_server_lives_on(nats: Nats, tmp_path: Path) -> None:
    async def scenario(port: int) -> None:
        async with connected(port) as socket:
            await receive(socket)
            with contextlib.suppress(websockets.ConnectionClosed):
                await socket.send(json.dumps({"query": "x" * 11_000_000}))
            assert await closed_with(socket) == 1009
        async with connected(port) as socket:
            assert (await receive(socket))["type"] == "hello"

    with gateway(tmp_path, nats) as (port, _):
        asyncio.run(scenario(port))


def test_without_any_worker_a_question_is_answered_so_within_ten_seconds(nats: Nats, tmp_path: Path) -> None:
    # What it may take: until silence means absence, the absence, and a tick. A gateway that stands still on a busy
    # machine begins to listen anew, so one of two has to keep to it by the test's clock.
    assert PRESENCE_TTL_MS / 1000 + GatewaySettings().no_worker_s + 1 < 10
    took = []

    async def scenario(port: int) -> None:
        async with connected(port) as socket:
            await receive(socket)
            for _ in range(2):
                started = time.monotonic()
                await socket.send('{"query": "is anybody there?", "request_id": "lonely"}')
                while True:
                    answer = await receive(socket)
                    if answer["type"] == "error":
                        break
                assert (answer["code"], answer["retryable"]) == ("no_worker", True)
                assert "retrieve" in answer["message"]
                took.append(time.monotonic() - started)

    with gateway(tmp_path, nats) as (port, _):
        asyncio.run(scenario(port))
    assert min(took) < 10


def test_msgpack_is_spoken_where_the_client_asks_for_it(nats: Nats, tmp_path: Path) -> None:
    async def scenario(port: int) -> None:
        async with connected(port, subprotocols=["baton.v1.msgpack"]) as socket:
            assert socket.subprotocol == "baton.v1.msgpack"
            assert (await receive(socket))["type"] == "hello"
            await socket.send(msgpack.packb({"type": "ping"}))
            assert await receive(socket) == {"type": "pong"}
            await socket.send(b"\xc1")
            assert (await receive(socket))["type"] == "error"
            await socket.send('{"type": "ping"}')
            assert (await receive(socket))["code"] == "bad_message"

    with gateway(tmp_path, nats) as (port, _):
        asyncio.run(scenario(port))


def token(**changes: Any) -> str:
    return jwt.encode({"sub": "alice", "exp": time.time() + 600, **changes}, SECRET, "HS256")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A gateway that asks for tokens, and waits for one no longer than a busy machine may need to send it."""
    from tests.servers.nats import nats_server

    folder = tmp_path_factory.mktemp("guarded")
    with (
        nats_server(folder / "nats") as nats,
        gateway(folder, nats, BATON_JWT_SECRET=SECRET, BATON_AUTH_TIMEOUT_S="5") as (port, _),
    ):
        yield port


WRONG_TOKENS = {
    "nonsense": lambda: "nonsense",
    "expired": lambda: token(exp=time.time() - 10),
    "other key": lambda: jwt.encode({"sub": "a", "exp": time.time() + 60}, "b" * 40, "HS256"),
    "unsigned": lambda: jwt.encode({"sub": "a", "exp": time.time() + 60}, None, "none"),
    "no subject": lambda: jwt.encode({"exp": time.time() + 60}, SECRET, "HS256"),
    "no expiry": lambda: jwt.encode({"sub": "alice"}, SECRET, "HS256"),
}


@pytest.mark.parametrize("how", WRONG_TOKENS)
@pytest.mark.parametrize("where", ["header", "message"])
def test_a_wrong_token_closes_with_4001(guarded: int, how: str, where: str) -> None:
    async def scenario() -> None:
        wrong = WRONG_TOKENS[how]()
        headers = {"Authorization": f"Bearer {wrong}"} if where == "header" else {}
        async with connected(guarded, additional_headers=headers) as socket:
            if where == "message":
                assert (await receive(socket))["auth"] == "required"
                await socket.send(json.dumps({"type": "auth", "token": wrong}))
            assert (await receive(socket))["code"] == "unauthorized"
            assert await closed_with(socket) == 4001

    asyncio.run(scenario())


@pytest.mark.parametrize("first", [None, '{"query": "q"}', "not json"])
def test_no_token_closes_with_4001(guarded: int, first: str | None) -> None:
    async def scenario() -> None:
        async with connected(guarded) as socket:
            assert (await receive(socket))["auth"] == "required"
            if first is not None:
                await socket.send(first)
            assert await closed_with(socket) == 4001

    asyncio.run(scenario())


@pytest.mark.parametrize("where", ["header", "message"])
def test_a_good_token_is_let_in(guarded: int, where: str) -> None:
    async def scenario() -> None:
        headers = {"Authorization": f"Bearer {token()}"} if where == "header" else {}
        async with connected(guarded, additional_headers=headers) as socket:
            hello = await receive(socket)
            assert hello["auth"] == ("ok" if where == "header" else "required")
            if where == "message":
                await socket.send(json.dumps({"type": "auth", "token": token()}))
            await socket.send('{"type": "ping"}')
            assert await receive(socket) == {"type": "pong"}

    asyncio.run(scenario())


def test_a_token_that_expires_closes_and_a_renewed_one_does_not(guarded: int) -> None:
    async def scenario() -> None:
        short = _bearer(exp=time.time() + 5)
        async with connected(guarded, additional_headers=short) as renewed:
            await receive(renewed)
            await renewed.send(json.dumps({"type": "auth", "token": token(exp=time.time() + 600)}))
            async with connected(guarded, additional_headers=short) as expiring:
                assert await closed_with(expiring) == 4001
            await renewed.send('{"type": "ping"}')
            assert await receive(renewed) == {"type": "pong"}

    asyncio.run(scenario())


def test_a_token_of_somebody_else_closes_with_4001(guarded: int) -> None:
    async def scenario() -> None:
        async with connected(guarded, additional_headers=_bearer()) as socket:
            await socket.send(json.dumps({"type": "auth", "token": token(sub="bob")}))
            assert await closed_with(socket) == 4001

    asyncio.run(scenario())


def _bearer(**changes: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(**changes)}"}


def test_documents_ask_for_a_token_too(guarded: int) -> None:
    url = f"http://127.0.0.1:{guarded}/documents/some"
    assert httpx.get(url, timeout=60).status_code == 401
    assert httpx.get(url, headers=_bearer(), timeout=60).status_code == 404


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://127.0.0.1:5173", True),
        ("http://localhost:3000", True),
        ("https://chat.example", True),
        ("https://evil.example", False),
        ("null", False),
    ],
)
def test_pages_of_other_origins_are_kept_out(nats: Nats, tmp_path: Path, origin: str, allowed: bool) -> None:
    async def scenario(port: int) -> None:
        async with connected(port, origin=origin) as socket:
            if allowed:
                assert (await receive(socket))["type"] == "hello"
            else:
                assert await closed_with(socket) == 4003

    with gateway(tmp_path, nats, BATON_ALLOWED_ORIGINS="https://chat.example") as (port, _):
        asyncio.run(scenario(port))


def test_an_idle_connection_closes_with_4008_though_it_pings(nats: Nats, tmp_path: Path) -> None:
    async def scenario(port: int) -> None:
        async with connected(port) as socket:
            pinging = asyncio.create_task(_ping_forever(socket))
            assert await closed_with(socket) == 4008
            pinging.cancel()

    with gateway(tmp_path, nats, BATON_IDLE_S="0.5") as (port, _):
        asyncio.run(scenario(port))


async def _ping_forever(socket: ClientConnection) -> None:
    with contextlib.suppress(websockets.ConnectionClosed):
        while True:
            await socket.send('{"type": "ping"}')
            await asyncio.sleep(0.05)


def test_a_flood_of_messages_closes_with_4029(nats: Nats, tmp_path: Path) -> None:
    async def scenario(port: int) -> None:
        async with connected(port) as socket:
            with contextlib.suppress(websockets.ConnectionClosed):
                for _ in range(2_000):  # they are sent faster than 200 a second even where much else runs
                    await socket.send('{"type": "ping"}')
            assert await closed_with(socket) == 4029

    with gateway(tmp_path, nats) as (port, _):
        asyncio.run(scenario(port))


def test_sigterm_closes_with_1012_and_exits_0(nats: Nats, tmp_path: Path) -> None:
    async def scenario(port: int, process: Process) -> None:
        async with connected(port) as socket:
            await receive(socket)
            process.popen.terminate()
            assert await closed_with(socket) == 1012
        assert await asyncio.to_thread(process.popen.wait, 60) == 0

    with gateway(tmp_path, nats) as (port, process):
        asyncio.run(scenario(port, process))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"BATON_GATEWAY_HOST": "0.0.0.0"}, "BATON_AUTH=off"),
        ({"BATON_GATEWAY_PROT": "1"}, "did you mean BATON_GATEWAY_PORT"),
        ({"BATON_IDLE_S": "never", "BATON_TOP_K": "99"}, "BATON_TOP_K='99': must be at most 50"),
    ],
)
def test_wrong_settings_stop_the_start_with_a_message(tmp_path: Path, settings: dict[str, str], says: str) -> None:
    with running([sys.executable, "-m", "services.gateway"], tmp_path / "out", settings) as process:
        assert process.popen.wait(60) == 2
        assert says in process.text()
        assert "Traceback" not in process.text()


def test_a_port_that_is_taken_is_named(nats: Nats, tmp_path: Path) -> None:
    settings = {"BATON_GATEWAY_PORT": str(nats.port)}
    with running([sys.executable, "-m", "services.gateway"], tmp_path / "out", settings) as process:
        assert process.popen.wait(60) == 2
        assert f"port {nats.port}" in process.text()


def test_the_gateway_waits_for_nats_and_comes_back_to_it(tmp_path: Path) -> None:
    from tests.servers.nats import nats_server

    nats_port, port = free_port(), free_port()
    env = {
        "BATON_NATS_URL": f"nats://127.0.0.1:{nats_port}",
        "BATON_GATEWAY_PORT": str(port),
        "BATON_LOG_SHARDS": "4",
    }
    with running([sys.executable, "-m", "services.gateway"], tmp_path / "gateway.log", env):
        for _ in range(2):
            with nats_server(tmp_path / "nats", nats_port):
                wait_until(lambda: _ready(port), "ready with NATS", within_s=60)
            wait_until(lambda: not _ready(port), "not ready without NATS", within_s=60)


def test_a_question_whose_gateway_died_before_queueing_it_is_answered_when_it_is_sent_again(
    nats: Nats, tmp_path: Path
) -> None:
    async def scenario(port: int) -> None:
        async with rig(nats.url) as one, one.worker(_finish):
            item = one.item(request_id="again", key=subjects.request_key("anonymous", "again"))
            item = msgspec.structs.replace(item, shard=one.bus.address(item.key).shard)
            await one.start(item, push=False)
            async with connected(port) as socket:
                await receive(socket)
                await socket.send('{"query": "q", "request_id": "again"}')
                frames = [await receive(socket)]
                while frames[-1]["type"] not in ("done", "error"):
                    frames.append(await receive(socket))
                assert [frame["type"] for frame in frames] == ["accepted", "done"]
                assert [frame["seq"] for frame in frames] == [0, 1]

    with gateway(tmp_path, nats) as (port, _):
        asyncio.run(scenario(port))


async def _finish(job: Job) -> None:
    await job.finish(Done(finish_reason="stop", cited=[], citations=[], usage=Usage(), timings=Timings()))
