"""`baton ask` as a process whose gateway goes away, refuses, or loses frames."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from tests.commands import TIMEOUT_S, baton, finish, in_terminal, start_baton
from tests.scripted_gateway import HELLO, Script, gateway, send
from tests.servers.processes import free_port

pytestmark = pytest.mark.anyio

ACCEPTED = {"type": "accepted", "conversation_id": "c"}
DONE = {"type": "done", "finish_reason": "stop", "cited": [], "citations": []}
CANCELLED = {**DONE, "finish_reason": "cancelled"}
STORY = [ACCEPTED, *({"type": "answer_chunk", "content": word} for word in ("one ", "two ", "three ")), DONE]


async def tell(connection: ServerConnection, request_id: str, first: int = 0, last: int = 4) -> None:
    for seq in range(first, last + 1):
        await send(connection, STORY[seq], request_id, seq)


def parts(*scripts: Any) -> tuple[Script, list[dict[str, Any]]]:
    """A script for each connection in turn, and all messages that clients have sent first on each."""
    received: list[dict[str, Any]] = []

    async def script(connection: ServerConnection) -> None:
        await connection.send(json.dumps(HELLO))
        received.append(json.loads(await connection.recv()))
        await scripts[len(received) - 1](connection, received[-1]["request_id"])

    return script, received


def tells(first: int, last: int, code: int | None = None) -> Any:
    """Tell a part of the story; close with `code`, or, if it is 0, break off."""

    async def part(connection: ServerConnection, request_id: str) -> None:
        await tell(connection, request_id, first, last)
        if code:
            await connection.close(code)
        elif code == 0:
            connection.transport.abort()

    return part


@pytest.mark.parametrize("code", [0, 1011, 1012, 4008, 4009])
async def test_after_these_closes_it_comes_back_and_goes_on(code: int) -> None:
    script, received = parts(tells(0, 2, code), tells(3, 4))
    async with gateway(script) as url:
        status, out, err = await baton("ask", "--url", url, "q")
    assert (status, out) == (0, "one two three \n")
    assert "reconnecting" in err
    assert received[1] == {"type": "resume", "request_id": received[0]["request_id"], "after_seq": 2}


@pytest.mark.parametrize(("code", "words"), [(1009, "larger"), (4001, "--token"), (4003, "origin")])
async def test_after_these_closes_it_stays_away_and_says_why(code: int, words: str) -> None:
    script, received = parts(tells(0, 2, code))
    async with gateway(script) as url:
        status, out, err = await baton("ask", "--url", url, "q")
    assert (status, out) == (1, "one two \n")
    assert words in err
    assert len(received) == 1


async def test_a_question_that_was_not_answered_yet_is_sent_again() -> None:
    async def nothing(connection: ServerConnection, _: str) -> None:
        await connection.close(1012)

    script, received = parts(nothing, tells(0, 4))
    async with gateway(script) as url:
        assert (await baton("ask", "--url", url, "q"))[0] == 0
    assert received[0] == received[1]


async def test_the_next_try_goes_to_the_next_gateway() -> None:
    here, asked_here = parts(tells(0, 2, 1012))
    there, asked_there = parts(tells(3, 4))
    async with gateway(here) as first, gateway(there) as second:
        nowhere = f"ws://127.0.0.1:{free_port()}/ws"
        status, out, _ = await baton("ask", "--url", f"{nowhere}, {first}", "--url", second, "q")
    assert (status, out) == (0, "one two three \n")
    assert [asked_here[0]["type"], asked_there[0]["type"]] == ["query", "resume"]


async def test_a_retryable_refusal_is_tried_again_when_it_was_said_to() -> None:
    async def busy(connection: ServerConnection, request_id: str) -> None:
        error = {"type": "error", "code": "overloaded", "message": "Full.", "retryable": True, "retry_after_ms": 300}
        await send(connection, error, request_id)
        again = json.loads(await connection.recv())
        assert again["type"] == "query"
        await tell(connection, request_id)

    script, _ = parts(busy)
    async with gateway(script) as url:
        status, out, err = await baton("ask", "--url", url, "q")
    assert (status, out) == (0, "one two three \n")
    assert "Full. Trying again in 0.3 s" in err


async def test_a_refusal_that_stays_is_told_after_a_bounded_number_of_tries() -> None:
    asked = 0

    async def busy(connection: ServerConnection, request_id: str) -> None:
        nonlocal asked
        error = {"type": "error", "code": "overloaded", "message": "Full.", "retryable": True, "retry_after_ms": 1}
        while True:
            asked += 1
            await send(connection, error, request_id)
            await connection.recv()

    script, _ = parts(busy)
    async with gateway(script) as url:
        status, _, err = await baton("ask", "--url", url, "q")
    assert status == 1
    assert err.splitlines()[-1].startswith("overloaded: Full.")
    assert asked == 6


async def test_a_refusal_for_good_ends_it_at_once() -> None:
    async def no(connection: ServerConnection, request_id: str) -> None:
        await send(
            connection, {"type": "error", "code": "bad_message", "message": "No.", "retryable": False}, request_id
        )

    script, _ = parts(no)
    async with gateway(script) as url:
        status, _, err = await baton("ask", "--url", url, "q")
    assert (status, err) == (1, "bad_message: No.\n")


async def test_missing_frames_are_asked_for_before_anything_behind_them_is_used() -> None:
    asked: list[dict[str, Any]] = []

    async def gap(connection: ServerConnection, request_id: str) -> None:
        await tell(connection, request_id, 0, 1)
        await tell(connection, request_id, 3, 4)
        asked.append(json.loads(await connection.recv()))
        await send(connection, {"type": "resumed", "recovered": True, "next_seq": 2}, request_id)
        await tell(connection, request_id, 2, 4)

    script, _ = parts(gap)
    async with gateway(script) as url:
        status, out, _ = await baton("ask", "--url", url, "q")
    assert (status, out) == (0, "one two three \n")
    assert [message["after_seq"] for message in asked] == [1]


async def test_the_kept_answer_is_shown_as_such_when_the_log_is_gone() -> None:
    async def kept(connection: ServerConnection, request_id: str) -> None:
        answer = {"answer": "one two three four", "sources": [], "finish_reason": "stop"}
        await send(connection, {"type": "resumed", "recovered": False, "next_seq": 0, **answer}, request_id)

    script, _ = parts(tells(0, 2, 1012), kept)
    async with gateway(script) as url:
        status, out, err = await baton("ask", "--url", url, "q")
    assert (status, out) == (0, "one two three four\n")
    assert "no longer stored" in err


async def test_an_answer_that_is_gone_is_said_to_be() -> None:
    async def gone(connection: ServerConnection, request_id: str) -> None:
        await send(connection, {"type": "resumed", "recovered": False, "next_seq": 0}, request_id)
        await send(connection, {"type": "error", "code": "gone", "message": "Expired.", "retryable": False}, request_id)

    script, _ = parts(tells(0, 2, 1012), gone)
    async with gateway(script) as url:
        status, _, err = await baton("ask", "--url", url, "q")
    assert status == 1
    assert "gone: Expired." in err


async def test_ctrl_c_without_a_connection_cancels_when_there_is_one() -> None:
    port = free_port()
    cancelled: list[str] = []

    async def cancel(connection: ServerConnection, request_id: str) -> None:
        cancelled.append(json.loads(await connection.recv())["type"])
        await send(connection, {**CANCELLED, "type": "done"}, request_id, 3)

    first, _ = parts(tells(0, 2, 0))
    second, received = parts(cancel)
    async with gateway(first, port) as url:
        process = await start_baton("ask", "--url", url, "q")
        assert process.stderr is not None
        async with asyncio.timeout(TIMEOUT_S):
            assert b"reconnecting" in await process.stderr.readline()
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(TIMEOUT_S):
        assert b"Stopping" in await process.stderr.readline()
    async with gateway(second, port):
        status, out, _ = await finish(process)
    assert status == 130
    assert out.splitlines() == ["one two ", "Stopped."]
    assert [received[0]["type"], *cancelled] == ["resume", "cancel"]


async def test_ctrl_c_says_so_when_nobody_could_be_told() -> None:
    script, _ = parts(tells(0, 2, 0))
    async with gateway(script) as url:
        process = await start_baton("ask", "--url", url, "q")
        assert process.stderr is not None
        async with asyncio.timeout(TIMEOUT_S):
            assert b"reconnecting" in await process.stderr.readline()
    process.send_signal(signal.SIGINT)
    status, _, err = await finish(process)
    assert status == 130
    assert "could not be told" in err


async def test_in_a_terminal_the_answer_goes_on_in_the_same_line() -> None:
    script, _ = parts(tells(0, 2, 0), tells(3, 4))
    async with gateway(script) as url:
        screen = await in_terminal("ask", "--url", url, "q")
    assert "reconnecting" in screen
    # Up one line and behind "one two ", where the third word belongs.
    assert "\x1b[A\x1b[8Cthree" in screen
