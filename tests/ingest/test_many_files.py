"""Many mixed files, some of them broken, by two workers of which one is killed: all ready or failed with a reason, and
nothing twice. FILES is how many; `make test-ingest` takes 1,000."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from services.common.config import NatsSettings, RetrieverSettings
from services.common.connection import connect
from services.common.documents import Documents
from services.common.files import Files, open_files, waits
from services.retriever.ingest import open_library
from tests.ingest.samples import LARGE, UNPACKED, write_files
from tests.ingesting import assert_nothing_twice
from tests.servers.milvus import Milvus
from tests.servers.nats import Nats
from tests.servers.processes import Process, running, wait_until
from tests.shelf import settings_for
from tests.system import ingest_worker

FILES = int(os.environ.get("FILES", "60"))
BROKEN = max(6, FILES // 20)
WITHIN_S = 60.0 + FILES * 0.5
pytestmark = pytest.mark.timeout(60 + 2 * WITHIN_S)


def test_many_files_with_broken_ones_and_a_killed_worker(nats: Nats, milvus: Milvus, tmp_path: Path) -> None:
    write_files(tmp_path / "files", FILES, BROKEN)
    settings = settings_for(milvus)
    env = {
        "BATON_NATS_URL": nats.url,
        "BATON_MILVUS_URI": milvus.uri,
        "BATON_MILVUS_COLLECTION": settings.collection,
    }
    limits = {"BATON_MAX_DOCUMENT_BYTES": str(LARGE), "BATON_ARCHIVE_MAX_BYTES": str(UNPACKED)}
    with ExitStack() as stack:
        workers = [
            stack.enter_context(ingest_worker(tmp_path, {**env, **limits, "BATON_INGEST_ACK_WAIT_S": "4"}, number))
            for number in range(2)
        ]
        for worker in workers:
            wait_until(lambda worker=worker: "taking files" in worker.text(), "the workers are there", 60)
        started = time.monotonic()
        argv = [sys.executable, "-m", "services.cli", "ingest", "--json", str(tmp_path / "files")]
        client = stack.enter_context(running(argv, tmp_path / "report.json", env))
        wait_until(lambda: _ended(nats) >= FILES // 3 or not client.alive, "a third is done", WITHIN_S)
        workers[0].kill()
        assert client.ended(WITHIN_S) == 1, client.text()
        seconds = time.monotonic() - started
        _check_report(client)
        # A file that had ended, but whose item the killed worker held still, comes to the other one once more.
        wait_until(lambda: _queued(nats) == 0, "the queue is empty", 60)
        assert workers[1].stop() == 0, workers[1].text()
    assert "Traceback" not in workers[1].text(), workers[1].text()
    asyncio.run(_check_stores(nats, settings))
    print(f"\n{FILES} files, {BROKEN} of them broken, one of two workers killed: {seconds:.1f} s")


def _ended(nats: Nats) -> int:
    async def count(files: Files) -> int:
        return sum(not waits(record) for record in await files.all())

    return _asked(nats, count)


def _asked(nats: Nats, question: Callable[[Files], Any]) -> Any:
    async def ask() -> Any:
        async with open_files(NatsSettings(url=nats.url)) as files:
            return await question(files)

    return asyncio.run(ask())


def _queued(nats: Nats) -> int:
    async def count() -> int:
        async with connect(NatsSettings(url=nats.url), "test") as bus:
            return int((await bus.stream_state("BATON_INGEST"))["messages"])

    return asyncio.run(count())


def _check_report(client: Process) -> None:
    report = json.loads(client.text().strip().splitlines()[-1])
    assert Counter(file["status"] for file in report["files"]) == {"added": FILES - BROKEN, "failed": BROKEN}, [
        file for file in report["files"] if file["status"] != "added" or "broken" in file["path"]
    ]
    assert all(file["reason"] for file in report["files"] if file["status"] == "failed")
    assert all("broken" in file["path"] for file in report["files"] if file["status"] == "failed")


async def _check_stores(nats: Nats, settings: RetrieverSettings) -> None:
    async with connect(NatsSettings(url=nats.url), "test") as bus, open_library(settings, Documents(bus)) as library:
        files = Files(bus)
        records = await files.all()
        assert Counter(record.state for record in records) == {"ready": FILES - BROKEN, "failed": BROKEN}
        assert all(record.error for record in records if record.state == "failed")
        await assert_nothing_twice(bus, library, records)
        assert [name async for name, _, _ in files.uploads()] == []
