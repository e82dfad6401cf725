"""`baton ingest` and `baton documents`, as a person types them, with a real NATS and a real Milvus."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pymilvus import MilvusClient

from baton_proto.messages import FileRecord
from services.cli import bringing_in
from services.cli import ingest as commands
from services.common.config import NatsSettings, RetrieverSettings
from services.common.connection import connect
from services.common.documents import open_documents
from services.common.files import Removed
from tests.ingesting import worker_thread
from tests.rig import rig
from tests.servers.milvus import Milvus
from tests.servers.nats import Nats
from tests.servers.processes import free_port
from tests.shelf import DOCUMENTS, settings_for, write_documents


@pytest.fixture
def settings(milvus: Milvus) -> RetrieverSettings:
    return settings_for(milvus)


@pytest.fixture
def ingesting(nats: Nats, settings: RetrieverSettings) -> Iterator[None]:
    """An ingest worker."""
    with worker_thread(nats.url, settings):
        yield


@pytest.fixture
def baton(
    milvus: Milvus,
    nats: Nats,
    settings: RetrieverSettings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> object:
    """Runs a command line; returns its exit code, what it printed, and what it complained about."""
    monkeypatch.setenv("BATON_NATS_URL", nats.url)
    monkeypatch.setenv("BATON_MILVUS_URI", milvus.uri)
    monkeypatch.setenv("BATON_MILVUS_COLLECTION", settings.collection)

    def run(*argv: object) -> tuple[int, str, str]:
        code = invoke([str(argument) for argument in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def invoke(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="baton")
    commands.register(parser.add_subparsers(required=True))
    args = parser.parse_args(argv)
    code: int = args.func(args)
    return code


def test_documents_are_ingested_listed_and_deleted(baton, ingesting, nats: Nats, tmp_path: Path) -> None:
    folder = write_documents(tmp_path / "d")
    assert baton("documents")[1] == "No documents yet. Add some with: baton ingest PATH\n"

    code, out, _ = baton("ingest", folder)
    assert code == 0
    assert "[4/4] added     " in out
    assert f"] added     {folder / 'vpn.en.md'}" in out
    assert "4 added (6 passages) in " in out

    code, out, err = baton("ingest", folder)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith("4 unchanged in ")

    code, out, _ = baton("documents", "--json")
    documents = json.loads(out)
    assert code == 0
    assert [info["name"] for info in documents] == sorted(DOCUMENTS)
    listed = baton("documents")[1]
    assert all(info["document_id"] in listed and info["title"] in listed for info in documents)

    async def original(document_id: str) -> bytes | None:
        async with open_documents(NatsSettings(url=nats.url)) as originals:
            try:
                return (await originals.get(document_id)).data
            except KeyError:
                return None

    first = documents[0]["document_id"]
    assert asyncio.run(original(first)) == DOCUMENTS[documents[0]["name"]].encode()
    assert baton("documents", "--delete", first)[:2] == (0, f"Deleted {first}.\n")
    assert asyncio.run(original(first)) is None
    code, _, err = baton("documents", "--delete", first)
    assert code == 1
    assert "there is no document" in err


def test_what_the_store_has_lost_is_brought_in_again_where_that_is_asked(
    baton, nats: Nats, milvus: Milvus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, empty = write_documents(tmp_path / "d"), settings_for(milvus)
    with worker_thread(nats.url, settings_for(milvus)):
        assert baton("ingest", folder)[0] == 0
    with worker_thread(nats.url, empty):
        assert "4 unchanged in " in baton("ingest", folder)[1]
        monkeypatch.setenv("BATON_MILVUS_COLLECTION", empty.collection)
        listed = json.loads(baton("documents", "--json")[1])
        assert [(row["state"], "ingest --again" in row["error"]) for row in listed] == [("missing", True)] * 4
        assert "4 added (6 passages) in " in baton("ingest", folder, "--again")[1]
        assert [row["state"] for row in json.loads(baton("documents", "--json")[1])] == ["ready"] * 4
    client = MilvusClient(uri=milvus.uri)
    assert client.get_collection_stats(empty.collection)["row_count"] == 6
    client.close()


def test_one_bad_file_makes_the_exit_code_1_and_is_named(baton, ingesting, tmp_path: Path) -> None:
    folder = write_documents(tmp_path / "d", {**DOCUMENTS, "empty.md": "", "picture.png": b"x"})
    code, out, _ = baton("ingest", folder)
    assert code == 1
    assert "4 added, 1 skipped, 1 failed" in out
    assert f"failed   {folder / 'empty.md'}: the file is empty" in out
    assert f"skipped  {folder / 'picture.png'}: unknown kind" in out
    code, out, _ = baton("ingest", "--json", folder)
    report = json.loads(out)
    assert code == 1
    assert [entry["status"] for entry in report["files"]].count("unchanged") == 4


def test_metadata_goes_with_the_documents(baton, ingesting, tmp_path: Path) -> None:
    folder = write_documents(tmp_path / "d")
    assert baton("ingest", folder, "--metadata", "site=Berlin", "--metadata", "floor=3")[0] == 0
    assert all(
        info["metadata"].items() >= {"site": "Berlin", "floor": 3}.items()
        for info in json.loads(baton("documents", "--json")[1])
    )
    for wrong in ("site", "no key=1", "title=x"):
        code, _, err = baton("ingest", folder, "--metadata", wrong)
        assert code == 2
        assert "--metadata" in err


class ImpatientOnceTold(bringing_in.Movement):
    """Gives up as soon as a worker has said why it cannot go on; that may take the worker a while."""

    def see(self, change: FileRecord | Removed) -> None:
        super().see(change)
        if self._why:
            self._moved -= bringing_in.GIVE_UP_S


def test_what_is_missing_is_told_without_a_traceback(
    baton, nats: Nats, settings: RetrieverSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_documents(tmp_path / "d")
    with monkeypatch.context() as impatient:
        impatient.setattr(bringing_in, "TELL_S", 0.2)
        impatient.setattr(bringing_in, "GIVE_UP_S", 0.5)
        code, _, err = baton("ingest", folder)
    assert code == 1
    assert "no ingest worker takes files" in err
    nowhere = dataclasses.replace(settings, milvus_uri=f"http://127.0.0.1:{free_port()}")
    with worker_thread(nats.url, nowhere), monkeypatch.context() as impatient:
        impatient.setattr(bringing_in, "Movement", ImpatientOnceTold)
        impatient.setattr("services.retriever.writer._FIRST_PAUSE_S", 0.01)
        code, _, err = baton("ingest", folder)
    assert code == 1
    assert "The document store cannot be reached" in err
    with worker_thread(nats.url, settings):
        code, out, err = baton("ingest", folder)
    assert code == 0, err
    assert "4 added" in out
    with monkeypatch.context() as without_nats:
        without_nats.setattr(commands, "_CONNECT_TIMEOUT_S", 1.0)
        without_nats.setenv("BATON_NATS_URL", f"nats://127.0.0.1:{free_port()}")
        code, _, err = baton("ingest", folder)
        assert code == 1
        assert "NATS cannot be reached" in err
    monkeypatch.setenv("BATON_MILVUS_URL", "x")
    code, _, err = baton("documents")
    assert code == 1
    assert "did you mean BATON_MILVUS_URI" in err


def test_bringing_documents_in_changes_no_stream_of_a_running_system(baton, nats: Nats, tmp_path: Path) -> None:
    async def settings_of_streams() -> dict[str, dict[str, object]]:
        async with rig(nats.url, log_max_age_s=7_200, work_max_items=77) as one:
            js = one.bus.client.jetstream()
            return {info.config.name or "": info.config.as_dict() for info in await js.streams_info_iterator()}

    before = asyncio.run(settings_of_streams())
    # This shell knows nothing of the settings that the services run with.
    assert baton("ingest", write_documents(tmp_path / "d"), "--no-wait")[1].startswith("4 queued in ")

    async def now() -> dict[str, dict[str, object]]:
        async with connect(NatsSettings(url=nats.url), "test") as bus:
            js = bus.client.jetstream()
            return {info.config.name or "": info.config.as_dict() for info in await js.streams_info_iterator()}

    assert asyncio.run(now()) == before
