"""A real Prometheus that scrapes what it is told, every second."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.servers.processes import free_port, running, wait_until


@dataclass
class Prometheus:
    url: str

    def ask(self, path: str, **parameters: str | float) -> Any:
        """What its HTTP API answers."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=60).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def range(self, expression: str, start: float, end: float) -> list[dict[str, Any]]:
        """The series of an expression between two times (Unix epoch), a value a second."""
        found: list[dict[str, Any]] = self.ask("query_range", query=expression, start=start, end=end, step=1)["result"]
        return found

    def value(self, expression: str) -> float:
        """The sum of an expression's series now."""
        return sum(float(one["value"][1]) for one in self.ask("query", query=expression)["result"])


@contextlib.contextmanager
def prometheus(folder: Path, targets: Mapping[str, str], rules: Path) -> Iterator[Prometheus]:
    """
    Args:
        targets: host and port of each, by the name that they get as `pod`.
    """
    binary = shutil.which("prometheus")
    assert binary, "prometheus is missing: install Debian's package 'prometheus', or Prometheus's own archive"
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [{"targets": [address], "labels": {"namespace": "test", "pod": name}} for name, address in targets.items()]
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "baton", "static_configs": jobs}],
    }
    (folder / "prometheus.json").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML too
    port = free_port()
    argv = [
        binary,
        f"--config.file={folder / 'prometheus.json'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
        "--log.level=warn",
    ]
    with running(argv, folder / "prometheus.log") as process:
        one = Prometheus(f"http://127.0.0.1:{port}")
        wait_until(lambda: _ready(one) or not process.alive, "Prometheus is ready", within_s=60)
        assert process.alive, process.text()
        yield one


def _ready(one: Prometheus) -> bool:
    try:
        return httpx.get(f"{one.url}/-/ready", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
