"""MCP servers that break off, break the rules or do too much of something: by hand, with a real process each."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from services.common.config import ToolsSettings
from services.tools.mcp.server import Pace
from services.tools.service import tools_handler
from services.tools.toolbox import Toolbox
from tests.jobs import MemoryJob, tools_item
from tests.jobs import call as tool_call
from tests.mcp_calls import QUICK, arrives, call, connected, context, leaves, names, opened, refusal, run, tool
from tests.servers.mcp import by_hand, is_running, messages, processes
from tests.servers.processes import ROOT, eventually, wait_until


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "sent.jsonl"


def sent(log: Path, method: str) -> list[dict[str, Any]]:
    return [message for message in messages(log) if message.get("method") == method]


def test_a_program_gets_a_small_environment_and_none_of_our_secrets(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATON_JWT_SECRET", "ours")
    monkeypatch.setenv("TICKETS_TOKEN", "theirs")
    (tmp_path / "key").write_text("from a file\n")

    async def scenario() -> None:
        env = {"PLAIN": "text", "TOKEN": {"env": "TICKETS_TOKEN"}, "KEY": {"file": str(tmp_path / "key")}}
        async with connected(command=by_hand(log), env=env, cwd=str(tmp_path)) as server:
            said = json.loads(await call(server, "env"))
            assert {"PLAIN": "text", "TOKEN": "theirs", "KEY": "from a file"}.items() <= said["env"].items()
            assert not {"BATON_JWT_SECRET", "TICKETS_TOKEN", "PYTHONPATH"} & set(said["env"])
            assert said["cwd"] == str(tmp_path)
            assert said["group"] != os.getpgrp()

    run(scenario())


def test_a_call_that_runs_when_its_server_dies_says_so_and_calls_work_again(log: Path) -> None:
    async def scenario() -> None:
        async with connected(command=by_hand(log)) as server:
            hanging = asyncio.create_task(tool(server, "hang").call({}, context(language="zh")))
            await eventually(lambda: sent(log, "tools/call"), "the call has begun")
            assert "was lost during the call" in await refusal(call(server, "die"))
            assert "连接在调用期间中断" in await refusal(_await(hanging))
            await arrives(server)
            assert json.loads(await call(server, "echo", a=1)) == {"arguments": {"a": 1}, "meta": {}}

    run(scenario())


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_call_that_its_server_did_not_survive_is_repeated_only_if_that_is_harmless(
    log: Path, idempotent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.tools.mcp.server.RESTART_S", 2.0)  # a program takes its time on a busy machine

    async def scenario() -> None:
        async with connected(command=by_hand(log), idempotent=["die_once"] if idempotent else []) as server:
            job = MemoryJob(tools_item(tool_call("die_once")))
            await tools_handler(Toolbox([], [server]), ToolsSettings())(job)
            outcome = job.handed_over.turns[-1].results[0]
            assert (outcome.ok, "alive" in outcome.content) == (idempotent, idempotent)
            assert len(sent(log, "tools/call")) == 1 + idempotent

    run(scenario())


def test_the_end_of_a_program_is_noticed_although_its_child_holds_the_pipes_and_the_child_ends_too(log: Path) -> None:
    async def scenario() -> None:
        async with connected(command=by_hand(log)) as server:
            began = time.monotonic()
            assert "was lost during the call" in await refusal(call(server, "leave_child"))
            assert time.monotonic() - began < 15.0  # the child would hold them for ten minutes
            child = next(message["child"] for message in messages(log) if "child" in message)
            await eventually(lambda: not is_running(child), "the child has ended")
            await arrives(server)

    run(scenario())


def test_a_server_that_hangs_is_replaced(log: Path) -> None:
    pace = Pace(check_every_s=0.3, check_s=0.5, first_wait_s=0.3, relist_s=0.1)

    async def scenario() -> None:
        async with connected(pace, command=by_hand(log)) as server:
            task = asyncio.create_task(call(server, "stop_reading"))
            await eventually(lambda: any("asleep" in message for message in messages(log)), "it has stopped reading")
            # While a call runs nobody is asked for a sign of life: many a server is deaf then.
            await asyncio.wait([task], timeout=1.5)
            assert not task.done()
            assert server.tools()
            task.cancel()
            await leaves(server)
            await arrives(server)
            assert len(processes(str(log))) == 1

    run(scenario())


def test_a_server_that_hangs_is_replaced_although_calls_keep_it_busy(log: Path) -> None:
    pace = Pace(check_every_s=0.2, check_s=0.5, first_wait_s=0.3, relist_s=0.1)

    async def scenario() -> None:
        async with connected(pace, timeout_s=0.3, command=by_hand(log)) as server:
            assert "was lost during the call" in await refusal(call(server, "stop_reading"))
            await arrives(server)
            assert len(processes(str(log))) == 1

    run(scenario())


def test_a_server_that_cannot_bear_the_question_for_the_newest_protocol_is_not_asked(log: Path) -> None:
    async def scenario() -> None:
        async with connected(command=by_hand(log), handshake=True):
            assert [message["method"] for message in messages(log)][:1] == ["initialize"]

    run(scenario())


def test_a_cancelled_call_ends_at_the_server_only(log: Path) -> None:
    async def scenario() -> None:
        async with connected(command=by_hand(log)) as server:
            task = asyncio.create_task(call(server, "hang"))
            await eventually(lambda: sent(log, "tools/call"), "the call has begun")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await eventually(lambda: sent(log, "notifications/cancelled"), "the server is told")
            (cancelled,) = sent(log, "notifications/cancelled")
            assert cancelled["params"]["requestId"] == sent(log, "tools/call")[0]["id"]
            assert "arguments" in await call(server, "echo")
            assert len(sent(log, "initialize")) == 1

    run(scenario())


def test_tools_that_change_are_listed_again_but_not_for_each_notification(log: Path) -> None:
    async def scenario() -> None:
        async with connected(command=by_hand(log)) as server:
            began = time.monotonic()
            assert await call(server, "grow") == "grown"
            await arrives(server, "grown")
            assert await call(server, "grow") == "shrunk"
            await eventually(lambda: "grown" not in names(server), "the tool is gone")
            # One at the start, one at once, and then one for each pause: 40 notifications in a few of them.
            assert len(sent(log, "tools/list")) <= 2 + (time.monotonic() - began) / QUICK.relist_s

    run(scenario())


def test_what_breaks_the_rules_beside_a_call_does_not_harm_it(log: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="services.tools.mcp")

    async def scenario() -> None:
        async with connected(command=by_hand(log)) as server:
            assert await call(server, "babble") == "still here"
            await eventually(lambda: "a log message" in caplog.text, "the log message is logged")

    run(scenario())
    assert "MCP server srv: hello from stderr" in caplog.text
    assert "no message on its stdout: debugging 1 2 3" in caplog.text
    assert "\x1b" not in caplog.text
    assert max(map(len, caplog.messages)) < 700


def test_failures_are_told_in_one_line(log: Path) -> None:
    async def scenario() -> None:
        async with connected(command=by_hand(log)) as server:
            assert await refusal(call(server, "fail")) == "The tool server srv reported an error: no such thing"
            assert "the answer cannot be read" in await refusal(call(server, "abyss"))
            assert await refusal(call(server, "misfit")) == "The answer of the tool server srv could not be understood."
            assert "arguments" in await call(server, "echo")

    run(scenario())


def test_an_answer_that_is_too_large_ends_the_connection_and_one_that_is_large_is_cut(log: Path) -> None:
    async def scenario() -> None:
        async with connected(command=by_hand(log)) as server:
            assert len(await call(server, "large")) == 200_000
            assert "was lost during the call" in await refusal(call(server, "flood"))
            await arrives(server)

    run(scenario())


def test_what_a_server_asks_of_us_is_declined(log: Path) -> None:
    async def scenario() -> None:
        async with connected(command=by_hand(log)) as server:
            assert json.loads(await call(server, "ask")) == {
                "a": "Sampling not supported",
                "b": "Elicitation not supported",
                "c": "List roots not supported",
                "d": "ok",
            }
            assert sent(log, "initialize")[0]["params"]["capabilities"] == {}

    run(scenario())


def test_progress_is_a_message_a_count_or_a_percentage(log: Path) -> None:
    async def scenario() -> None:
        async with connected(command=by_hand(log)) as server:
            lines: list[str] = []
            assert await tool(server, "progress").call({}, context(lines)) == "done"
            assert sorted(lines) == ["1/4", "50 %", "half"]

    run(scenario())


def test_the_user_reaches_the_server_and_a_model_s_user_does_not(log: Path) -> None:
    async def scenario() -> None:
        options = {"inject": {"employee": "user.sub"}, "meta": {"example.com/tenant": "claims.tenant"}}
        async with connected(command=by_hand(log), **options) as server:
            echo = tool(server, "echo")
            said = json.loads(
                await echo.call({"employee": "somebody else", "q": 1}, context(claims={"tenant": {"id": 4}}))
            )
            # The schema does not ask for the argument, so nothing is filled in either.
            assert said == {"arguments": {"q": 1}, "meta": {"example.com/tenant": {"id": 4}}}
            assert "claims.tenant" in await refusal(echo.call({}, context()))

    run(scenario())


def test_tools_that_cannot_be_offered_are_left_out_and_others_get_names_that_fit(
    log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with connected(command=by_hand(log, "bad"), prefix="x_") as server:
            offered = {one.spec.name: one.spec for one in Toolbox([], [server]).tools()}
            assert "x_echo" in offered
            assert not {name for name in offered if "no_" in name or "deep" in name or "huge" in name}
            assert not {"x_elsewhere", "x_task"} & set(offered)
            assert "x_files_read_all" in offered
            (mapped,) = [name for name in offered if name.startswith("x_files_read_all_")]
            assert len(offered[mapped].description) == 2_000
            (long,) = [name for name in offered if name.startswith("x_nnn")]
            assert len(long) == 64
            assert offered[long].description == "A long name"
            assert not offered["x_echo"].idempotent

    run(scenario())
    assert "elsewhere is left out: its schema refers to https://example.com/schema.json" in caplog.text
    assert "files.read/all is called x_files_read_all_" in caplog.text


def test_a_list_without_end_is_cut(log: Path) -> None:
    async def scenario() -> None:
        async with connected(command=by_hand(log, "many")) as server:
            assert len(server.tools()) == 200
            assert len(sent(log, "tools/list")) == 7

    run(scenario())


def test_an_allow_list_keeps_everything_else_away(log: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with connected(command=by_hand(log), tools=["echo", "hang", "nothing"], idempotent=["echo"]) as server:
            assert [(one.spec.name, one.spec.idempotent) for one in server.tools()] == [
                ("echo", True),
                ("hang", False),
            ]
            assert tool(server, "echo").timeout_s == 20.0

    run(scenario())
    assert "MCP server srv: it has no nothing" in caplog.text


@pytest.mark.parametrize(
    ("option", "connect_s", "said"),
    [
        ("mute", 0.3, "it was not ready within 0.3 seconds"),
        ("version=1999-01-01", 30.0, "Unsupported protocol version"),
    ],
)
def test_a_server_that_cannot_be_talked_to_is_away(
    log: Path, caplog: pytest.LogCaptureFixture, option: str, connect_s: float, said: str
) -> None:
    async def scenario() -> None:
        async with opened(Pace(connect_s=connect_s, first_wait_s=0.05), command=by_hand(log, option)) as server:
            await eventually(lambda: said in caplog.text, "the reason is logged")
            assert server.tools() == ()

    run(scenario())


def test_a_program_that_always_crashes_is_started_ever_more_rarely(log: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="services.tools.mcp")

    async def scenario() -> None:
        async with opened(Pace(first_wait_s=0.1, longest_wait_s=0.4), command=by_hand(log, "crash")):
            await eventually(lambda: caplog.text.count("next attempt in") >= 4, "four attempts")

    run(scenario())
    assert "MCP server srv: cannot start: no licence" in caplog.text
    waits = [float(line.rpartition("in ")[2].split()[0]) for line in caplog.messages if "next attempt" in line]
    assert waits[0] <= 0.1
    assert waits[2] >= 0.2
    assert max(waits) <= 0.4


def test_the_oldest_protocol_is_spoken_too(log: Path) -> None:
    async def scenario() -> None:
        async with connected(command=by_hand(log, "version=2024-11-05")) as server:
            assert server.protocol_version == "2024-11-05"
            assert "arguments" in await call(server, "echo")

    run(scenario())


def test_a_server_that_ignores_that_it_should_end_is_killed(log: Path) -> None:
    async def scenario() -> None:
        async with connected(command=by_hand(log, "stubborn")):
            (pid,) = processes(str(log))
        assert not is_running(pid)

    run(scenario())


def test_a_server_does_not_outlive_a_worker_that_is_killed(log: Path, tmp_path: Path) -> None:
    """Not even one that ignores the end of its stdin and SIGTERM."""
    script = tmp_path / "holder.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import asyncio, sys
            sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "proto")!r}]
            from services.common.process import run
            from tests.mcp_calls import connected
            from tests.servers.mcp import by_hand
            from pathlib import Path

            async def main():
                async with connected(command=by_hand(Path({str(log)!r}), "stubborn")):
                    print("ready", flush=True)
                    await asyncio.Event().wait()

            run(main())
            """
        )
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        (pid,) = processes(str(log))
        holder.send_signal(signal.SIGKILL)
    wait_until(lambda: not is_running(pid), "the server has ended too")


async def _await(task: asyncio.Task[str]) -> str:
    return await task
