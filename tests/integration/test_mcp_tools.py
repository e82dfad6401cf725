"""MCP tools against two servers that others wrote: one over stdio, one over streamable HTTP and over stdio too."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.tools.conformance import what_is_wrong
from tests.mcp_calls import arrives, call, connected, context, leaves, names, opened, refusal, run, tool
from tests.servers.mcp import (
    EVERYTHING_STDIO,
    TIME_STDIO,
    Everything,
    children,
    everything_http,
    http_server,
    is_running,
    modern,
    processes,
    tap,
)
from tests.servers.processes import eventually, free_port

LONG = "trigger-long-running-operation"


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Everything]:
    with everything_http(tmp_path_factory.mktemp("everything")) as server:
        yield server


def test_the_time_server_is_listed_and_called_over_stdio() -> None:
    async def scenario() -> None:
        async with connected(command=TIME_STDIO) as server:
            assert server.protocol_version == "2026-07-28"
            assert names(server) == ["get_current_time", "convert_time"]
            assert [what_is_wrong(one) for one in server.tools()] == [None, None]
            said = json.loads(await call(server, "get_current_time", timezone="Asia/Shanghai"))
            assert said["timezone"] == "Asia/Shanghai"
            times = await asyncio.gather(
                *(
                    call(server, "convert_time", source_timezone="UTC", time=f"{hour:02}:30", target_timezone="UTC")
                    for hour in range(24)
                )
            )
            assert [json.loads(text)["target"]["datetime"][11:16] for text in times] == [
                f"{hour:02}:30" for hour in range(24)
            ]
            assert "No time zone found with key Mars/Base" in await refusal(
                call(server, "get_current_time", timezone="Mars/Base")
            )

    run(scenario())


def test_the_everything_server_is_listed_and_called_over_http(everything: Everything) -> None:
    async def scenario() -> None:
        async with connected(url=everything.url, trust_annotations=True, idempotent=["get-sum"]) as server:
            assert server.protocol_version == "2025-11-25"
            assert {"echo", "get-sum", LONG} <= set(names(server))
            assert "simulate-research-query" not in names(server)  # runs as a task only
            assert {what_is_wrong(one) for one in server.tools()} == {None}
            assert "$schema" not in tool(server, "echo").spec.parameters
            assert await call(server, "echo", message="你好") == "Echo: 你好"
            assert (await call(server, "get-sum", a=2, b=3)).endswith("is 5.")
            weather = json.loads(await call(server, "get-structured-content", location="New York"))
            assert weather["conditions"] == "Cloudy"
            assert tool(server, "echo").spec.idempotent
            assert not tool(server, "toggle-simulated-logging").spec.idempotent

    run(scenario())


def test_what_is_no_text_is_named(everything: Everything) -> None:
    async def scenario() -> None:
        async with connected(url=everything.url) as server:
            assert "[image image/png, 4 KB]" in (await call(server, "get-tiny-image")).splitlines()
            links = await call(server, "get-resource-links", count=2)
            assert "[Text Resource 2: demo://resource/dynamic/text/2]" in links.splitlines()
            embedded = await call(server, "get-resource-reference", resourceType="Text", resourceId=1)
            assert "plaintext resource" in embedded
            blob = await call(server, "get-resource-reference", resourceType="Blob", resourceId=2)
            assert "[file demo://resource/dynamic/blob/2 text/plain" in blob

    run(scenario())


def test_arguments_that_the_server_refuses_are_told(everything: Everything) -> None:
    async def scenario() -> None:
        async with connected(url=everything.url) as server:
            assert "Input validation error" in await refusal(call(server, "get-sum", a="two", b=3))

    run(scenario())


@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_progress_reaches_the_user(everything: Everything, transport: str) -> None:
    where = {"url": everything.url} if transport == "http" else {"command": EVERYTHING_STDIO}

    async def scenario() -> None:
        async with connected(**where) as server:
            lines: list[str] = []
            text = await tool(server, LONG).call({"duration": 0.2, "steps": 4}, context(lines))
            assert text.startswith("Long running operation completed.")
            assert lines[:3] == ["1/4", "2/4", "3/4"]

    run(scenario())


def test_a_cancelled_call_is_cancelled_at_the_server_and_disturbs_no_other(everything: Everything) -> None:
    async def scenario() -> None:
        async with tap(everything.port) as wire, connected(url=wire.url) as server:
            lines: list[str] = []
            task = asyncio.create_task(tool(server, LONG).call({"duration": 30, "steps": 600}, context(lines)))
            other = asyncio.create_task(tool(server, LONG).call({"duration": 0.5, "steps": 1}, context()))
            await eventually(lambda: lines, "the call makes progress")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await eventually(lambda: wire.posts("notifications/cancelled"), "the server is told")
            (cancelled,) = wire.posts("notifications/cancelled")
            long_call = next(
                post for post in wire.posts("tools/call") if post["params"]["arguments"].get("duration") == 30
            )
            assert cancelled["params"]["requestId"] == long_call["id"]
            assert (await other).startswith("Long running operation completed.")
            assert await call(server, "echo", message="still here") == "Echo: still here"
            assert len(wire.posts("initialize")) == 1  # in the same session
            assert f'"id":{long_call["id"]}'.encode() not in wire.answered

    run(scenario())


def test_a_cancelled_call_is_cancelled_at_the_server_over_stdio(tmp_path: Path) -> None:
    log = tmp_path / "sent.jsonl"
    command = ["sh", "-c", 'tee "$0" | exec "$@"', str(log), *EVERYTHING_STDIO]

    async def scenario() -> None:
        async with connected(command=command) as server:
            lines: list[str] = []
            task = asyncio.create_task(tool(server, LONG).call({"duration": 30, "steps": 600}, context(lines)))
            await eventually(lambda: lines, "the call makes progress")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await call(server, "echo", message="still here") == "Echo: still here"
        sent = [json.loads(line) for line in log.read_text().splitlines()]
        long_call = next(message for message in sent if message.get("params", {}).get("name") == LONG)
        (cancelled,) = [message for message in sent if message["method"] == "notifications/cancelled"]
        assert cancelled["params"]["requestId"] == long_call["id"]
        assert not processes(str(log))

    run(scenario())


@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_with_the_newest_protocol_calls_are_cancelled_and_changes_are_heard(tmp_path: Path, transport: str) -> None:
    log = tmp_path / "log"

    async def scenario(**where: object) -> None:
        async with connected(**where, inject={"employee_id": "claims.employee.id"}) as server:
            assert server.protocol_version == "2026-07-28"
            lines: list[str] = []
            task = asyncio.create_task(tool(server, "wait").call({}, context(lines)))
            await eventually(lambda: log.exists() and lines, "the call has begun")
            assert lines == ["waiting"]
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await eventually(lambda: "cancelled" in log.read_text(), "the server has heard of it")
            assert await call(server, "add_one") == "added"
            await arrives(server, "one_more")
            assert await call(server, "one_more") == "here"
            greet = tool(server, "greet")
            assert list(greet.spec.parameters["properties"]) == ["name"]
            token = {"employee": {"id": "E-7"}}
            forged = {"name": "Lin", "employee_id": "E-1"}
            assert await greet.call(forged, context(claims=token)) == "Lin, E-7"
            assert "claims.employee.id" in await refusal(greet.call({"name": "Lin"}, context()))

    if transport == "stdio":
        run(scenario(command=modern(log)))
        return
    port = free_port()
    with http_server(modern(log, str(port)), port, tmp_path / "server.log"):
        run(scenario(url=f"http://127.0.0.1:{port}/mcp"))


def test_a_time_server_that_is_killed_comes_back() -> None:
    async def scenario() -> None:
        marker = "mcp_server_time\0--local-timezone"
        async with connected(command=TIME_STDIO) as server:
            (mine,) = children(marker, os.getpid())
            os.kill(mine, signal.SIGKILL)
            gone = tool(server, "get_current_time")
            await leaves(server)
            assert "cannot be reached at the moment" in await refusal(gone.call({"timezone": "UTC"}, context()))
            await arrives(server)
            assert json.loads(await call(server, "get_current_time", timezone="UTC"))["timezone"] == "UTC"
            (mine,) = children(marker, os.getpid())
        assert not is_running(mine)

    run(scenario())


def test_a_running_call_ends_at_once_when_its_server_dies_over_http(tmp_path: Path) -> None:
    async def scenario() -> None:
        with everything_http(tmp_path / "first") as first:
            async with connected(url=first.url) as server:
                progress: list[list[str]] = [[], [], []]
                running = [
                    asyncio.create_task(tool(server, LONG).call({"duration": 30, "steps": 600}, context(lines)))
                    for lines in progress
                ]
                await eventually(lambda: all(progress), "each of the calls makes progress")
                first.process.kill()
                killed = time.monotonic()
                said = await asyncio.gather(*running, return_exceptions=True)
                assert time.monotonic() - killed < 10  # who only asks now and then would take 25 s
                assert all("was lost during the call" in str(one) for one in said), said
                await leaves(server)
                with everything_http(tmp_path / "second", first.port):
                    await arrives(server)
                    assert await call(server, "echo", message="again") == "Echo: again"

    run(scenario())


def test_a_server_that_is_away_at_the_start_is_found_later(tmp_path: Path) -> None:
    port = free_port()

    async def scenario() -> None:
        async with opened(url=f"http://127.0.0.1:{port}/mcp") as server:
            assert server.tools() == ()
            with everything_http(tmp_path / "late", port):
                await arrives(server)
                assert await call(server, "echo", message="late") == "Echo: late"

    run(scenario())


def test_a_session_that_its_server_has_forgotten_is_begun_anew(tmp_path: Path) -> None:
    """A restart too quick to be noticed: the address answers, but knows nothing of the session."""

    async def scenario() -> None:
        with everything_http(tmp_path / "first") as first:
            async with connected(url=first.url) as server:
                os.kill(first.process.pid, signal.SIGKILL)
                first.process.popen.wait(10)
                with everything_http(tmp_path / "second", first.port):
                    await eventually(lambda: _works(server), "calls work again")

    async def _works(server) -> bool:
        try:
            return await call(server, "echo", message="x") == "Echo: x"
        except Exception:
            return False

    run(scenario())
