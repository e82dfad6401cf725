"""A small load on a whole system: nobody loses a frame, however connections break and readers dawdle."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.servers.processes import running

SCENARIO = """
connections = 24
running = 8
answer_s = 1.0
tokens_per_s = 60.0
warm_up_s = 0.5
duration_s = 3.0
follow_ups = 0.4
think_s = 0.1
slow_readers = 0.25
slow_s = 0.4
reconnects = 0.4
"""


def test_breaks_slow_readers_and_follow_ups_lose_no_frame(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(SCENARIO)
    argv = [sys.executable, "-m", "bench.load", "--scenario", str(tmp_path / "s.toml")]
    argv += ["--json", str(tmp_path / "load.json"), "--out", str(tmp_path / "load.html")]
    with running(argv, tmp_path / "load.log", {}) as process:
        # 1 where the machine was too busy for the objectives, which is not what this is about.
        assert process.ended(100) in (0, 1), process.text()
    (run,) = json.loads((tmp_path / "load.json").read_text())
    assert run["wrong"] == []
    assert run["unfinished"] == 0
    assert set(run["outcomes"]) == {"stop"}
    assert run["asked"] > 5
    assert run["times_ms"]["back after a break"]["p50"] > 0
    assert {"gateway", "generator", "retriever", "nats-server"} <= set(run["usage"])
    assert "<svg" in (tmp_path / "load.html").read_text()


def test_an_address_where_nothing_listens_is_told(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "bench.load", "--url", "ws://127.0.0.1:9/ws", "--connections", "1", "--running", "1"]
    with running(argv, tmp_path / "load.log", {}) as process:
        assert process.ended() == 2, process.text()
        assert "load: " in process.text()
        assert "Traceback" not in process.text()
