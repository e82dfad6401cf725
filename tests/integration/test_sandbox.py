"""Whatever a file does to the process that reads it: one clear reason, and the next file is read."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from services.common.config import IngestSettings
from services.retriever.bad_document import BadDocument
from services.retriever.extract import Document, extract
from services.retriever.sandbox import Reader, open_sandbox
from tests.servers.processes import ROOT

HOSTILE = "tests.hostile_reader:misbehave"
SMALL = IngestSettings(concurrency=1, parse_timeout_s=30, parse_memory_mb=128)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(40):
        while not condition():  # noqa: ASYNC110 (what is waited for happens in another process)
            await asyncio.sleep(0.01)


async def until_gone(*pids: int) -> None:
    await until(lambda: all(gone(pid) for pid in pids))


def pids_in(report: Path) -> list[int]:
    """The reader and the process that it started, once they have said who they are."""
    pids = report.read_text().split() if report.exists() else []
    return [int(pid) for pid in pids] if len(pids) == 2 else []


async def reason(read: Reader, name: str, data: bytes = b"x") -> str:
    with pytest.raises(BadDocument) as caught:
        await read(name, data)
    return str(caught.value)


def test_a_file_that_harms_its_reader_gets_a_reason_and_the_next_one_is_read() -> None:
    async def all_of_them() -> None:
        async with open_sandbox(SMALL, HOSTILE) as read:
            first = int((await read("good", b"x")).text)
            assert await reason(read, "bad") == "no good, 不行"
            assert int((await read("print", b"x")).text) == first, "a refusal or a print costs no child"
            assert await reason(read, "memory") == "reading it took more than 128 MB of memory (BATON_PARSE_MEMORY_MB)"
            second = int((await read("good", b"x")).text)
            assert await reason(read, "crash") == "the reader crashed (SIGSEGV)"
            assert await reason(read, "exit") == "the reader crashed"
            third = await read("good", b"x" * 5_000_000)
            assert len({first, second, int(third.text)}) == 3
            assert third.metadata == {"year": 2026, "部门": "hr"}
            assert third.pages == (0, 5)
        await until_gone(first, second, int(third.text))

    asyncio.run(all_of_them())


def test_a_reader_that_never_ends_is_killed_with_all_it_started(tmp_path: Path) -> None:
    async def loop() -> None:
        async with open_sandbox(IngestSettings(concurrency=1, parse_timeout_s=3), HOSTILE) as read:
            report = tmp_path / "pids"
            assert await reason(read, "family", str(report).encode()) == (
                "reading it took more than 3 s (BATON_PARSE_TIMEOUT_S)"
            )
            await until_gone(*pids_in(report))
            assert (await read("good", b"x")).title == "good"

    asyncio.run(loop())


def test_a_cancelled_read_kills_its_child(tmp_path: Path) -> None:
    async def cancel() -> None:
        async with open_sandbox(SMALL, HOSTILE) as read:
            report = tmp_path / "pids"
            reading = asyncio.create_task(read("family", str(report).encode()))
            await until(lambda: bool(pids_in(report)))
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            await until_gone(*pids_in(report))
            assert (await read("good", b"x")).title == "good"

    asyncio.run(cancel())


def test_a_child_has_no_secrets_no_files_and_small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATON_LLM_API_KEY", "secret-1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-2")

    async def look() -> None:
        async with open_sandbox(SMALL, HOSTILE) as read:
            text = (await read("environment", b"x")).text
            assert "secret" not in text
            seen = json.loads(text)
            assert not [name for name in seen["environment"] if name.startswith("BATON_")]
            assert seen["folder"] == []
            assert seen["RLIMIT_CORE"] == 0
            assert seen["RLIMIT_NOFILE"] == 64
            with pytest.raises(BadDocument):
                await read("large file", b"x")
            assert (await read("good", b"x")).title == "good"

    asyncio.run(look())


def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    """The parent is killed while its child is busy and would not look at its pipe."""
    report = tmp_path / "pids"
    program = (
        "import asyncio, sys\n"
        "from services.common.config import IngestSettings\n"
        "from services.retriever.sandbox import open_sandbox\n"
        "async def main():\n"
        f"    async with open_sandbox(IngestSettings(), {HOSTILE!r}) as read:\n"
        "        await read('family', sys.argv[1].encode())\n"
        "asyncio.run(main())\n"
    )

    async def kill() -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
        parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(report), env=environment)
        await until(lambda: bool(pids_in(report)))
        child, grandchild = pids_in(report)
        parent.kill()
        await parent.wait()
        try:
            await until_gone(child)
        finally:
            os.kill(grandchild, 9)

    asyncio.run(kill())


def test_many_files_in_a_row_cost_little_and_children_are_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.retriever.sandbox.FILES_PER_CHILD", 100)
    data = "# 年假\n\n每年十五天。Fifteen days a year.".encode()

    async def many() -> None:
        async with open_sandbox(IngestSettings(concurrency=2)) as read:
            await asyncio.gather(*(read("warm.md", data) for _ in range(2)))
            started = time.perf_counter()
            documents = await asyncio.gather(*(read(f"{number}.md", data) for number in range(300)))
            per_file_ms = (time.perf_counter() - started) / 300 * 1000
        assert all(document == extract("a.md", data) for document in documents)
        print(f"{per_file_ms:.2f} ms per small file")
        assert per_file_ms < 200

    asyncio.run(many())


@pytest.mark.parametrize(
    "answer",
    [
        b"\xc1",
        msgspec.msgpack.encode({"title": "t"}),
        msgspec.msgpack.encode(Document("t", "short", "text/plain", "en", pages=(0, 50))),
        msgspec.msgpack.encode(Document("t", "short", "text/plain", "en", pages=(3, 0))),
    ],
)
def test_a_child_that_was_taken_over_can_say_nothing_that_is_no_document(answer: bytes) -> None:
    async def forge() -> None:
        async with open_sandbox(SMALL, HOSTILE) as read:
            assert await reason(read, "forge", answer) == "the reader crashed"
            assert (await read("good", b"x")).title == "good"

    asyncio.run(forge())


@pytest.mark.skipif(sys.platform != "linux", reason="a call of Linux")
def test_other_processes_of_the_user_cannot_look_into_a_worker_that_reads_files() -> None:
    """Root may all the same, so what is looked at is what the kernel was told: /proc/PID/environ is then root's."""
    program = (
        "import asyncio, ctypes\n"
        "from tests.integration.test_sandbox import SMALL, open_sandbox\n"
        "async def look():\n"
        "    async with open_sandbox(SMALL):\n"
        "        print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))\n"
        "asyncio.run(look())\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    argv = [sys.executable, "-c", program]
    told = subprocess.run(argv, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert told.stdout.strip() == "0", told.stderr
