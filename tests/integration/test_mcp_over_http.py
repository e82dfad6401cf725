"""MCP servers over streamable HTTP that answer what a test wants."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
from typing import Any

import pytest

from services.common.config import ToolsSettings
from services.tools.mcp.server import Pace
from services.tools.service import tools_handler
from services.tools.toolbox import Toolbox
from tests.jobs import MemoryJob, tools_item
from tests.jobs import call as tool_call
from tests.mcp_calls import QUICK, arrives, call, connected, leaves, opened, refusal, run
from tests.servers.mcp import HttpByHand, http_by_hand
from tests.servers.processes import eventually

Message = dict[str, Any]


def say(text: str):
    def answer(request: HttpByHand, message: Message) -> None:
        request.result(message, content=[{"type": "text", "text": text}])

    return answer


def test_every_request_has_the_headers_that_are_configured() -> None:
    async def scenario() -> None:
        with http_by_hand(tools_call=say("hello")) as remote:
            headers = {"Authorization": "Bearer s3cret", "X-Team": "hr"}
            async with connected(url=remote.url, headers=headers) as server:
                assert server.protocol_version == "2025-06-18"
                assert await call(server, "t") == "hello"
            assert {method for method, _ in remote.seen} >= {"initialize", "tools/list", "tools/call"}
            for _, sent in remote.seen:
                assert (sent["authorization"], sent["x-team"]) == ("Bearer s3cret", "hr")
                assert sent["accept-encoding"] == "identity"

    run(scenario())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_elsewhere_is_not_followed(status: int, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        with http_by_hand() as elsewhere:

            def redirect(request: HttpByHand, message: Message) -> None:
                request.reply(status, b"", Location=elsewhere.url)

            on = {"server_discover": redirect, "initialize": redirect}
            with http_by_hand(**on) as remote:
                async with opened(url=remote.url, headers={"Authorization": "Bearer s3cret"}) as server:
                    await eventually(lambda: "not followed" in caplog.text, "the reason is logged")
                    assert server.tools() == ()
            assert elsewhere.seen == []

    run(scenario())
    assert "s3cret" not in caplog.text


def test_an_answer_without_end_is_not_read_and_a_compressed_one_is_not_unpacked() -> None:
    packed = [False, True]

    def large(request: HttpByHand, message: Message) -> None:
        content = [{"type": "text", "text": "x" * 5_000_000}]
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {"content": content}}).encode()
        if packed.pop(0):
            request.reply(200, gzip.compress(body), Content_Encoding="gzip")
        else:
            request.reply(200, body)

    async def scenario() -> None:
        with http_by_hand(tools_call=large) as remote:
            async with connected(url=remote.url) as server:
                assert "Failed to parse JSON response" in await refusal(call(server, "t"))
                assert "Failed to parse JSON response" in await refusal(call(server, "t"))
                assert server.tools()

    run(scenario())


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
def test_a_status_ends_its_call_and_not_the_session(status: int) -> None:
    def fail(request: HttpByHand, message: Message) -> None:
        request.reply(status, b"<html>proxy</html>")

    async def scenario() -> None:
        with http_by_hand(tools_call=fail) as remote:
            async with connected(url=remote.url) as server:
                assert "reported an error" in await refusal(call(server, "t"))
                await eventually(lambda: "ping" in [name for name, _ in remote.seen], "the server is looked at")
                assert "reported an error" in await refusal(call(server, "t"))
                assert [name for name, _ in remote.seen].count("initialize") == 1

    run(scenario())


def test_a_connection_that_breaks_ends_its_calls_and_a_new_session_begins() -> None:
    broken = threading.Event()

    def hang_up(request: HttpByHand, message: Message) -> None:
        if broken.is_set():
            say("again")(request, message)
        else:
            broken.set()
            request.connection.close()
            request.close_connection = True

    async def scenario() -> None:
        with http_by_hand(tools_call=hang_up) as remote:
            async with connected(url=remote.url) as server:
                assert "was lost during the call" in await refusal(call(server, "t"))
                await eventually(
                    lambda: [name for name, _ in remote.seen].count("initialize") == 2, "a new session has begun"
                )
                await arrives(server)
                assert await call(server, "t") == "again"

    run(scenario())


def test_a_call_that_takes_too_long_is_cancelled_at_the_server() -> None:
    """Through the whole tools service, as a time-out is its affair."""
    released = threading.Event()

    def hang(request: HttpByHand, message: Message) -> None:
        released.wait(20)

    async def scenario() -> None:
        with http_by_hand(tools_call=hang) as remote:
            async with connected(url=remote.url) as server:
                settings = ToolsSettings(timeout_s=0.3)
                job = MemoryJob(tools_item(tool_call("t")))
                await tools_handler(Toolbox([], [server]), settings)(job)
                outcome = job.handed_over.turns[-1].results[0]
                assert (outcome.ok, outcome.content) == (
                    False,
                    "The tool t did not finish within 0.3 seconds and was stopped.",
                )
                await eventually(
                    lambda: "notifications/cancelled" in [name for name, _ in remote.seen], "the server is told"
                )
                assert server.tools()
            released.set()

    run(scenario())


def test_a_server_that_no_longer_answers_is_away_until_it_does(caplog: pytest.LogCaptureFixture) -> None:
    answering = threading.Event()

    def stall(request: HttpByHand, message: Message) -> None:
        answering.wait(10)
        request.result(message)

    async def scenario() -> None:
        pace = Pace(connect_s=5.0, check_every_s=0.1, check_s=0.2, first_wait_s=0.3, longest_wait_s=0.3)
        with http_by_hand(ping=stall) as remote:
            async with connected(pace, url=remote.url) as server:
                await leaves(server)
                reason = "is away: TimeoutError: it did not answer within 0.2 seconds"
                await eventually(lambda: reason in caplog.text, "the reason is logged")
                answering.set()
                await arrives(server)

    run(scenario())


def test_a_server_that_never_says_good_bye_does_not_hold_up_the_end() -> None:
    """It gives out a session, and then does not answer when that is to end."""
    released = threading.Event()

    def initialize(request: HttpByHand, message: Message) -> None:
        server = {"name": "s", "version": "1"}
        result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": server}
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
        type(request).do_DELETE = lambda _: released.wait(20)
        request.reply(200, body, Mcp_Session_Id="one")

    async def scenario() -> None:
        with http_by_hand(initialize=initialize) as remote:
            async with connected(QUICK, url=remote.url):
                began = time.monotonic()
            assert 1.5 < time.monotonic() - began < 7.5  # after 8 s it would be cut off
            released.set()

    run(scenario())


def test_concurrent_calls_share_one_session() -> None:
    together = threading.Barrier(8, timeout=60)

    def meet(request: HttpByHand, message: Message) -> None:
        together.wait()
        request.result(message, content=[{"type": "text", "text": str(message["params"]["arguments"]["n"])}])

    async def scenario() -> None:
        with http_by_hand(tools_call=meet) as remote:
            async with connected(url=remote.url) as server:
                said = await asyncio.gather(*(call(server, "t", n=number) for number in range(8)))
                assert said == [str(number) for number in range(8)]

    run(scenario())
