"""`baton chat` and `baton conversations` against a real gateway, with a worker in this process."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from baton_proto.messages import AnswerChunk, Citation, Done, Source, Sources, Timings, Usage
from services.cli.__main__ import main
from services.cli.conversation_lines import conversation_lines
from services.common.job import Job
from tests.commands import TIMEOUT_S, baton, environment
from tests.integration.test_gateway_protocol import SECRET, gateway, token
from tests.rig import rig
from tests.servers.nats import Nats
from tests.servers.processes import ROOT, free_port

LEAVE = Source(n=1, id="a", document_id="d1", title="Leave", url="/documents/d1", snippet="…", score=2.0)
TRAVEL = Source(n=2, id="b", document_id="d2", title="Travel", url="/documents/d2", snippet="…", score=1.0, page=3)


async def answering(job: Job) -> None:
    await job.write(Sources(sources=[LEAVE, TRAVEL]))
    text = f"{len(job.item.history)} before {job.item.query} [1]"
    await job.write(AnswerChunk(content=text))
    mark = Citation(n=1, start=len(text) - 3, end=len(text))
    await job.finish(
        Done(finish_reason="stop", cited=[1], citations=[mark], usage=Usage(), timings=Timings(), cache="hit")
    )


def url(port: int) -> str:
    return f"ws://127.0.0.1:{port}/ws"


async def chat(*arguments: str, lines: str) -> tuple[int, list[str], list[str]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", "chat", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    )
    async with asyncio.timeout(TIMEOUT_S):
        out, err = await process.communicate(lines.encode())
    assert b"Traceback" not in err, err.decode()
    assert process.returncode is not None
    return process.returncode, out.decode().splitlines(), err.decode().splitlines()


class Terminal(io.StringIO):
    """Standard input of somebody who types this."""

    def isatty(self) -> bool:
        return True


def conversations(*arguments: str, stdin: io.StringIO | None = None) -> tuple[int, str, str]:
    """`baton conversations` in this process, which costs less than one of its own."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.stdin = sys.stdin, stdin or io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main(["conversations", *arguments])
            except SystemExit as error:  # argparse
                status = int(error.code or 0)
    finally:
        sys.stdin = before
    return status, out.getvalue(), err.getvalue()


def test_a_conversation_is_begun_gone_on_with_listed_shown_and_deleted(nats: Nats, tmp_path: Path) -> None:
    with gateway(tmp_path, nats) as (port, _):
        where = ("--url", url(port))
        nothing = conversations(*where)
        assert nothing == (0, 'No conversations yet. Begin one with: baton ask "…"\n', "")
        name = asyncio.run(_talk(nats, where))
        assert_shown(name, f"http://127.0.0.1:{port}", where)
        assert_deleted(name, where)


async def _talk(nats: Nats, where: tuple[str, str]) -> str:
    """Three questions; the conversation's id."""
    async with rig(nats.url) as one, one.worker(answering):
        status, lines, notes = await chat(*where, lines="first\n\n  second  \n")
        assert status == 0
        assert [line for line in lines if "before" in line] == ["0 before first [1]", "1 before second [1]"]
        assert notes.count("From the cache.") == 2
        name = notes[-1].rpartition(" ")[2]
        assert notes[-1] == f"Conversation {name}: baton chat --conversation {name}"
        status, out, err = await baton("ask", *where, "--conversation", name, "third")
        assert status == 0
        assert out.startswith("2 before third [1]\n")
        assert err.splitlines() == ["From the cache.", f"Conversation {name}: go on with --conversation {name}"]
        return name


def assert_shown(name: str, origin: str, where: tuple[str, str]) -> None:
    shown = conversations("show", name, *where)[1].splitlines()
    assert shown[2:11] == [
        "> first",
        "",
        "0 before first [1]",
        "",
        "Sources",
        f"[1] Leave  {origin}/documents/d1",
        "",
        "Also found",
        f"[2] Travel, p. 3  {origin}/documents/d2",
    ]
    whole = json.loads(conversations(*where, "show", "--json", name)[1])
    assert [turn["query"] for turn in whole["turns"]] == ["first", "second", "third"]
    rows = [line.split("\t") for line in conversations(*where)[1].splitlines()]
    assert rows[0] == ["id", "title", "questions", "updated", "running"]
    assert [(row[:3], row[4]) for row in rows[1:]] == [([name, "first", "3"], "")]


def assert_deleted(name: str, where: tuple[str, str]) -> None:
    """Not before somebody has said so."""
    status, out, err = conversations(*where, "delete", name)
    assert (status, out) == (2, "")
    assert "--yes" in err
    status, out, err = conversations(*where, "delete", name, stdin=Terminal("no\n"))
    assert (status, out, err) == (0, "Delete “first” (3 questions) for good? [y/N] Nothing was deleted.\n", "")
    assert conversations(*where, "show", name)[0] == 0
    status, out, _ = conversations(*where, "delete", name, stdin=Terminal("y\n"))
    assert (status, out.endswith(f"Deleted {name}.\n")) == (0, True)
    gone = (1, "", "baton conversations: not_found: There is no such conversation.\n")
    assert conversations(*where, "show", name) == gone
    assert conversations(*where, "delete", "--yes", name) == gone


def test_what_is_in_the_way_is_told_in_a_line(nats: Nats, tmp_path: Path) -> None:
    with gateway(tmp_path, nats, BATON_JWT_SECRET=SECRET) as (port, _):
        status, _, err = conversations("--url", url(port))
        assert status == 1
        assert err == "baton conversations: unauthorized: a token is required; give a valid token with --token\n"
        assert conversations("--url", url(port), "--token", token(), "--json") == (0, "[]\n", "")
        nobody = url(free_port())
        assert conversations("--url", f"{nobody},{url(port)}", "--token", token())[0] == 0
    status, _, err = conversations("--url", nobody)
    assert status == 3
    assert f"no connection to {nobody}" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("line", ["show not.an.id", "--url ftp://127.0.0.1/ws", "delete", "no-such-action"])
def test_wrong_arguments_exit_with_2(line: str) -> None:
    status, out, err = conversations(*line.split())
    assert (status, out) == (2, "")
    assert "baton conversations" in err


def test_a_conversation_says_what_failed_what_runs_and_what_is_no_longer_kept() -> None:
    turn: dict[str, Any] = {"request_id": "r", "asked_ms": 0, "query": "q\x1b[2J", "outcome": "model_failed"}
    found = {
        "conversation_id": "c",
        "title": "a\nb",
        "created_ms": 0,
        "dropped": 4,
        "turns": [turn, {**turn, "query": "and?", "standalone": "q and?", "outcome": "cancelled", "answer": "Half"}],
        "running": ["r9"],
    }
    assert conversation_lines(found, "http://h/") == [
        "a b  (c, 1970-01-01 00:00 UTC)",
        "(4 earlier questions are no longer kept)",
        "",
        "> q[2J",
        "",
        "model_failed: there is no answer",
        "",
        "> and?",
        "  (understood as: q and?)",
        "",
        "Half",
        "",
        "Stopped.",
        "",
        "(r9 is being answered, or waits)",
    ]
