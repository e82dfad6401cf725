"""What two records have in common and what not, in sentences: of a repetition, and of a comparison; no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from .measures import TIMES
from .running import OWN

_MOST_PARTS = 10


def repeated(before: Mapping[str, Any], again: Mapping[str, Any]) -> list[str]:
    """How far a repetition gave the same, and in what it differs."""
    first = {one["id"]: one for one in before["results"]}
    both = [(first[one["id"]], one) for one in again["results"] if one["id"] in first]
    answers = sum(a["answer"] == b["answer"] for a, b in both)
    sources = sum([s["id"] for s in a["sources"]] == [s["id"] for s in b["sources"]] for a, b in both)
    prints = sum(a["fingerprint"] == b["fingerprint"] for a, b in both)
    told = [
        f"Repeated: of {len(both)} questions {answers} have the same answer, {sources} the same sources in the same "
        f"order, {prints} the same fingerprint."
    ]
    changed = Counter(part for a, b in both for part in _parts_changed(a["fingerprint"], b["fingerprint"]))
    for (name, was, now), count in changed.most_common(_MOST_PARTS):
        told.append(f"{count} have another {name}: {was}, now {now}.")
    told += [f"Baton's {name} was {was}, is now {now}." for name, was, now in _changed(before["baton"], again["baton"])]
    told += [
        f"{name} was {was}, is now {now}."
        for name, was, now in _changed(before["settings"], again["settings"])
        if name not in OWN
    ]
    return told + [f"{name} was {was}, is now {now}." for name, was, now in _changed(_means(before), _means(again))]


def unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What a reader of a comparison has to know: where the records are not about the same."""
    told = []
    ids, others = ({result["id"] for result in run["results"]} for run in (one, other))
    if ids != others:
        told.append(
            f"A has {len(ids)} questions and B {len(others)}: the differences are of the {len(ids & others)} that both "
            "have, the figures of each run of all of its own."
        )
    k, other_k = (run["options"].get("top_k") for run in (one, other))
    if k != other_k:
        told.append(f"A asked for {k} passages and B for {other_k}: measures at another k are not compared.")
    models = [(run["judge"].get("model"), run["judge"].get("prompts")) for run in (one, other)]
    if all(model for model, _ in models) and models[0] != models[1]:
        told.append(
            f"A was judged by {models[0][0]} and B by {models[1][0]}, or with other prompts: what they judged is not "
            "comparable."
        )
    return told


def _parts_changed(was: str, now: str) -> Iterator[tuple[str, str, str]]:
    parts = [dict(part.split("=", 1) for part in text.split() if "=" in part) for text in (was, now)]
    return _changed(*parts)


def _changed(was: Mapping[str, str], now: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for name in dict.fromkeys([*was, *now]):
        if was.get(name) != now.get(name):
            yield name, was.get(name) or "nothing", now.get(name) or "nothing"


def _means(run: Mapping[str, Any]) -> dict[str, str]:
    measures = run["figures"]["all"]["measures"]
    return {name: f"{one['mean']:.3f}" for name, one in measures.items() if name not in TIMES}
