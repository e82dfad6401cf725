"""What an evaluation keeps where something goes wrong: an hour of answers and judgements is not to be lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from evaluation import running
from services.cli.__main__ import main
from tests.evaluation_gateway import frames, gateway
from tests.servers.llm import DONE, delta, head
from tests.servers.processes import wait_until

NAMES = {"d" * 32: "a.md"}


def dataset(folder: Path, count: int = 3) -> str:
    path = folder / "set.jsonl"
    lines = [{"id": f"q{at}", "question": f"Question {at}?", "documents": ["a.md"]} for at in range(count)]
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


@contextlib.contextmanager
def judging(reply: Callable[[str], str]) -> Iterator[str]:
    """A judge that says what `reply` makes of a prompt; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            text = reply(body["messages"][-1]["content"])
            with contextlib.suppress(OSError):
                self.wfile.write(head() + delta(text) + delta(finish="stop") + DONE)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: Callable[[str], str]) -> tuple[int, dict[str, Any]]:
    """The status and the record of three questions with that judge, one at a time."""
    record = tmp_path / "record.json"
    with gateway(lambda _: frames(), NAMES) as url, judging(reply) as judge:
        monkeypatch.setenv("BATON_JUDGE_URL", judge)
        monkeypatch.setenv("BATON_JUDGE_MODEL", "judge")
        argv = ["eval", dataset(tmp_path), "--url", url, "--judge", "--concurrency", "1", "--json", str(record)]
        status = main([*argv, "--out", str(tmp_path / "page.html")])
    return status, json.loads(record.read_text(encoding="utf-8"))


def test_half_a_character_from_the_judge_does_not_keep_the_record_from_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, told = judged(
        tmp_path, monkeypatch, lambda prompt: '["half \\ud83d"]' if "take answers apart" in prompt else "[true]"
    )
    assert status == 0
    assert told["results"][0]["judge"]["statements"] == [{"text": "half \ud83d", "supported": True}]


def test_a_judge_that_goes_mad_costs_one_judgement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        if len(prompts) <= 2:
            return "[" * 2_000 + "]"
        return '["one"]' if "take answers apart" in prompt else "[false]"

    status, told = judged(tmp_path, monkeypatch, reply)
    assert status == 0
    assert [one["values"]["faithfulness"] for one in told["results"]] == [None, 0, 0]
    assert told["judge"]["failures"] == {"faithfulness": 1}


def test_what_was_judged_before_an_interrupt_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        if len(prompts) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return '["one"]' if "take answers apart" in prompt else "[true]"

    status, told = judged(tmp_path, monkeypatch, reply)
    assert status == 130
    assert [one["values"]["faithfulness"] for one in told["results"]] == [1, None, None]
    assert [one["answer"] for one in told["results"]] == ["Ten days [1]."] * 3
    assert told["judge"]["stopped"]
    assert (tmp_path / "page.html").exists()


def test_an_embedder_that_cannot_be_had_is_said_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    monkeypatch.setenv("BATON_JUDGE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("BATON_JUDGE_MODEL", "judge")
    monkeypatch.setenv("BATON_EMBEDDER", "openai")
    with gateway(lambda query: asked.append(query) or frames(), NAMES) as url:
        assert main(["eval", dataset(tmp_path), "--url", url, "--judge"]) == 2
    assert "BATON_EMBEDDING_URL" in capsys.readouterr().err
    assert asked == []


def test_the_first_side_is_kept_where_the_second_cannot_be_had(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "record.json"
    with gateway(lambda _: frames(), NAMES) as url, gateway(lambda _: frames(), {}) as empty:
        argv = ["eval", dataset(tmp_path), "--a", url, "--b", empty, "--json", str(record)]
        assert main(argv) == 2
    assert "documents that the set names are not there" in capsys.readouterr().err
    assert len(json.loads(record.read_text())["results"]) == 3


def test_a_place_that_cannot_be_written_is_said_before_anything_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    (tmp_path / "file").write_text("")
    with gateway(lambda query: asked.append(query) or frames(), NAMES) as url:
        for place in (tmp_path, tmp_path / "file" / "record.json"):
            assert main(["eval", dataset(tmp_path), "--url", url, "--json", str(place)]) == 2
            assert str(tmp_path) in capsys.readouterr().err
    assert asked == []


def test_no_proxy_is_asked_for_what_runs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with gateway(lambda _: frames(), NAMES) as url:
        assert main(["eval", dataset(tmp_path), "--url", url]) == 0


def test_what_a_dead_system_has_left_behind_is_stopped_too() -> None:
    process = subprocess.Popen(["sh", "-c", "sleep 600 & echo $!"], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    left = int(process.stdout.readline())
    process.wait(10)
    running._stop(process)
    process.stdout.close()
    wait_until(lambda: not alive(left), "the child is gone")


def alive(pid: int) -> bool:
    """Whether it runs; a killed one whose parent is gone may stay as a zombie for a moment."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it may go between opening and reading
        return False


@pytest.mark.parametrize("sent", ["no JSON", "[1]", '"text"', '{"seq": 1}', '{"type": "error"}'])
def test_a_server_that_sends_what_is_no_frame_fails_that_question_only(
    sent: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with gateway(lambda query: [sent] if "1" in query["query"] else frames(), NAMES) as url:
        assert main(["eval", dataset(tmp_path), "--url", url]) == 1
    assert "1 failed: the server sent what is no frame" in capsys.readouterr().out
