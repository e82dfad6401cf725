"""An evaluation sees whole passages where the gateway shows them, and says of how many it saw the beginning only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.cli.__main__ import main
from tests.evaluation_gateway import frames, gateway

ID = "d" * 32
TEXT = "word " * 150 + "the right words"
SNIPPET = TEXT[:480].rstrip() + "…"
PATH = f"/documents/{ID}?text=1&start=7&end=900"
PLAIN = {"Content-Type": "text/plain; charset=utf-8"}


@pytest.mark.parametrize(
    ("pages", "hit", "seen"),
    [
        ({PATH: (PLAIN, TEXT)}, 1, {"whole": 1, "snippet": 0}),
        ({}, 0, {"whole": 0, "snippet": 1}),
        ({PATH: ({"Content-Type": "text/html"}, TEXT)}, 0, {"whole": 0, "snippet": 1}),
        ({PATH: (PLAIN, "another version: the right words")}, 0, {"whole": 0, "snippet": 1}),
    ],
    ids=["shown", "gone", "an old gateway", "changed since"],
)
def test_a_passage_is_read_to_its_end_where_it_is_shown(
    tmp_path: Path, pages: dict[str, tuple[dict[str, str], str]], hit: float, seen: dict[str, int]
) -> None:
    entry = {"id": "q", "question": "Which?", "documents": ["a.md"], "passages": ["the  right words"]}
    dataset, record, page = tmp_path / "set.jsonl", tmp_path / "record.json", tmp_path / "page.html"
    dataset.write_text(json.dumps(entry))
    answer: list[Any] = frames(snippet=SNIPPET, start=7, end=900)
    with gateway(lambda _: answer, {ID: "a.md"}, pages) as url:
        argv = ["eval", str(dataset), "--url", url, "--json", str(record), "--out", str(page)]
        assert main([*argv, "--token", "t"]) == 0
    told = json.loads(record.read_text())
    assert told["results"][0]["values"]["passage_hit@10"] == hit
    assert told["passages"] == seen
    assert f"{seen['whole']} of 1, of the others 500 characters" in page.read_text()


def test_a_whole_snippet_is_not_asked_for(tmp_path: Path) -> None:
    entry = {"id": "q", "question": "Which?", "documents": ["a.md"], "passages": ["Ten days."]}
    dataset, record = tmp_path / "set.jsonl", tmp_path / "record.json"
    dataset.write_text(json.dumps(entry))
    with gateway(lambda _: frames(start=0, end=9), {ID: "a.md"}) as url:
        assert main(["eval", str(dataset), "--url", url, "--json", str(record)]) == 0
    assert json.loads(record.read_text())["passages"] == {"whole": 1, "snippet": 0}
