"""`baton eval --repeat` against a gateway that has changed since."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.cli.__main__ import main
from tests.evaluation_gateway import FINGERPRINT, frames, gateway

NAMES = {"d" * 32: "a.md"}


def test_a_recorded_run_is_repeated_and_its_report_says_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [{"id": f"q{at}", "question": f"Question {at}?", "documents": ["a.md"]} for at in range(3)]
    dataset, record, page = tmp_path / "set.jsonl", tmp_path / "record.json", tmp_path / "page.html"
    dataset.write_text("\n".join(map(json.dumps, lines)))
    changed: list[str] = []
    asked: list[dict[str, object]] = []

    def answering(query: dict[str, object]) -> list[dict[str, object] | str]:
        asked.append(query)
        if query["query"] in changed:
            return frames("Twelve days.", fingerprint=FINGERPRINT.replace("v1#2", "v2#3"), cited=())
        return frames()

    with gateway(answering, NAMES) as url:
        first = ["eval", str(dataset), "--url", url, "--top-k", "7", "--seed", "5", "--limit", "2"]
        assert main([*first, "--json", str(record)]) == 0
        assert main(["eval", "--repeat", str(record)]) == 0
        same = capsys.readouterr().out
        changed.append(str(asked[0]["query"]))
        again = tmp_path / "again.json"
        assert main(["eval", "--repeat", str(record), "--json", str(again), "--out", str(page)]) == 0
    assert "of 2 questions 2 have the same answer, 2 the same sources in the same order, 2 the same fing" in same
    assert "is now" not in same
    printed = capsys.readouterr().out
    told = [
        "of 2 questions 1 have the same answer, 2 the same sources in the same order, 1 the same fingerprint",
        "1 have another model: extractive:v1#2, now extractive:v2#3.",
        "citation_recall was 1.000, is now 0.500.",
    ]
    for sentence in told:
        assert sentence in printed
        assert sentence in page.read_text()
        assert sentence in again.read_text()
    assert {(query["top_k"], query["seed"]) for query in asked} == {(7, 5)}
    assert len({str(query["query"]) for query in asked}) == 2, "the same two questions of three, each time"
    assert json.loads(again.read_text())["options"] == json.loads(record.read_text())["options"]
