"""What a run found out, in words for people and as JUnit XML for machines."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from .promise import Outcome

WIDTH = 110
_SPEC = "proto/README.md section"
_INDENT = " " * 10


def name_of(outcome: Outcome) -> str:
    """The promise's name, as a sentence."""
    return outcome.promise.name.replace("_", " ")


def line(outcome: Outcome) -> str:
    """One outcome as it is shown while the kit runs."""
    once = f"; once, and not again: {_plain(outcome.seen)}" if outcome.verdict == "kept" and outcome.seen else ""
    return f"{outcome.verdict:<9} {name_of(outcome)}  ({outcome.promise.section}, {outcome.seconds:.1f} s{once})"


def explained(outcome: Outcome) -> str:
    """What was promised where, and what was seen instead."""
    word = {"broken": "seen instead", "advice": "what its users miss"}.get(outcome.verdict, "why not")
    where = "" if outcome.section == outcome.promise.section else f" (section {outcome.section})"
    promised = f"promised ({_SPEC} {outcome.promise.section}): {outcome.promise.text}"
    paragraphs = [promised, f"{word}{where}: {_plain(outcome.seen)}"]
    wrapped = [
        textwrap.fill(one, WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT + "  ") for one in paragraphs
    ]
    return "\n".join([f"{outcome.verdict:<9} {name_of(outcome)}", *wrapped])


def summary(outcomes: Sequence[Outcome]) -> str:
    """Everything that was not simply kept, and how many of each."""
    counts: Counter[str] = Counter(outcome.verdict for outcome in outcomes)
    ranks = ("not seen", "advice", "broken")
    worth = sorted((one for one in outcomes if one.verdict != "kept"), key=lambda one: ranks.index(one.verdict))
    told = [explained(outcome) for outcome in worth]
    verdicts = ("kept", "broken", "advice", "not seen")
    counted = ", ".join(f"{counts[verdict]} {verdict}" for verdict in verdicts if counts[verdict])
    again = [f"--only {outcome.promise.name}" for outcome in worth if outcome.verdict == "broken"]
    hint = [f"To try {'it' if len(again) == 1 else 'one'} again: {again[0]}"] if again else []
    return "\n\n".join([*told, *hint, f"{len(outcomes)} promises: {counted}."])


def write_junit(path: Path, stage: str, outcomes: Sequence[Outcome]) -> None:
    """JUnit XML: a broken promise is a failure, advice and what was not seen are skipped with their reason."""
    failures = sum(one.verdict == "broken" for one in outcomes)
    skipped = sum(one.verdict in ("advice", "not seen") for one in outcomes)
    counts = {"tests": len(outcomes), "failures": failures, "errors": 0, "skipped": skipped}
    suite = ElementTree.Element("testsuite", {"name": f"baton conformance {stage}"})
    suite.attrib |= {name: str(count) for name, count in counts.items()}
    suite.attrib["time"] = f"{sum(one.seconds for one in outcomes):.3f}"
    for one in outcomes:
        attributes = {"classname": f"conformance.{stage}", "name": name_of(one), "time": f"{one.seconds:.3f}"}
        case = ElementTree.SubElement(suite, "testcase", attributes)
        if one.verdict == "broken":
            failure = ElementTree.SubElement(case, "failure", {"type": f"{_SPEC} {one.section}"})
            failure.set("message", _plain(one.seen))
            failure.text = explained(one)
        elif one.verdict == "kept" and one.seen:
            ElementTree.SubElement(case, "system-out").text = line(one)
        elif one.verdict != "kept":
            ElementTree.SubElement(case, "skipped", {"message": _plain(f"{one.verdict}: {one.seen}")})
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def _plain(text: str) -> str:
    """Without what XML cannot carry and a terminal would obey; a worker may have said anything."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)
