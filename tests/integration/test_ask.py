"""`baton ask` as a process, against a gateway that follows a script."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from tests.commands import TIMEOUT_S, environment, in_terminal
from tests.scripted_gateway import HELLO, gateway, send
from tests.servers.processes import ROOT, free_port

pytestmark = pytest.mark.anyio

SOURCES = [
    {"n": 1, "id": "a", "document_id": "d1", "title": "Leave", "url": "/documents/d1", "snippet": "…", "score": 2.0},
    {"n": 2, "id": "b", "document_id": "d2", "title": "Travel", "url": "/documents/d2", "snippet": "…", "score": 1.0}
    | {"page": 3},
]
STORY: list[dict[str, Any]] = [
    {"type": "accepted", "conversation_id": "c1"},
    {"type": "status", "stage": "retrieving", "content": "Searching the documents"},
    {"type": "sources", "sources": SOURCES},
    {"type": "tool_call", "call_id": "t1", "name": "leave_balance", "arguments": {"year": 2026}},
    {"type": "tool_result", "call_id": "t1", "name": "leave_balance", "ok": True, "elapsed_ms": 7, "content": "12"},
    {"type": "answer_chunk", "content": "You get 20 days [1"},
    {"type": "answer_chunk", "content": "] of leave."},
    {"type": "done", "finish_reason": "stop", "cited": [1], "citations": []}
    | {"timings": {"ttft_ms": 210, "retrieval_ms": 40}, "usage": {"completion_tokens": 9}},
]


async def tell_story(connection: ServerConnection) -> None:
    await connection.send(json.dumps(HELLO))
    query = json.loads(await connection.recv())
    for seq, frame in enumerate(STORY):
        await send(connection, frame, query["request_id"], seq)


async def baton(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", "ask", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    )
    out, err = await asyncio.wait_for(process.communicate(stdin), TIMEOUT_S)
    assert process.returncode is not None
    assert b"Traceback" not in err, err.decode()
    return process.returncode, out.decode(), err.decode()


async def test_in_a_pipe_the_answer_is_plain_text_and_the_steps_go_to_standard_error() -> None:
    async with gateway(tell_story) as url:
        status, out, err = await baton("--url", url, "How", "many", "days?")
    assert status == 0
    origin = url.replace("ws://", "http://").removesuffix("/ws")
    assert out.splitlines() == [
        "You get 20 days [1] of leave.",
        "",
        "Sources",
        f"[1] Leave  {origin}/documents/d1",
        "",
        "Also found",
        f"[2] Travel, p. 3  {origin}/documents/d2",
    ]
    assert err.splitlines() == [
        "Searching the documents",
        'Calling leave_balance {"year": 2026}',
        "leave_balance answered in 7 ms",
        "Conversation c1: go on with --conversation c1",
    ]


async def test_a_chinese_question_gets_chinese_labels() -> None:
    async with gateway(tell_story) as url:
        status, out, err = await baton("--url", url, "年假有几天？")
    assert status == 0
    assert "来源" in out
    assert "第 3 页" in out
    assert "调用 leave_balance" in err


async def test_json_prints_each_frame_as_it_was_received() -> None:
    async with gateway(tell_story) as url:
        status, out, _ = await baton("--url", url, "--json", "q")
    frames = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert frames[0] == HELLO
    assert [frame["seq"] for frame in frames[1:]] == list(range(len(STORY)))
    assert [frame["type"] for frame in frames[1:]] == [frame["type"] for frame in STORY]


async def test_the_options_reach_the_gateway() -> None:
    received: dict[str, Any] = {}

    async def script(connection: ServerConnection) -> None:
        received["token"] = connection.request.headers["Authorization"]
        received.update(json.loads(await connection.recv()))
        await send(connection, STORY[-1], received["request_id"], 0)

    options = ["--language", "zh", "--conversation", "c-7", "--top-k", "3", "--deadline-ms", "5000", "--token", "abc"]
    options += ["--if-busy", "enqueue", "--no-cache", "--seed", "7", "--temperature", "0.5", "--top-p", "0.9"]
    options += ["--max-tokens", "100"]
    async with gateway(script) as url:
        status, _, _ = await baton("--url", url, *options, "-", stdin="你好\n".encode())
    del received["request_id"]
    wanted = {"type": "query", "query": "你好", "language": "zh", "conversation_id": "c-7", "top_k": 3}
    assert status == 0
    wanted |= {"if_busy": "enqueue", "cache": False, "seed": 7, "temperature": 0.5, "top_p": 0.9, "max_tokens": 100}
    assert received == {**wanted, "deadline_ms": 5000, "token": "Bearer abc"}


async def test_an_error_frame_is_told_and_exits_with_1() -> None:
    async def script(connection: ServerConnection) -> None:
        query = json.loads(await connection.recv())
        error = {"type": "error", "code": "no_worker", "message": "No retriever is running.", "retryable": True}
        await send(connection, {**error, "retry_after_ms": 2000}, query["request_id"], 0)

    async with gateway(script) as url:
        status, out, err = await baton("--url", url, "q")
    assert (status, out) == (1, "")
    assert err == "no_worker: No retriever is running. (retry after 2 s)\n"


async def test_a_gateway_that_wants_a_token_is_told_in_a_sentence() -> None:
    async def script(connection: ServerConnection) -> None:
        await connection.send(json.dumps({**HELLO, "auth": "required"}))

    async with gateway(script) as url:
        status, _, err = await baton("--url", url, "q")
    assert status == 1
    assert "--token" in err


@pytest.mark.parametrize(
    "arguments",
    [["  "], ["--top-k", "0", "q"], ["--top-k", "x", "q"], ["--url", "ftp://127.0.0.1/ws", "q"], ["--nonsense"], []],
    ids=" ".join,
)
async def test_wrong_arguments_exit_with_2(arguments: list[str]) -> None:
    status, out, err = await baton(*arguments)
    assert (status, out) == (2, "")
    assert "baton ask:" in err


async def test_without_a_gateway_it_exits_with_3_and_says_where_it_looked() -> None:
    url = f"ws://127.0.0.1:{free_port()}/ws"
    status, _, err = await baton("--url", url, "q")
    assert status == 3
    assert url in err
    assert "make run" in err


async def test_a_lost_connection_is_resumed_without_a_gap_or_a_repetition() -> None:
    asked: list[dict[str, Any]] = []

    async def script(connection: ServerConnection) -> None:
        message = json.loads(await connection.recv())
        asked.append(message)
        request_id = message["request_id"]
        if len(asked) == 1:
            for seq, frame in enumerate(STORY[:6]):
                await send(connection, frame, request_id, seq)
            await connection.close(1012, "going away")
            return
        resumed = {"type": "resumed", "request_id": request_id, "recovered": True, "next_seq": 6}
        await connection.send(json.dumps(resumed))
        for seq, frame in list(enumerate(STORY))[5:]:  # one of them again
            await send(connection, frame, request_id, seq)

    async with gateway(script) as url:
        status, out, _ = await baton("--url", url, "q")
    assert status == 0
    assert out.splitlines()[0] == "You get 20 days [1] of leave."
    assert asked[1] == {"type": "resume", "request_id": asked[0]["request_id"], "after_seq": 5}


async def test_what_a_gateway_has_left_out_is_asked_for_and_joined_chunks_are_not_shown_twice() -> None:
    asked: list[dict[str, Any]] = []

    async def script(connection: ServerConnection) -> None:
        query = json.loads(await connection.recv())
        request_id = query["request_id"]
        for seq in (0, 1, 5, 6):
            await send(connection, STORY[seq], request_id, seq)
        asked.append(json.loads(await connection.recv()))
        for seq in range(2, 6):
            await send(connection, STORY[seq], request_id, seq)
        joined = {**STORY[5], "content": STORY[5]["content"] + STORY[6]["content"], "from_seq": 5}
        await send(connection, joined, request_id, 6)
        await send(connection, STORY[7], request_id, 7)

    async with gateway(script) as url:
        status, out, _ = await baton("--url", url, "q")
        screen = await in_terminal("ask", "--url", url, "q")
    assert status == 0
    assert [message["type"] for message in asked] == ["resume", "resume"]
    assert asked[0]["after_seq"] == 1
    assert out.splitlines()[0] == "You get 20 days [1] of leave."
    assert screen.count("You get 20 days") == 1


async def test_a_gateway_that_does_not_come_back_ends_the_attempts() -> None:
    async def script(connection: ServerConnection) -> None:
        await connection.recv()
        server.close(close_connections=False)
        connection.transport.abort()

    async with serve(script, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"
        status, _, err = await baton("--give-up-after", "1", "--url", url, "q")
    assert status == 3
    assert "did not come back" in err
    assert "its request id is ask-" in err


async def test_ctrl_c_cancels_and_shows_what_there_is() -> None:
    cancelled: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    streaming = asyncio.Event()

    async def script(connection: ServerConnection) -> None:
        query = json.loads(await connection.recv())
        await send(connection, {"type": "answer_chunk", "content": "A beginning"}, query["request_id"], 0)
        streaming.set()
        cancelled.set_result(json.loads(await connection.recv()))
        end = {"type": "done", "finish_reason": "cancelled", "cited": [], "citations": []}
        await send(connection, end, query["request_id"], 1)

    async with gateway(script) as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.cli", "ask", "--url", url, "q"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env=environment(),
        )
        await asyncio.wait_for(streaming.wait(), TIMEOUT_S)
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert (await cancelled)["type"] == "cancel"
    assert process.returncode == 130
    assert out.decode().splitlines() == ["A beginning", "Stopped."]
    assert b"Traceback" not in err


async def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    async with gateway(tell_story) as url:
        reading, writing = os.pipe()
        os.close(reading)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.cli", "ask", "--json", "--url", url, "q"),
            stdout=writing,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env=environment(),
        )
        os.close(writing)
        _, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert (process.returncode, err) == (1, b"")


async def test_in_a_terminal_steps_come_with_times_and_nothing_steers_the_terminal() -> None:
    async def script(connection: ServerConnection) -> None:
        query = json.loads(await connection.recv())
        story = [*STORY[:5], {"type": "answer_chunk", "content": "\x1b]0;evil\x07red\x1b[2J"}, *STORY[5:]]
        for seq, frame in enumerate(story):
            await send(connection, frame, query["request_id"], seq)

    async with gateway(script) as url:
        screen = await in_terminal("ask", "--url", url, "q")
    assert re.search(r"\d\.\d\d s  Searching the documents", screen)
    assert "You get 20 days" in screen
    assert "of leave." in screen
    assert "Sources" in screen
    assert "TTFT 210 ms · retrieval 40 ms" in screen
    assert "\x1b]0;" not in screen
    assert "\x1b[2J" not in screen
    assert "\x1b[36m[1]" in screen  # the citation, though it came in two halves
