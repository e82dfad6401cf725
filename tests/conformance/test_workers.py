"""The kit passes on the workers that Baton ships, on the one in Node and on the one-file example: real processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import pytest

from services.common.config import NatsSettings, RetrieverSettings
from services.common.connection import connect
from services.common.inspection import log_shards
from services.retriever.ingest import Whose
from tests.servers.llm import node
from tests.servers.nats import Nats
from tests.servers.processes import ROOT, Process, running
from tests.shelf import ingest, write_documents

QUICK = ("--timeout", "60", "--ack-wait", "2")
ENV = {"BATON_ACK_WAIT_S": "2", "BATON_METRICS_PORT": "0", "BATON_EXTRACTIVE_DELAY_MS": "10", "PACE_MS": "10"}
DOCUMENTS = {f"leave-{n}.en.md": f"# Annual leave {n}\n\nEmployees have 2{n} days of annual leave.\n" for n in range(4)}
SAMPLES = "tests.conformance.sample_tools"
TOOLS = f"builtin: []\ntools: [{{python: '{SAMPLES}:slow'}}, {{python: '{SAMPLES}:large'}}]\n"
NOT_SEEN = {
    "retriever": {"a cancel stops the work", "a deadline stops the work"},  # four documents are found too quickly
    "node": {"a generator uses what tools gave", "a hand over keeps to the variant"},  # it calls none
}
AS_A_VARIANT = (
    "it_announces_itself",
    "good_items_are_dealt_with",
    "a_variants_hand_off_is_told_again_to_its_queue",
    "who_has_served_is_said",
)
NODE = [*node(), "examples/worker-node/worker.js", "{nats}"]


@dataclass
class Kit:
    """A run of `baton conformance` as a process."""

    kind: str
    command: list[str]
    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)
    options: Sequence[str] = ()

    def start(self) -> subprocess.Popen[bytes]:
        self.folder.mkdir()
        argv = [
            sys.executable,
            "-m",
            "services.cli",
            "conformance",
            self.kind,
            "--junit",
            str(self.folder / "junit.xml"),
        ]
        path = f"{ROOT}{os.pathsep}{ROOT / 'proto'}"
        with (self.folder / "out").open("wb") as out:
            return subprocess.Popen(
                [*argv, "--command", " ".join(self.command), *QUICK, *self.options],
                cwd=ROOT,
                env={**os.environ, **ENV, **self.env, "PYTHONPATH": path},
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    @property
    def text(self) -> str:
        return (self.folder / "out").read_text()

    def skipped(self) -> dict[str, str]:
        """What was not kept, and why, by the report for machines."""
        assert (self.folder / "junit.xml").exists(), self.text
        suite = ElementTree.parse(self.folder / "junit.xml").getroot()
        cases = suite.findall("testcase")
        assert len(cases) == int(suite.attrib["tests"]) > 20
        assert suite.attrib["failures"] == suite.attrib["errors"] == "0", self.text
        found = {case.attrib["name"]: case.find("skipped") for case in cases}
        return {name: one.attrib["message"] for name, one in found.items() if one is not None}


def ran(*kits: Kit, within_s: float) -> None:
    """Run them side by side: most of their time they wait."""
    processes = [kit.start() for kit in kits]
    try:
        for kit, process in zip(kits, processes, strict=True):
            try:
                process.wait(within_s)
            except subprocess.TimeoutExpired:
                pytest.fail(f"after {within_s:g} s it has not ended:\n{kit.text}")
    finally:
        for process in processes:
            process.terminate()


def exit_status(kit: Process, within_s: float) -> int:
    try:
        return kit.popen.wait(within_s)
    except subprocess.TimeoutExpired:
        pytest.fail(f"after {within_s:g} s it has not ended:\n{kit.text()}")


def kept_by(*kits: Kit) -> None:
    ran(*kits, within_s=200)
    for kit in kits:
        assert kit.skipped().keys() <= NOT_SEEN.get(kit.folder.name, set()), kit.text


@pytest.mark.timeout(240)
def test_generators_that_ship_and_the_one_in_node_keep_every_promise(tmp_path: Path) -> None:
    ours = Kit("generator", [sys.executable, "-m", "services.generator"], tmp_path / "generator")
    kept_by(ours, Kit("generator", NODE, tmp_path / "node"))


@pytest.mark.parametrize("name", ["generator", "node"])
def test_workers_started_as_a_variant_keep_their_promises_as_one(tmp_path: Path, name: str) -> None:
    command = NODE if name == "node" else [sys.executable, "-m", "services.generator"]
    only = [f"--only={promise}" for promise in AS_A_VARIANT]
    kit = Kit("generator", command, tmp_path / name, {"BATON_VARIANT": "b"}, ["--variant", "b", *only])
    ran(kit, within_s=100)
    assert f"{len(only)} promises: {len(only)} kept." in kit.text, kit.text


@pytest.mark.timeout(240)
def test_the_retriever_and_the_tools_worker_that_ship_keep_every_promise(tmp_path: Path) -> None:
    store, tools = tmp_path / "store", tmp_path / "tools.yaml"
    documents = write_documents(tmp_path / "documents", DOCUMENTS)
    settings = RetrieverSettings(retriever="local", store_dir=str(store))
    asyncio.run(ingest(settings, documents))
    secret = write_documents(
        tmp_path / "secret", {"leave.md": "# Annual leave\n\nDays of annual leave of directors.\n"}
    )
    (of_a_group,) = asyncio.run(ingest(settings, secret, whose=Whose(readers=("group:directors",)))).outcomes
    restricted = ("--restricted", f"directors={of_a_group.document_id}")
    tools.write_text(TOOLS)
    stored = {"BATON_RETRIEVER": "local", "BATON_STORE_DIR": str(store)}
    kept_by(
        Kit("retriever", [sys.executable, "-m", "services.retriever"], tmp_path / "retriever", stored, restricted),
        Kit("tools", [sys.executable, "-m", "services.tools"], tmp_path / "tools", {"BATON_TOOLS": str(tools)}),
    )


def test_a_run_on_somebodys_nats_leaves_nothing_behind(nats: Nats, tmp_path: Path) -> None:
    """With the one-file example as the worker, which somebody else has started."""

    async def look() -> tuple[int, dict[str, int]]:
        async with connect(NatsSettings(url=nats.url), "look") as bus:
            streams = (await bus.api("STREAM.LIST"))["streams"]
            return await log_shards(bus), {one["config"]["name"]: one["state"]["messages"] for one in streams}

    argv = [sys.executable, "-m", "services.cli", "conformance", "generator", "--nats", nats.url]
    example = [sys.executable, "-m", "tests.conformance.wrong_workers", "none", nats.url]
    env = {"BATON_LOG_SHARDS": "3"}
    with running(argv, tmp_path / "kit", env) as kit, running(example, tmp_path / "worker"):
        status = exit_status(kit, 90)
    assert status == 0, kit.text()
    shards, messages = asyncio.run(look())
    assert shards == 3
    assert len(messages) > shards
    assert messages == dict.fromkeys(messages, 0), kit.text()


def test_without_a_worker_it_says_so(nats: Nats, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "services.cli", "conformance", "tools", "--nats", nats.url, "--wait", "1"]
    with running(argv, tmp_path / "kit") as kit:
        status = exit_status(kit, 60)
    assert status == 2, kit.text()
    assert "no worker of the stage tools.default announced itself on baton.v1.workers.tools.default" in kit.text()
