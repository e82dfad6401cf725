"""The code in docs/swap-a-worker.md works as it stands there, and the commands are ones."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from conformance import checks
from conformance.promise import PROMISES
from tests.servers.processes import ROOT

TEXT = (ROOT / "docs" / "swap-a-worker.md").read_text(encoding="utf-8")
QUICK = ("good_items_are_dealt_with", "a_cancel_from_before_is_found", "a_log_half_written_is_continued")
ONLY = {
    "generator": ("an_answer_cites_only_what_was_given",),
    "retriever": ("sources_and_passages_have_the_same_numbers", "nothing_found_is_handed_over_too"),
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The documented modules, each in the file that its first line names."""
    for block in blocks("python"):
        path = tmp_path / block.splitlines()[0].removeprefix("# ")
        path.parent.mkdir(exist_ok=True)
        path.write_text(block, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("module", ["services.generator", "my_company.retriever"])
def test_the_documented_workers_keep_their_promises_by_the_documented_commands(folder: Path, module: str) -> None:
    (line,) = (one for one in commands() if "baton conformance" in one and module in one)
    assert any(one.endswith(f"python -m {module}") for one in commands()), "it is said how to start it"
    settings, _, arguments = line.partition("baton conformance ")
    kind, *rest = shlex.split(arguments)
    rest = [word.replace("python -m", f"{sys.executable} -m") for word in rest]
    only = [f"--only={name}" for name in (*QUICK, *ONLY[kind])]
    path = os.pathsep.join(map(str, (folder, ROOT, ROOT / "proto")))
    ran = subprocess.run(
        [sys.executable, "-m", "services.cli", "conformance", kind, *rest, *only],
        cwd=folder,
        env={**os.environ, **dict(word.split("=") for word in settings.split()), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{len(only)} promises: {len(only)} kept." in ran.stdout, ran.stdout
    assert "--junit" not in rest or (folder / "conformance.xml").exists()


def test_the_node_worker_is_started_as_it_is_documented() -> None:
    worker = "examples/worker-node"
    assert f"cd {worker} && npm ci && node worker.js nats://127.0.0.1:4222" in commands()
    assert "resolved" not in (ROOT / worker / "package-lock.json").read_text(encoding="utf-8")
    files = sorted(path.name for path in (ROOT / worker).glob("*.js"))
    assert sorted(re.findall(r"^\| `(\w+\.js)` \|", TEXT, re.MULTILINE)) == files


def test_the_documented_report_is_what_the_kit_says() -> None:
    (report,) = blocks("text")
    name, *_ = re.findall(r"^broken +(.*)$", report, re.MULTILINE)
    (promise,) = (one for one in PROMISES if one.name.replace("_", " ") == name)
    assert f"section {promise.section}): {promise.text}" in " ".join(report.split())
    assert checks.__all__
