"""Milvus goes away, hangs and comes back: clear errors in time, and all well again by itself."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.config import RetrieverSettings
from services.common.errors import ServiceError
from services.retriever.milvus import open_retriever
from services.retriever.port import Retriever, SearchRequest
from tests.servers.milvus import Milvus, milvus_lite
from tests.servers.processes import ROOT, eventually, free_port, freeze
from tests.shelf import ingest, settings_for, write_documents

QUESTION = SearchRequest("vpn client", "en", 6)


def patient(settings: RetrieverSettings) -> RetrieverSettings:
    """For what is not to be cut short: a Milvus that has just started is slow where much else runs."""
    return replace(settings, timeout_s=30.0)


async def refused_in_time(retriever: Retriever) -> ServiceError:
    """Within its time-out of seconds and what a busy machine adds; one that waited for Milvus would wait on."""
    started = time.monotonic()
    with pytest.raises(ServiceError) as raised:
        await retriever.retrieve(QUESTION)
    assert time.monotonic() - started < 20
    assert raised.value.code == "retrieval_failed"
    assert raised.value.retryable
    return raised.value


async def answers(retriever: Retriever) -> bool:
    try:
        return bool(await retriever.retrieve(QUESTION))
    except ServiceError:
        return False


def test_a_killed_milvus_is_a_clear_error_and_a_restarted_one_answers_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, port = write_documents(tmp_path / "d"), free_port()

    async def scenario() -> None:
        with milvus_lite(tmp_path / "m", port) as server:
            settings = settings_for(server, timeout_s=2.0)
            await ingest(patient(settings), folder)
            async with open_retriever(settings) as retriever:
                await eventually(lambda: answers(retriever), "the retriever answers", 60)
                server.process.kill()
                error = await refused_in_time(retriever)
                assert "cannot be reached" in error.message
                assert str(port) not in error.message
                with milvus_lite(tmp_path / "m", port):
                    await eventually(lambda: answers(retriever), "the retriever answers again", 60)

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert "Traceback" not in caplog.text


FIRST_CALL = """
import asyncio, sys
from services.retriever.stores.milvus_connection import Connection

async def main():
    connection = Connection(sys.argv[1])
    print(await connection.run(lambda client, seconds: "scipy.sparse" in sys.modules, 30.0))
    await connection.close()

asyncio.run(main())
"""


@pytest.mark.skipif(importlib.util.find_spec("scipy") is None, reason="pymilvus uses it only where it is installed")
def test_two_first_searches_at_once_find_what_pymilvus_loads_whole(milvus: Milvus) -> None:
    """Loaded by two threads at once, as pymilvus does it, it fails both."""
    argv = [sys.executable, "-c", FIRST_CALL, milvus.uri]
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}
    assert subprocess.check_output(argv, cwd=ROOT, env=env, text=True, timeout=60) == "True\n"


def test_a_milvus_that_hangs_costs_no_more_than_the_time_out(tmp_path: Path) -> None:
    folder = write_documents(tmp_path / "d")

    async def scenario() -> None:
        with milvus_lite(tmp_path / "m") as server:
            settings = settings_for(server, timeout_s=1.0)
            await ingest(patient(settings), folder)
            async with open_retriever(settings) as retriever, open_retriever(settings) as fresh:
                await eventually(lambda: answers(retriever), "the retriever answers", 60)
                freeze(server.process.pid)
                try:
                    await asyncio.gather(*(refused_in_time(retriever) for _ in range(40)))
                    await refused_in_time(fresh)
                finally:
                    os.kill(server.process.pid, signal.SIGCONT)
                await eventually(lambda: answers(retriever), "the retriever answers again", 60)
                await eventually(lambda: answers(fresh), "the other one too", 60)

    asyncio.run(scenario())


def test_a_retriever_starts_before_its_milvus(tmp_path: Path) -> None:
    folder, port = write_documents(tmp_path / "d"), free_port()

    async def scenario() -> None:
        with milvus_lite(tmp_path / "m", port) as server:
            settings = settings_for(server, timeout_s=2.0)
            await ingest(patient(settings), folder)
        async with open_retriever(settings) as retriever:
            await refused_in_time(retriever)
            with milvus_lite(tmp_path / "m", port):
                await eventually(lambda: answers(retriever), "the retriever has found its Milvus", 60)

    asyncio.run(scenario())


def test_an_ingestion_survives_a_restart_of_milvus(tmp_path: Path) -> None:
    documents = {f"{n}.md": f"# Paper {n}\n\nAbout subject{n}." for n in range(30)}
    folder, port = write_documents(tmp_path / "d", documents), free_port()

    async def scenario() -> None:
        with milvus_lite(tmp_path / "m", port) as server:
            settings = settings_for(server)
            await ingest(settings, write_documents(tmp_path / "first", {"0.md": documents["0.md"]}))
            working = asyncio.create_task(ingest(settings, folder))
            async with open_retriever(settings) as retriever:

                async def begun() -> bool:
                    return bool(await retriever.retrieve(SearchRequest("subject3", "en", 1)))

                await eventually(begun, "some of it is there", 60)
            server.process.kill()
            with milvus_lite(tmp_path / "m", port):
                report = await asyncio.wait_for(working, 90)
                assert {outcome.status for outcome in report.outcomes} <= {"added", "unchanged"}
                async with open_retriever(settings) as retriever:
                    for n in range(30):
                        assert await retriever.retrieve(SearchRequest(f"subject{n}", "en", 1))

    asyncio.run(scenario())
