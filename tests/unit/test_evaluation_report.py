"""The record and the page of an evaluation."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from evaluation import svg
from evaluation.asking import answered_from
from evaluation.comparing import compare
from evaluation.dataset import Dataset, Entry
from evaluation.evaluate import Options, with_target
from evaluation.measures import Answered, measure
from evaluation.page import page
from evaluation.record import SCHEMA, BadRecord, as_json, paired_values, public, read_record, record
from evaluation.repeating import repeated, unlike
from evaluation.replay import Run
from evaluation.text import table

EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>"


def frames(text: str = "Ten days [1].") -> list[dict[str, Any]]:
    source = {"n": 1, "id": "d1:0", "document_id": "d1", "title": EVIL, "url": "/documents/d1", "snippet": EVIL}
    return [
        {"type": "accepted", "seq": 0},
        {"type": "sources", "seq": 1, "sources": [{**source, "score": 1.0}]},
        {"type": "answer_chunk", "seq": 2, "content": "lost"},
        {"type": "answer_reset", "seq": 3},
        {"type": "answer_chunk", "seq": 4, "content": text},
        {
            "type": "done",
            "seq": 5,
            "cited": [1],
            "citations": [{"n": 1, "start": 9, "end": 12}],
            "finish_reason": "stop",
            "fingerprint": "corpus=abc retriever=r",
            "timings": {"ttfb_ms": 3, "ttft_ms": 30, "retrieval_ms": 20, "queue_ms": 1},
        },
    ]


def one_run(count: int = 12, name: str = "run") -> dict[str, Any]:
    entries = [Entry(f"q{at}", EVIL, "en" if at % 2 else "zh", {"a.md": 1}, (), (EVIL,)) for at in range(count)]
    answers: list[Answered] = []
    for at, entry in enumerate(entries):
        run = Run(frames(f"Ten days [1]. {EVIL}"), 100 + at, EVIL if at == 0 else "")
        answers.append(answered_from(entry, run, {"d1": "a.md" if at % 3 else "b.md"}))
    measure(answers, {entry.id: entry for entry in entries}, 10)
    dataset = Dataset("set", "digest", entries)
    settings = {"BATON_TOP_K": "6", "BATON_LLM_API_KEY": "key", "BATON_NATS_URL": "nats://user:word@host:4222"}
    return record(dataset, answers, options={"top_k": 10}, settings=settings, name=name, seconds=1.5)


def test_an_answer_is_put_together_from_its_frames() -> None:
    one = answered_from(Entry("q", "?", "en", {"a.md": 1}), Run(frames(), 120), {"d1": "a.md"})
    assert one.answer == "Ten days [1]."
    assert one.sources[0]["name"] == "a.md"
    assert one.times == {"ttfb_ms": 3, "ttft_ms": 30, "retrieval_ms": 20, "total_ms": 120}
    unknown = answered_from(Entry("q", "?", "en", {"a.md": 1}), Run(frames(), 120), {})
    assert unknown.sources[0]["name"] == EVIL, "a document that nobody can name keeps its title"


def test_a_record_says_what_it_takes_to_repeat_it() -> None:
    run = one_run()
    assert run["schema"] == SCHEMA
    assert run["settings"] == {"BATON_NATS_URL": "nats://host:4222", "BATON_TOP_K": "6"}
    assert run["corpus"] == ["abc"]
    assert run["fingerprints"] == {"corpus=abc retriever=r": 12}
    assert run["figures"]["all"]["failed"] == 1
    assert json.loads(as_json(run)) == run


def test_a_repetition_says_how_much_is_the_same() -> None:
    before, again = one_run(), one_run()
    again["results"][0]["answer"] = "another"
    again["results"][1]["sources"][0]["id"] = "another"
    again["results"][2]["fingerprint"] = "corpus=other retriever=r"
    again["settings"] = {"BATON_TOP_K": "7", "BATON_NATS_URL": "nats://another"}
    again["baton"]["git"] = "0123"
    first, *rest = repeated(before, again)
    assert "of 12 questions 11 have the same answer, 11 the same sources in the same order, 11" in first
    assert rest == [
        "1 have another corpus: abc, now other.",
        f"Baton's git was {before['baton']['git'] or 'nothing'}, is now 0123.",
        "BATON_TOP_K was 6, is now 7.",
    ]


def test_a_comparison_of_unlike_records_says_so() -> None:
    one, other = one_run(), one_run(10)
    assert unlike(one, one) == []
    one["judge"], other["judge"] = {"model": "big", "prompts": {}}, {"model": "small", "prompts": {}}
    other["options"]["top_k"] = 5
    questions, k, judge = unlike(one, other)
    assert "A has 12 questions and B 10: the differences are of the 10 that both have" in questions
    assert "A asked for 10 passages and B for 5" in k
    assert "by big and B by small" in judge


def test_an_answer_that_no_source_supports_is_among_the_worst() -> None:
    run = one_run()
    for one in run["results"]:
        one["values"] = {"faithfulness": 0.0 if one["id"] == "q7" else 1.0}
        one["rank"], one["failed"] = 1, ""
    assert "1 questions are not all right" in page([run])
    run["results"][7]["entry"] = {"unanswerable": True}
    assert "first right document:" not in page([run])


def test_a_record_of_somebody_else_puts_no_markup_on_the_page() -> None:
    run = one_run()
    run["figures"]["all"]["questions"] = run["figures"]["all"]["failed"] = "<marquee>"
    run["figures"]["all"]["abstained"] = run["made_at"] = run["baton"]["version"] = "<marquee>"
    assert "<marquee" not in page([run], notes=["<marquee>"])
    assert page([run], notes=["<marquee>"]).count("&lt;marquee&gt;") == 6


def test_secrets_and_unknown_names_are_left_out() -> None:
    assert public({"BATON_JUDGE_API_KEY": "x", "HOME": "/root", "BATON_NO_SUCH": "y", "BATON_TOP_K": "1"}) == {
        "BATON_TOP_K": "1"
    }


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("nats://a:one@h1:4222,nats://b:two@h2:4222/x", "nats://h1:4222,nats://h2:4222/x"),
        ("https://host/v1?api_key=one&v=2", "https://host/v1"),
        ("https://one@host:1/v1#two", "https://host:1/v1"),
        ("a:one@h1:4222,h2", "h1:4222,h2"),
        ("user one@example", "user one@example"),
        ("plain, text?", "plain, text?"),
    ],
)
def test_addresses_are_kept_without_what_may_be_a_key(value: str, kept: str) -> None:
    assert public({"BATON_NATS_URL": value}) == {"BATON_NATS_URL": kept}


def test_neither_the_name_of_a_side_nor_its_address_shows_a_key() -> None:
    options = Options(["set.jsonl"], corpus="x")
    side = with_target(options, "BATON_LLM_API_KEY=sk-1,BATON_LLM_URL=http://u:pw@h/v1?key=sk-2,BATON_TOP_K=8")
    assert side.settings is not None
    assert side.settings["BATON_LLM_API_KEY"] == "sk-1", "the system gets it"
    assert side.name == "BATON_LLM_URL=http://h/v1,BATON_TOP_K=8"
    assert with_target(options, "BATON_LLM_API_KEY=sk-1").name == "settings"
    away = with_target(options, "wss://u:pw@h/ws?token=sk-3")
    assert away.url == "wss://u:pw@h/ws?token=sk-3"
    for told in (side, away):
        assert not re.search("sk-|pw", str(told.as_map()))


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_in_itself_and_nothing_in_it_becomes_markup() -> None:
    runs = [one_run(), one_run(name=EVIL)]
    html = page(runs, compare(*paired_values(*runs), resamples=50))
    read = Page()
    read.feed(html)
    assert read.tags.isdisjoint({"script", "img", "link", "iframe", "object"})
    assert read.attributes.isdisjoint({"src", "href", "onerror", "onload"})
    assert "prefers-color-scheme:dark" in html
    assert "@media print" in html
    assert "http" not in html.replace("http-equiv", "")
    assert read.text.count(EVIL) > 40, "questions, answers, titles and snippets are all there, as text"
    assert "mrr@10: not told apart" in read.text


def test_every_plot_is_well_formed() -> None:
    plots = [
        svg.bars({"1": {"a": 3, "<b>": 1}, "2": {"a": 0}}, label="<x>"),
        svg.cumulative({"a": [1, 10, 1000], "b": [], "c": [0]}, label="t"),
        svg.intervals([("m<", 0.1, -0.2, 0.3), ("n", 0, 0, 0)], label="d"),
        svg.bars({}, label="none"),
    ]
    for plot in plots:
        assert ElementTree.fromstring(plot).tag == "svg"
    assert svg.cumulative({"a": []}, label="t") == ""


def test_the_table_has_every_language() -> None:
    lines = table(one_run()).splitlines()
    assert lines[0].split() == ["run", "all", "en", "zh"]
    assert any(line.split() == ["recall@10", "0.667", "0.667", "0.667"] for line in lines)
    assert lines[-1] == f"  1 failed: {EVIL}"
    judged = {**one_run(), "judge": {"asked": {"faithfulness": 9}, "failures": {"faithfulness": 2}}}
    assert "  faithfulness: 2 of 9 not judged" in table(judged).splitlines()


def test_only_runs_of_the_same_questions_are_compared(tmp_path: Path) -> None:
    run = one_run()
    (tmp_path / "a.json").write_text(as_json(run))
    assert read_record(tmp_path / "a.json") == run
    other = json.loads(as_json(run))
    other["results"][3]["entry"]["documents"] = ["c.md"]
    with pytest.raises(BadRecord, match="'q3' is not the same"):
        paired_values(run, other)
    other["results"] = [{**one, "id": f"x{one['id']}"} for one in run["results"]]
    with pytest.raises(BadRecord, match="no question in common"):
        paired_values(run, other)
    del other["results"][0]["values"]
    (tmp_path / "b.json").write_text(as_json(other))
    with pytest.raises(BadRecord, match="it lacks `values`"):
        read_record(tmp_path / "b.json")
    for content, says in (("{}", "not the record"), ("[", "Expecting"), ('{"schema": 9, "results": []}', "schema 9")):
        (tmp_path / "b.json").write_text(content)
        with pytest.raises(BadRecord, match=says):
            read_record(tmp_path / "b.json")
