"""Whatever a file does to the process that reads it: one clear reason, and the next file is read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from services.common.config import IngestSettings
from services.retriever.bad_document import BadDocument
from services.retriever.confining import landlock_version
from services.retriever.extract import extract
from services.retriever.sandbox import Reader, open_sandbox
from tests.office_files import make_docx, make_epub, make_pptx, make_xlsx
from tests.servers.pdf import make_pdf

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


def children(pid: int) -> list[int]:
    found = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, tasks.read_text().split())
    return found


def family(parent: int) -> list[int]:
    """The reader and the process that it started, once both are there."""
    for reader in children(parent):
        for other in children(reader):
            return [reader, other]
    return []


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
            assert third.pages == (0, 1)
        await until_gone(first, second, int(third.text))

    asyncio.run(all_of_them())


def test_a_reader_that_never_ends_is_killed_with_all_it_started() -> None:
    async def loop() -> None:
        async with open_sandbox(IngestSettings(concurrency=1, parse_timeout_s=3), HOSTILE) as read:
            reading = asyncio.create_task(reason(read, "family"))
            await until(lambda: bool(family(os.getpid())))
            pids = family(os.getpid())
            assert await reading == "reading it took more than 3 s (BATON_PARSE_TIMEOUT_S)"
            await until_gone(*pids)
            assert (await read("good", b"x")).title == "good"

    asyncio.run(loop())


def test_a_cancelled_read_kills_its_child() -> None:
    async def cancel() -> None:
        async with open_sandbox(SMALL, HOSTILE) as read:
            reading = asyncio.create_task(read("family", b"x"))
            await until(lambda: bool(family(os.getpid())))
            pids = family(os.getpid())
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            await until_gone(*pids)
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


@pytest.mark.skipif(landlock_version() < 6, reason="this system has no Landlock, or an old one")
def test_a_child_that_was_taken_over_reaches_nothing(tmp_path: Path) -> None:
    outside = tmp_path / "another.md"
    outside.write_text("another's")

    async def spy() -> None:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        async with server, open_sandbox(SMALL, HOSTILE) as read:
            data = json.dumps([str(outside), server.sockets[0].getsockname()[1]])
            assert json.loads((await read("spy", data.encode())).text) == []
            assert await reason(read, "forged") == "the reader crashed"
        assert outside.read_text() == "another's"

    asyncio.run(spy())


def test_every_kind_of_file_is_read_in_a_confined_child() -> None:
    made = {
        "a.docx": make_docx(),
        "a.xlsx": make_xlsx(),
        "a.pptx": make_pptx(),
        "a.epub": make_epub(),
        "a.pdf": make_pdf(["One page."]),
        "a.csv": b"a,b\n1,2",
        "a.html": b"<p>Text",
        "a.md": b"---\nyear: 2026\n---\n# Text",
    }

    async def each() -> None:
        async with open_sandbox(IngestSettings(concurrency=1)) as read:
            for name, data in made.items():
                assert await read(name, data) == extract(name, data)

    asyncio.run(each())


def test_a_child_ends_with_its_parent() -> None:
    """The parent is killed while its child is busy and would not look at its pipe."""
    program = (
        "import asyncio\n"
        "from services.common.config import IngestSettings\n"
        "from services.retriever.sandbox import open_sandbox\n"
        "async def main():\n"
        f"    async with open_sandbox(IngestSettings(), {HOSTILE!r}) as read:\n"
        "        await read('family', b'x')\n"
        "asyncio.run(main())\n"
    )

    async def kill() -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
        parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, env=environment)
        await until(lambda: bool(family(parent.pid)))
        child, grandchild = family(parent.pid)
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
