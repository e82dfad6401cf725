"""The figures of an evaluation, each against a case worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from evaluation.comparing import bootstrap_means, compare, interval, sentence
from evaluation.dataset import Entry, entry_map
from evaluation.measures import Answered, first_rank, means, measure, percentile, retrieval
from evaluation.texts import exact_match, rouge_l, token_f1, token_recall, without_marks


def answered(entry: Entry, names: list[str] = [], answer: str = "", cited: list[int] = [], **more: Any) -> Answered:  # noqa: B006
    sources = [{"n": n, "id": f"{name}:{n}", "name": name, "title": name} for n, name in enumerate(names, 1)]
    marks = more.pop("citations", None)
    if marks is None:
        marks = [
            {"n": n, "start": answer.index(f"[{n}]"), "end": answer.index(f"[{n}]") + len(f"[{n}]")} for n in cited
        ]
    fields = {"finish_reason": "stop", "language": "en", **more}
    return Answered(
        entry.id, entry.question, entry=entry_map(entry), sources=sources, answer=answer, cited=cited, citations=marks,
        **fields,
    )  # fmt: skip


def values_of(one: Answered, entry: Entry) -> dict[str, float | None]:
    measure([one], {entry.id: entry}, 10)
    return one.values


def test_documents_are_ranked_by_their_first_passage() -> None:
    entry = Entry("q", "?", documents={"c": 1, "x": 1})
    one = answered(entry, ["a", "a", "b", "c", "a"])
    assert first_rank(one, entry.documents) == 3
    values = values_of(one, entry)
    assert values["mrr@10"] == pytest.approx(1 / 3)
    assert values["recall@10"] == 0.5
    assert values["hit@10"] == values["hit@5"] == 1
    assert values["hit@1"] == 0
    assert values["ndcg@10"] == pytest.approx((1 / math.log2(4)) / (1 + 1 / math.log2(3)))


def test_a_question_that_found_nothing_counts_as_nothing_found() -> None:
    entry = Entry("q", "?", documents={"c": 1})
    values = values_of(answered(entry), entry)
    assert (values["recall@10"], values["mrr@10"], values["ndcg@10"]) == (0, 0, 0)
    assert retrieval({"q": []}, {"q": {"c": 1}, "r": {"c": 1}}, 10).keys() == {"q", "r"}


def test_beyond_k_nothing_counts() -> None:
    found = retrieval({"q": [f"d{at}" for at in range(12)]}, {"q": {"d0": 1, "d9": 1, "d11": 2}}, 10)["q"]
    assert found["recall@10"] == pytest.approx(2 / 3)
    assert found["ndcg@10"] == pytest.approx((1 + 1 / math.log2(11)) / (2 + 1 / math.log2(3) + 1 / 2))
    late = retrieval({"q": ["a", "b", "c", "d"]}, {"q": {"d": 1}}, 3)["q"]
    assert late == {"recall@3": 0, "mrr@3": 0, "ndcg@3": 0, "hit@3": 0, "hit@1": 0}


def test_a_grade_weighs_in_ndcg() -> None:
    found = retrieval({"q": ["low", "high"]}, {"q": {"low": 1, "high": 3}}, 10)["q"]
    assert found["ndcg@10"] == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))


def test_citations_are_counted_by_source_and_by_document() -> None:
    entry = Entry("q", "?", documents={"a": 1, "d": 1})
    values = values_of(answered(entry, ["a", "b", "a"], "x [1] y [2] z [3]", [1, 2, 3]), entry)
    assert values["citation_precision"] == pytest.approx(2 / 3)
    assert values["citation_recall"] == 0.5
    assert values["citation_hit"] == 1
    assert values["invalid_citations"] == 0


@pytest.mark.parametrize(
    ("answer", "cited", "citations", "share"),
    [
        ("x [1]", [1], [{"n": 1, "start": 2, "end": 5}], 0),
        ("x [1] y [9]", [1], [{"n": 1, "start": 2, "end": 5}], 1 / 2),  # a number that no source has
        ("x [1]", [], [], 1),  # a mark that `done` does not know of
        ("x [1]", [1], [{"n": 2, "start": 2, "end": 5}], 1),  # another number stands there
        ("x [1]", [1], [{"n": 1, "start": 3, "end": 6}], 1),  # it does not stand there
        ("no mark, 国发[2024]12号", [], [], None),
    ],
)
def test_a_mark_that_leads_nowhere_is_invalid(
    answer: str, cited: list[int], citations: list[dict[str, int]], share: float | None
) -> None:
    entry = Entry("q", "?", documents={"a": 1})
    assert (
        values_of(answered(entry, ["a", "b"], answer, cited, citations=citations), entry)["invalid_citations"] == share
    )


@pytest.mark.parametrize(
    ("more", "unanswerable", "right", "given"),
    [
        ({}, True, 1, None),
        ({}, False, None, 0),
        ({"cited": [1], "answer": "x [1]"}, True, 0, None),
        ({"cited": [1], "answer": "x [1]"}, False, None, 1),
        ({"tool_calls": 1}, True, 0, None),
        ({"failed": "deadline"}, True, 0, None),
        ({"failed": "deadline"}, False, None, 0),
        ({"finish_reason": "cancelled"}, True, 0, None),
    ],
)
def test_abstaining_is_right_only_where_there_is_no_answer(
    more: dict[str, Any], unanswerable: bool, right: float | None, given: float | None
) -> None:
    entry = Entry("q", "?", documents={} if unanswerable else {"a": 1}, unanswerable=unanswerable)
    values = values_of(answered(entry, ["a"], **more), entry)
    assert (values["right_abstention"], values["answered"]) == (right, given)


def test_a_passage_is_found_where_its_text_is_shown() -> None:
    entry = Entry("q", "?", documents={"a": 1}, passages=("the right words",))
    one = answered(entry, ["a", "b"])
    one.sources[1]["snippet"] = "… the  right\nwords …"
    assert values_of(one, entry)["passage_hit@10"] == 1
    measure([one], {"q": entry}, 1)
    assert one.values["passage_hit@1"] == 0


# Expected figures were worked out by hand from the published scripts.
@pytest.mark.parametrize(
    ("answer", "references", "language", "exact", "f1", "recall", "rouge"),
    [
        ("The Cat!", ["a cat"], "en", 1, 1, 1, 1),
        ("the cat sat", ["cat mat", "dog"], "en", 0, 1 / 2, 1 / 2, 1 / 2),
        ("c b", ["b c"], "en", 0, 1, 1, 1 / 2),
        ("", ["x"], "en", 0, 0, 0, 0),
        ("15 天。", ["15天"], "zh", 1, 1, 1, 1),
        ("共十五天年假", ["十五天"], "zh", 0, 2 * 3 / 9, 1, 2 * 3 / 9),
        ("天五十", ["十五天"], "zh", 0, 1 / 3, 1, 1 / 3),
        ("iPhone 手机", ["IPHONE手机"], "zh", 1, 1, 1, 1),
        ("50％", ["50"], "zh", 0, 2 / 3, 1, 2 / 3),
        ("1.5 米", ["1.8米"], "zh", 0, 1 / 2, 1 / 2, 1 / 2),
    ],
)
def test_answers_are_compared_as_squad_and_cmrc_do(
    answer: str, references: list[str], language: str, exact: float, f1: float, recall: float, rouge: float
) -> None:
    assert exact_match(answer, references, language) == exact
    assert token_f1(answer, references, language) == pytest.approx(f1)
    assert token_recall(answer, references, language) == pytest.approx(recall)
    assert rouge_l(answer, references, language) == pytest.approx(rouge)


def test_marks_are_not_part_of_an_answer() -> None:
    assert without_marks("Ten days [1][2]. More [12].") == "Ten days. More."


def test_figures_leave_out_what_has_no_value() -> None:
    entry = Entry("q", "?", documents={"a": 1})
    one, other = answered(entry, ["a"]), answered(entry, ["a"])
    one.values, other.values = {"x": 1.0, "y": None}, {"x": 0.0, "y": None}
    assert means([one, other]) == {"x": {"mean": 0.5, "questions": 2}}
    assert [percentile([10, 20, 30, 40], p) for p in (25, 50, 51, 99, 100)] == [10, 20, 30, 40, 40]


def test_without_a_difference_an_interval_excludes_nothing_as_rarely_as_its_level_says() -> None:
    """Coverage by simulation: 600 sets of 80 differences around 0 or around a true difference."""
    random = np.random.default_rng(5)
    false = found = 0
    for trial in range(600):
        noise = random.choice([-1.0, 0.0, 0.0, 1.0], size=80)
        low, high = interval(bootstrap_means(noise, seed=trial, resamples=400), 0.95)
        false += low > 0 or high < 0
        low, high = interval(bootstrap_means(noise + 0.4, seed=trial, resamples=400), 0.95)
        found += low > 0
    assert 0.02 < false / 600 < 0.09
    assert found / 600 > 0.97


def test_intervals_widen_with_the_number_of_measures() -> None:
    random = np.random.default_rng(1)
    a = {f"m{at}": list(random.random(100)) for at in range(10)}
    b = {name: list(np.array(values) + 0.02 * random.standard_normal(100)) for name, values in a.items()}
    (alone,) = compare({"m0": a["m0"]}, {"m0": b["m0"]}, resamples=2000)
    together = compare(a, b, resamples=2000)[0]
    assert (alone.level, together.level) == (pytest.approx(0.95), pytest.approx(0.995))
    assert together.low < alone.low < alone.high < together.high
    assert (together.low95, together.high95) == (alone.low, alone.high)


def test_a_comparison_says_what_is_real() -> None:
    a, b = [0.0] * 30, [1.0] * 29 + [0.0]
    told = compare({"m": a, "none": [None] * 30}, {"m": b, "none": [None] * 30})
    (one,) = told
    assert one.real
    assert sentence(one).startswith("m: B is higher: A 0, B 0.9667")
    (same,) = compare({"m": a}, {"m": a})
    assert sentence(same).startswith("m: not told apart")
    (few,) = compare({"m": a[:5]}, {"m": b[:5]})
    assert sentence(few).startswith("m: too few questions to tell")
    assert compare({"m": a}, {"m": b}) == compare({"m": a}, {"m": b}), "the same seed, the same intervals"
