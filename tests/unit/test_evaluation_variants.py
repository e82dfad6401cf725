"""Answers of several variants in one evaluation, and asking until a variant has answered."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from evaluation.asking import answered_from
from evaluation.by_variant import by_variant
from evaluation.comparing import compare_groups, permutation_p
from evaluation.dataset import Dataset, Entry
from evaluation.measures import Answered
from evaluation.page import page
from evaluation.reaching import Reaching
from evaluation.record import record
from evaluation.replay import Run
from evaluation.text import table
from services.cli.__main__ import main
from tests.evaluation_gateway import frames, gateway

NAMES = {"d" * 32: "a.md"}


def answered(at: int, variant: str, hit: float, *, failed: str = "") -> Answered:
    values = {"hit@10": hit, "failed": float(bool(failed)), "total_ms": 100.0 + at}
    return Answered(f"q{at}", "?", "en", {}, failed, variant=variant, values=values, times={"total_ms": 100 + at})


def of_two(b_hits: float) -> list[Answered]:
    plain = [answered(at, "none", float(at % 2)) for at in range(40)]
    return [*plain, *(answered(40 + at, "b", b_hits) for at in range(20))]


def test_a_done_frame_says_the_variant_and_an_accepted_one_that_of_an_answer_that_failed() -> None:
    entry = Entry("q", "?", "en")
    done = {"type": "done", "seq": 1, "finish_reason": "stop"}
    assert answered_from(entry, Run([done], 1), {}).variant == "none"
    assert answered_from(entry, Run([{**done, "variant": "b"}], 1), {}).variant == "b"
    accepted = {"type": "accepted", "seq": 0, "conversation_id": "c"}
    assert answered_from(entry, Run([accepted], 1, "internal: it broke"), {}).variant == "none"
    assert answered_from(entry, Run([{**accepted, "variant": "b"}], 1, "internal: it broke"), {}).variant == "b"
    assert answered_from(entry, Run([{**accepted, "variant": "b"}, done], 1), {}).variant == "none"
    assert answered_from(entry, Run([], 1, "overloaded: later"), {}).variant == ""


def test_answers_are_told_by_variant_with_refused_ones_in_no_group() -> None:
    answers = [*of_two(1.0), answered(99, "", 0.0, failed="overloaded: later")]
    told = by_variant(answers, seed=1)
    assert list(told["figures"]) == ["none", "b"]
    assert [one["questions"] for one in told["figures"].values()] == [40, 20]
    assert told["figures"]["b"]["measures"]["hit@10"] == {"mean": 1.0, "questions": 20}
    assert told["unknown"] == 1
    hit = next(one for one in told["differences"] if one["measure"] == "hit@10")
    assert (hit["variants"], hit["a"], hit["b"], hit["real"]) == (["none", "b"], 0.5, 1.0, True)
    assert hit["says"].startswith("hit@10: b is higher: none 0.5, b 1, difference +0.5 (interval +0.")
    assert by_variant(answers, seed=1) == told, "the same seed, the same intervals"


def test_answers_of_one_variant_are_told_as_before() -> None:
    assert by_variant([answered(at, "none", 1.0) for at in range(3)], seed=1) == {}
    assert by_variant([answered(0, "b", 1.0), answered(1, "", 0.0, failed="x")], seed=1) == {}


def test_each_of_several_variants_stands_beside_none() -> None:
    answers = [*of_two(1.0), *(answered(60 + at, "c", 0.0) for at in range(30))]
    told = by_variant(answers, seed=1)
    assert list(told["figures"]) == ["none", "c", "b"]
    assert {tuple(one["variants"]) for one in told["differences"]} == {("none", "c"), ("none", "b")}
    (only,) = {one["level"] for one in told["differences"]}
    assert only == pytest.approx(1 - 0.05 / 6), "three measures of two variants"


def test_the_report_shows_variants_side_by_side_and_says_that_questions_differ() -> None:
    answers = [*of_two(1.0), answered(99, "", 0.0, failed="internal: it broke")]
    run = record(Dataset("set", "digest", []), answers, options={"seed": 1}, settings={})
    for shown in (table(run), page([run])):
        assert "none 40, b 20 questions. Different questions went to each" in shown
        assert "1 were refused before they could try a variant" in shown
        assert "hit@10: b is higher" in shown
    line = next(line.split() for line in table(run).splitlines() if line.startswith("by variant"))
    assert line == ["by", "variant", "none", "b"]
    single = record(Dataset("set", "digest", []), answers[:40], options={}, settings={})
    assert "by variant" not in (table(single) + page([single])).lower()


def test_an_interval_of_unpaired_groups_holds_the_true_difference_as_often_as_it_says() -> None:
    random = np.random.default_rng(7)
    held = real = 0
    for _ in range(200):
        a, b = random.normal(0, 2, 40), random.normal(0.5, 1, 30)
        (one,) = compare_groups({"m": list(a)}, {"m": list(b)}, resamples=500)
        held += one.low95 <= 0.5 <= one.high95
        (none,) = compare_groups({"m": list(a)}, {"m": list(b - 0.5)}, resamples=500)
        real += none.real
    assert 180 <= held <= 198
    assert real <= 20
    alike = {"m": [float(at) for at in range(30)]}
    (one,) = compare_groups(alike, alike)
    assert one.low95 < -3, "each group is drawn by itself"


def test_a_small_group_without_a_miss_is_not_called_better() -> None:
    """A bootstrap alone would: it draws ten hits from ten hits, each time."""
    most = {"hit": [1.0] * 81 + [0.0] * 9}
    (one,) = compare_groups(most, {"hit": [1.0] * 10})
    assert one.low > 0
    assert not one.real
    (few,) = compare_groups(most, {"hit": [0.0] * 9})
    assert not few.real
    (many,) = compare_groups(most, {"hit": [0.0] * 10})
    assert many.real


def test_a_permutation_counts_how_often_chance_is_as_far_apart() -> None:
    a, b = np.array([0.0, 0.0, 0.0]), np.array([1.0, 1.0, 1.0])
    assert permutation_p(a, b, seed=1) == pytest.approx(2 / 20, abs=0.01)
    assert permutation_p(a, a, seed=1) == 1


def asked_of(*outcomes: str) -> Callable[[], Awaitable[Answered]]:
    """Answers of these variants, one after the other and then again; `!` is a failure."""
    turns = itertools.cycle(outcomes)

    async def ask() -> Answered:
        variant = next(turns)
        return answered(0, "", 0.0, failed="internal: x") if variant == "!" else answered(0, variant, 1.0)

    return ask


def test_a_question_is_asked_until_its_variant_answers_but_not_for_ever() -> None:
    async def scenario() -> None:
        reaching = Reaching("b", tries=5)
        found = await reaching.answer("q1", asked_of("none", "!", "b"))
        assert found is not None
        assert (found.variant, reaching.asked, reaching.missed) == ("b", 3, {})
        assert await reaching.answer("q2", asked_of("none")) is None
        assert await reaching.answer("q3", asked_of("none", "!")) is None
        assert await reaching.answer("q4", asked_of("!")) is None
        assert reaching.missed == {
            "q2": "5 tries",
            "q3": "5 tries, 2 of them failed, the last with: internal: x",
            "q4": "3 tries, 3 of them failed, the last with: internal: x",
        }

    asyncio.run(scenario())


def test_a_variant_that_nobody_reaches_is_given_up_for_all_questions() -> None:
    async def scenario() -> None:
        reaching = Reaching("b", tries=5)
        for at in range(100):
            await reaching.answer(f"q{at}", asked_of("none"))
        assert (reaching.asked, len(reaching.missed)) == (50, 100)

    asyncio.run(scenario())


def test_the_same_questions_are_compared_of_two_variants(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every third answer is b's, and b never reaches the last question."""
    lines = [{"id": f"q{at}", "question": f"Question {at}?", "documents": ["a.md"]} for at in range(12)]
    dataset, out = tmp_path / "set.jsonl", tmp_path / "record.json"
    dataset.write_text("\n".join(map(json.dumps, lines)))
    turns = itertools.count()

    def answering(query: dict[str, object]) -> list[dict[str, object] | str]:
        assert "conversation_id" not in query, "a conversation of its own is a new draw"
        if query["query"] == "Question 11?" or next(turns) % 3:
            return frames()
        *rest, done = frames("I do not know.", cited=())
        assert isinstance(done, dict)
        return [*rest, {**done, "variant": "b"}]

    with gateway(answering, NAMES) as url:
        argv = ["eval", str(dataset), "--url", url, "--concurrency", "1", "--json", str(out)]
        assert main([*argv, "--variants", "none,b", "--tries", "7", "--out", str(tmp_path / "page.html")]) == 1
        told = json.loads(out.read_text())
        assert main([*argv, "--variants", "c", "--tries", "2"]) == 2
    printed = capsys.readouterr()
    assert "citation_hit: B is lower: A 1, B 0, difference -1 (interval -1 to -1, 11 questions)" in printed.out
    missed = "variant b: 1 questions were not answered by this variant and are left out: q11 (7 tries)."
    assert missed in printed.out
    assert missed in (tmp_path / "page.html").read_text()
    a, b = told["runs"]
    assert [(run["options"]["variant"], len(run["results"])) for run in (a, b)] == [("none", 12), ("b", 11)]
    assert {one["variant"] for one in b["results"]} == {"b"}
    assert b["unreached"] == {"q11": "7 tries"}
    assert a["variants"] == b["variants"] == {}
    assert "no question was answered by variant c in 20 tries" in printed.err


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--variants", "none,b"], "name it with --url"),
        (["--url", "ws://127.0.0.1:9/ws", "--variants", "b,b"], "--variants b,b: expected one or two different ones"),
        (["--url", "ws://127.0.0.1:9/ws", "--tries", "3"], "--tries is about --variants"),
    ],
)
def test_variants_that_cannot_be_asked_are_refused(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "set.jsonl", *argv]) == 2
    assert says in capsys.readouterr().err
