"""Alerts and the configuration around them, by Prometheus's own tools."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.servers.processes import ROOT
from tests.servers.promtool import promtool

FOLDER = ROOT / "deploy" / "prometheus"


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "rules", "--lint-fatal", "alerts.yaml"],
        ["check", "config", "--lint-fatal", "prometheus.yaml"],
        ["test", "rules", "alerts_test.yaml"],
    ],
    ids=" ".join,
)
def test_promtool_finds_nothing_wrong(arguments: list[str]) -> None:
    run = subprocess.run([promtool(), *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_tests_of_the_alerts_can_fail(tmp_path: Path) -> None:
    """An objective that is never missed and one that always is: promtool must find both."""
    rules = (FOLDER / "alerts.yaml").read_text(encoding="utf-8")
    (tmp_path / "alerts_test.yaml").write_text((FOLDER / "alerts_test.yaml").read_text(encoding="utf-8"))
    for change in ("14.4 * 0.005", "14.4 * 5.0"), ("6 * 0.01", "6 * -0.01"):
        assert change[0] in rules
        rules = rules.replace(*change)
    (tmp_path / "alerts.yaml").write_text(rules, encoding="utf-8")
    argv = [promtool(), "test", "rules", "alerts_test.yaml"]
    run = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode != 0
    told = run.stdout + run.stderr
    assert "got:[]" in told  # where questions fail, nobody is woken
    assert "exp: nil" in told  # and where nothing is wrong, somebody is
