"""What is measured of each answer, and how it becomes a figure for a set; no I/O. docs/evaluation.md defines every one.

Retrieval is judged by document: a document stands where its first passage stands among the sources, and later passages
of it do not count again (the maximum over its passages; Dai and Callan 2019, https://arxiv.org/abs/1905.09217). The
figures themselves come from ir-measures (https://ir-measur.es).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import ir_measures

from .dataset import Entry
from .ranks import percentile
from .texts import exact_match, rouge_l, token_f1, token_recall, without_marks

Values = dict[str, float | None]
_MARK = re.compile(r"\[(\d{1,3})\]")

TIMES = ("ttfb_ms", "ttft_ms", "retrieval_ms", "total_ms")
PERCENTILES = (50, 90, 95, 99)
LOWER_IS_BETTER = frozenset({"invalid_citations", "failed", *TIMES})


@dataclass(slots=True)
class Answered:
    """One question and what came of it. `sources` are those of the first `sources` frame and of later ones, in order;
    each has `name`, the document's as it was ingested. `failed` is what went wrong, otherwise empty. `variant` is that
    of the workers, `none` for those of no variant; of an answer that failed the one that it tried, and empty where it
    became no request."""

    id: str
    question: str
    language: str
    entry: Mapping[str, Any]
    failed: str = ""
    answer: str = ""
    sources: list[dict[str, Any]] = field(default_factory=list)
    cited: list[int] = field(default_factory=list)
    citations: list[dict[str, int]] = field(default_factory=list)
    tool_calls: int = 0
    finish_reason: str = ""
    fingerprint: str = ""
    variant: str = ""
    times: dict[str, int | None] = field(default_factory=dict)
    values: Values = field(default_factory=dict)
    judge: dict[str, Any] = field(default_factory=dict)

    @property
    def abstained(self) -> bool:
        """It ended in good order, cites nothing and has called no tool: nothing in it is backed by anything."""
        return not self.failed and not self.cited and not self.tool_calls and self.finish_reason in ("stop", "length")

    def as_map(self) -> dict[str, Any]:
        return {**asdict(self), "abstained": self.abstained}


def ranked(names: Iterable[str]) -> list[str]:
    """Documents in order of their first passage."""
    return list(dict.fromkeys(names))


def first_rank(one: Answered, relevant: Iterable[str]) -> int | None:
    """The place, from 1, of the first relevant document; None where there is none."""
    wanted = set(relevant)
    places = (at for at, name in enumerate(ranked(source["name"] for source in one.sources), 1) if name in wanted)
    return next(places, None)


def retrieval(
    runs: Mapping[str, Sequence[str]], relevant: Mapping[str, Mapping[str, int]], k: int
) -> dict[str, Values]:
    """recall, MRR, nDCG and hit rate (Success) at `k`, of each question that has relevant documents.

    Args:
        runs: the documents found for each question, best first, each once.
        relevant: the grade of each relevant document, by question.
    """
    wanted = {
        f"recall@{k}": ir_measures.R @ k,
        f"mrr@{k}": ir_measures.RR @ k,
        f"ndcg@{k}": ir_measures.nDCG @ k,
        f"hit@{k}": ir_measures.Success @ k,
        **{f"hit@{at}": ir_measures.Success @ at for at in (1, 5) if at < k},
    }
    names = {str(measure): name for name, measure in wanted.items()}
    judged = [ir_measures.Qrel(q, name, grade) for q, grades in relevant.items() for name, grade in grades.items()]
    scored = [
        ir_measures.ScoredDoc(q, name, float(len(found) - at))
        for q, found in runs.items()
        if q in relevant
        for at, name in enumerate(found)
    ]
    # A question that found nothing is in no run; it counts as 0 and does not disappear.
    values: dict[str, Values] = {q: dict.fromkeys(names.values(), 0.0) for q, grades in relevant.items() if grades}
    if judged and scored:
        for one in ir_measures.iter_calc(list(wanted.values()), judged, scored):
            values[one.query_id][names[str(one.measure)]] = float(one.value)
    return values


def measure(answers: Sequence[Answered], entries: Mapping[str, Entry], k: int) -> None:
    """Set `values` of every answer. A measure that a question says nothing about is None."""
    relevant = {one.id: entries[one.id].documents for one in answers if entries[one.id].documents}
    runs = {one.id: ranked(source["name"] for source in one.sources) for one in answers}
    found = retrieval(runs, relevant, k)
    empty: Values = {name: None for values in list(found.values())[:1] for name in values}
    for one in answers:
        entry = entries[one.id]
        one.values = {
            **(found.get(one.id) or empty),
            f"passage_hit@{k}": _passage_hit(one, entry, k),
            **_citing(one, entry),
            **_abstaining(one, entry),
            **_similarity(one, entry),
            "failed": float(bool(one.failed)),
            **{name: one.times.get(name) for name in TIMES},
        }


def _passage_hit(one: Answered, entry: Entry, k: int) -> float | None:
    """Whether one of the texts stands in one of the first `k` passages, as far as these are known."""
    if not entry.passages:
        return None
    there = ["".join(known_text(source).split()) for source in one.sources[:k]]
    wanted = ["".join(text.split()) for text in entry.passages]
    return float(any(text in passage for text in wanted for passage in there))


def known_text(source: Mapping[str, Any]) -> str:
    """A passage's text as far as it is known: all of it where it was read, otherwise its snippet."""
    return str(source.get("text") or source.get("snippet") or "")


def _citing(one: Answered, entry: Entry) -> Values:
    names = {source["n"]: source["name"] for source in one.sources}
    cited = [names.get(n, "") for n in one.cited]
    values: Values = {"citation_precision": None, "citation_recall": None, "citation_hit": None}
    if entry.documents:
        right = set(cited) & set(entry.documents)
        if cited:
            values["citation_precision"] = sum(name in entry.documents for name in cited) / len(cited)
        values["citation_recall"] = len(right) / len(entry.documents)
        values["citation_hit"] = float(bool(right))
    values["invalid_citations"] = _invalid(one)
    return values


def _invalid(one: Answered) -> float | None:
    """The share of an answer's marks that lead nowhere; None without marks.

    A mark is right where its number is that of a source and stands in `cited`, and `citations` says that it is there.
    """
    offered = {source["n"] for source in one.sources}
    placed = {(mark["start"], mark["end"]): mark["n"] for mark in one.citations}
    seen = {(mark.start(), mark.end()): int(mark[1]) for mark in _MARK.finditer(one.answer)}
    places = seen.keys() | placed.keys()
    if not places:
        return None
    right = sum(
        seen.get(place) == placed.get(place) and seen[place] in offered and seen[place] in one.cited
        for place in places
        if place in seen
    )
    return 1 - right / len(places)


def _abstaining(one: Answered, entry: Entry) -> Values:
    if one.failed:
        return {
            "right_abstention": 0.0 if entry.unanswerable else None,
            "answered": None if entry.unanswerable else 0.0,
        }
    if entry.unanswerable:
        return {"right_abstention": float(one.abstained), "answered": None}
    return {"right_abstention": None, "answered": float(not one.abstained)}


def _similarity(one: Answered, entry: Entry) -> Values:
    measures = {"exact_match": exact_match, "token_f1": token_f1, "token_recall": token_recall, "rouge_l": rouge_l}
    if not entry.answers:
        return dict.fromkeys(measures)
    said = without_marks(one.answer)
    return {name: of(said, entry.answers, one.language) for name, of in measures.items()}


def means(answers: Sequence[Answered]) -> dict[str, dict[str, float]]:
    """Each measure's mean over the questions that have a value, and how many those are."""
    names = dict.fromkeys(name for one in answers for name in one.values)
    figures: dict[str, dict[str, float]] = {}
    for name in names:
        values = [value for one in answers if (value := one.values.get(name)) is not None]
        if values:
            figures[name] = {"mean": sum(values) / len(values), "questions": len(values)}
    return figures


def percentiles(answers: Sequence[Answered]) -> dict[str, dict[str, float]]:
    """p50, p90, p95, p99 of each time in milliseconds, over the answers that did not fail."""
    told: dict[str, dict[str, float]] = {}
    for name in TIMES:
        values = [value for one in answers if not one.failed and (value := one.times.get(name)) is not None]
        if values:
            told[name] = {f"p{p}": percentile(values, p) for p in PERCENTILES}
    return told


def figures(answers: Sequence[Answered]) -> dict[str, Any]:
    """What is told of all of these answers together."""
    return {
        "questions": len(answers),
        "failed": sum(bool(one.failed) for one in answers),
        "abstained": sum(one.abstained for one in answers),
        "measures": means(answers),
        "percentiles": percentiles(answers),
    }
