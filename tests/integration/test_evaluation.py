"""`baton eval` on the real system, and with a judge that speaks OpenAI's chat completions."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluation.dataset import Entry, entry_map
from evaluation.evaluate import options_of
from evaluation.judge import Judge, open_judge
from evaluation.measures import Answered
from evaluation.running import parse_settings
from services.cli.__main__ import main
from services.common.config import JudgeSettings
from tests.servers.llm import DONE, delta, head, scripted_llm
from tests.servers.processes import wait_until
from tests.system import DOCUMENTS, System, start, start_gateway, system, workers_alive

QUESTIONS: list[dict[str, Any]] = [
    {"id": "1", "question": "How long is maternity leave?", "language": "en", "documents": ["family-leave.en.md"]},
    {
        "id": "2",
        "question": "陪产假有多少天?",
        "language": "zh",
        "documents": ["family-leave.zh.md"],
        "answer": "15 天",
    },
    {"id": "3", "question": "试用期多长?", "language": "zh", "documents": ["onboarding-probation.zh.md"]},
    {"id": "4", "question": "May I bring dogs?", "language": "en", "documents": {"visitors.en.md": 2}},
    {"id": "5", "question": "Qxz vwk zzyq plomf?", "language": "en", "unanswerable": True},
    {
        "id": "6",
        "question": "And for the father?",
        "language": "en",
        "documents": ["family-leave.en.md"],
        "conversation": ["How long is maternity leave?"],
    },
]


@pytest.fixture(scope="module")
def baton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with system(tmp_path_factory.mktemp("evaluation"), settings={"BATON_EXTRACTIVE_DELAY_MS": "0"}) as one:
        yield one


def write(path: Path, questions: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(one, ensure_ascii=False) for one in questions), encoding="utf-8")
    return path


def test_a_set_is_asked_over_the_socket_and_measured(
    baton: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in baton.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BATON_LLM_API_KEY", "not-for-reports")
    dataset = write(tmp_path / "set.jsonl", QUESTIONS)
    first, page = tmp_path / "a.json", tmp_path / "report.html"
    argv = ["eval", str(dataset), "--url", baton.socket_url(), "--corpus", str(DOCUMENTS), "--json", str(first)]
    assert main([*argv, "--out", str(page)]) == 0

    told = json.loads(first.read_text(encoding="utf-8"))
    results = {one["id"]: one for one in told["results"]}
    assert [one["failed"] for one in told["results"]] == [""] * 6
    assert {results[id]["rank"] for id in "1236"} == {1}
    assert "158" in results["1"]["answer"]
    assert results["2"]["values"]["token_recall"] == 1
    assert results["5"]["values"]["right_abstention"] == 1
    assert "15 days" in results["6"]["answer"], "the question before it gives it its sense"
    everything = told["figures"]["all"]
    assert everything["measures"]["recall@10"] == {"mean": pytest.approx(1, abs=0.21), "questions": 5}
    assert everything["percentiles"]["retrieval_ms"]["p50"] > 0
    assert set(told["figures"]) == {"all", "en", "zh"}
    assert len(told["corpus"]) == 1
    assert told["corpus"][0] in next(iter(told["fingerprints"]))
    assert "BATON_MILVUS_URI" in told["settings"]
    assert "not-for-reports" not in first.read_text() + page.read_text()

    assert main(["eval", "--compare", str(first), str(first), "--out", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "recall@10: too few questions to tell" in printed
    assert "Differences" in page.read_text()

    options = options_of(told)
    assert (options.url, options.corpus, options.settings) == (baton.socket_url(), str(DOCUMENTS), {})
    write(dataset, QUESTIONS[1:])
    assert main(["eval", "--repeat", str(first)]) == 2
    assert "not the set of the record any more" in capsys.readouterr().err


def test_variants_of_a_running_system_are_told_apart_and_asked_the_same(
    baton: System, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = write(tmp_path / "set.jsonl", [{**QUESTIONS[0], "id": str(at)} for at in range(24)])
    out = tmp_path / "record.json"
    with (
        start(baton, "generator", 1, BATON_VARIANT="b"),
        start_gateway(baton, 1, BATON_VARIANTS="b=50") as half,
        start_gateway(baton, 2, BATON_VARIANTS="b=100") as whole,
    ):
        for port in (half, whole):
            wait_until(lambda port=port: workers_alive(port).get("generate.b") == 1, "b is there", 60)  # type: ignore[misc]
        argv = ["eval", str(dataset), "--json", str(out)]
        assert main([*argv, "--url", f"ws://127.0.0.1:{half}/ws"]) == 0
        told = json.loads(out.read_text())
        counts = Counter(one["variant"] for one in told["results"])
        assert set(counts) == {"none", "b"}
        assert {name: one["questions"] for name, one in told["variants"]["figures"].items()} == counts
        assert all(("variant=b" in one["fingerprint"]) == (one["variant"] == "b") for one in told["results"])
        assert "Different questions went to each" in capsys.readouterr().out

        assert main([*argv, "--url", f"ws://127.0.0.1:{half}/ws", "--variants", "none,b", "--limit", "4"]) == 0
        runs = json.loads(out.read_text())["runs"]
        assert [{one["variant"] for one in run["results"]} for run in runs] == [{"none"}, {"b"}]

        sides = ["--a", baton.socket_url(), "--b", f"ws://127.0.0.1:{whole}/ws"]
        assert main([*argv, *sides, "--limit", "4"]) == 0
        runs = json.loads(out.read_text())["runs"]
        assert [{one["variant"] for one in run["results"]} for run in runs] == [{"none"}, {"b"}]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["SET"], "--corpus FOLDER, or a running system with --url"),
        (["SET", "--a", "default"], "--a and --b go together"),
        (["SET", "--repeat", "SET"], "give one of"),
        ([], "give one of"),
        (["--compare", "SET", "SET"], "Extra data"),
        (["SET", "--url", "ws://127.0.0.1:9/ws"], "--corpus"),
        (["SET", "--corpus", "x", "--judge"], "BATON_JUDGE_URL"),
        (["SET", "--a", "no-such-file", "--b", "default"], "no-such-file: no address"),
        (["SET", "--corpus", "x", "--a", "BATON_TOP_K=999", "--b", "default"], "BATON_TOP_K"),
        (["--repeat", "SET", "--url", "ws://127.0.0.1:9/ws"], "--url changes nothing about a record"),
        (["--compare", "SET", "SET", "--top-k", "5"], "--top-k changes nothing about a record"),
        (["nothing.jsonl"], "nothing.jsonl: No such file"),
    ],
)
def test_what_cannot_be_run_is_said(
    argv: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = str(write(tmp_path / "set.jsonl", QUESTIONS))
    assert main(["eval", *(dataset if word == "SET" else word for word in argv)]) == 2
    assert says in capsys.readouterr().err


def test_settings_are_read_from_the_line_and_from_a_file(tmp_path: Path) -> None:
    wanted = {"BATON_TOP_K": "8", "BATON_ALLOWED_ORIGINS": "https://a,https://b"}
    assert parse_settings("BATON_TOP_K=8,BATON_ALLOWED_ORIGINS=https://a,https://b") == wanted
    (tmp_path / "env").write_text("# a comment\nexport BATON_TOP_K=8\n\nBATON_ALLOWED_ORIGINS='https://a,https://b'\n")
    assert parse_settings(str(tmp_path / "env")) == wanted


def reply(value: Any) -> list[bytes]:
    text = value if isinstance(value, str) else json.dumps(value)
    return [head(), delta(text), delta(finish="stop"), DONE]


class Letters:
    """Embeds a text as the counts of its letters."""

    async def embed(self, texts: list[str]) -> list[list[float]]:
        return [[float(text.lower().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]


def judged(*scripts: list[bytes], embedder: Any = None, **answered: Any) -> tuple[Answered, Judge, list[Any]]:
    entry = Entry("q", "Where is it?", "en", {"a": 1})
    source = {"n": 1, "id": "a:0", "name": "a", "title": "A", "snippet": "It is here."}
    fields = {"answer": "It is here [1]. It is red.", "sources": [source], "cited": [1], "finish_reason": "stop"}
    one = Answered("q", entry.question, "en", entry_map(entry), **{**fields, **answered})

    async def run() -> tuple[Judge, list[Any]]:
        async with scripted_llm(*scripts) as llm:
            settings = JudgeSettings(judge_url=llm.url, judge_model="judge", judge_api_key="key")
            async with open_judge(settings, embedder) as judge:
                await judge.judge([one])
            assert all(headers["authorization"] == "Bearer key" for headers in llm.headers)
            return judge, llm.requests

    return one, *asyncio.run(run())


def test_faithfulness_is_the_share_of_statements_that_the_sources_support() -> None:
    statements = ["It is here.", "It is red."]
    one, judge, requests = judged(reply(f"```json\n{json.dumps(statements)}\n```"), reply([True, False]))
    assert one.values == {"faithfulness": 0.5, "answer_relevance": None}
    assert one.judge["statements"][1] == {"text": "It is red.", "supported": False}
    claims, support = (request["messages"][0]["content"] for request in requests)
    assert "It is here. It is red." in claims
    assert re.search(r"\[1\] A\nIt is here\.\n.*1\. It is here\.\n2\. It is red\.", support, re.S)
    assert "not measured" in judge.told()["relevance"]
    assert set(judge.told()["prompts"]) == {"claims.v1", "support.v1", "question.v1"}


def test_the_judge_reads_whole_passages_where_they_are_known() -> None:
    source = {"n": 1, "id": "a:0", "name": "a", "title": "A", "snippet": "It …", "text": "It is here, and red."}
    _, _, requests = judged(reply(["It is red."]), reply([True]), sources=[source])
    assert "[1] A\nIt is here, and red.\n" in requests[1]["messages"][0]["content"]


def test_relevance_is_how_near_the_questions_of_the_answer_are() -> None:
    asked = reply({"questions": ["Where is it?", "zzz"], "noncommittal": False})
    one, _, _ = judged(reply([]), asked, embedder=Letters())
    assert one.values == {"faithfulness": None, "answer_relevance": pytest.approx(0.5)}
    evasive, _, _ = judged(reply([]), reply({"questions": ["x"], "noncommittal": True}), embedder=Letters())
    assert evasive.values["answer_relevance"] == 0


def test_a_judge_that_cannot_be_understood_is_asked_again_and_then_counted() -> None:
    one, judge, requests = judged(reply("Sure!"), reply("I think so."))
    assert one.values["faithfulness"] is None
    assert (judge.asked, judge.failures, len(requests)) == ({"faithfulness": 1}, {"faithfulness": 1}, 2)
    again, judge, _ = judged(reply("Sure!"), reply(["x"]), reply([True, True]), reply([True]))
    assert again.values["faithfulness"] == 1
    assert judge.failures == {}


def test_an_answer_without_statements_to_check_is_not_asked_about() -> None:
    one, judge, requests = judged(reply([]), cited=[], answer="The documents do not answer this.")
    assert one.values["faithfulness"] is None
    assert requests == []
    assert judge.asked == {}
