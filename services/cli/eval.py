"""`baton eval`: asks the questions of a set like a user, and measures the answers."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import USAGE, bounded, check_writable, socket_url

# What measures takes a second to load, and other commands should not wait.
if TYPE_CHECKING:
    from evaluation.comparing import Difference

OK, FAILED, CANNOT = 0, 1, 2


def register(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "eval",
        help="ask an evaluation set and measure the answers",
        description="Asks every question of a set over the WebSocket, like a user, and reports how well documents are "
        "found, cited and answered from, and how long it takes. Without --url a whole system is started for it on "
        "embedded parts, with the documents of --corpus. docs/evaluation.md has the format and every definition.",
        epilog="Exit status: 0 asked and measured, 1 some questions failed or missed their variant, "
        "2 it could not be run.",
    )
    parser.add_argument("datasets", nargs="*", metavar="DATASET.jsonl", help="the set, one question in each line")
    parser.add_argument("--url", help="WebSocket or page of a running gateway")
    parser.add_argument("--token", default="", help="token for a gateway that wants one")
    parser.add_argument("--corpus", metavar="FOLDER", help="documents to ingest first")
    parser.add_argument("--concurrency", type=bounded(1, 64), default=4, metavar="N", help="questions at a time [4]")
    parser.add_argument(
        "--top-k", type=bounded(1, 50), default=10, metavar="K", help="passages to ask for, and k of the measures [10]"
    )
    parser.add_argument("--limit", type=bounded(1, 100_000), metavar="N", help="so many questions, drawn by --seed")
    parser.add_argument("--seed", type=bounded(0, 2**53), default=1, metavar="N", help="of all that is drawn [1]")
    parser.add_argument(
        "--judge", action="store_true", help="have a model judge the answers too (BATON_JUDGE_URL, BATON_JUDGE_MODEL)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.html", help="write the report there")
    parser.add_argument("--json", type=Path, metavar="FILE.json", help="write the record there, for programs")
    several = parser.add_argument_group(
        "comparing",
        "Two configurations, each an address or settings (BATON_EMBEDDER=none,BATON_RETRIEVER=… or a file).",
    )
    several.add_argument("--a", metavar="SETTINGS", help="the first; `default` for nothing special")
    several.add_argument("--b", metavar="SETTINGS", help="the second")
    several.add_argument(
        "--variants",
        metavar="A,B",
        help="ask the gateway of --url until each of its variants has answered each question; `none` is no variant",
    )
    several.add_argument(
        "--tries", type=bounded(1, 1000), metavar="N", help="with --variants, times that a question is asked [40]"
    )
    several.add_argument(
        "--compare", nargs=2, type=Path, metavar=("A.json", "B.json"), help="two records; asks nothing"
    )
    several.add_argument("--repeat", type=Path, metavar="RECORD.json", help="run a recorded evaluation again")
    parser.set_defaults(func=main)


def main(arguments: argparse.Namespace) -> int:
    from evaluation.dataset import BadDataset
    from evaluation.record import BadRecord
    from evaluation.replay import CannotAsk
    from evaluation.running import interruptible
    from services.common.settings import SettingsError

    if problem := _problem(arguments):
        print(f"baton eval: {problem}", file=sys.stderr)
        return USAGE
    runs: list[dict[str, Any]] = []
    differences: list[Difference] = []
    notes: list[str] = []
    try:
        for place in filter(None, (arguments.json, arguments.out)):
            check_writable(place)
        try:
            with interruptible():
                differences = _work(arguments, runs, notes)
        finally:  # what is done is written, also where the rest cannot be had
            if runs:
                _write(arguments, runs, differences, notes)
    except (BadDataset, BadRecord, CannotAsk, SettingsError, OSError) as error:
        print(f"baton eval: {error}", file=sys.stderr)
        return CANNOT
    return FAILED if any(run["figures"]["all"]["failed"] or run.get("unreached") for run in runs) else OK


def _problem(arguments: argparse.Namespace) -> str:
    ways = [bool(arguments.datasets), bool(arguments.compare), bool(arguments.repeat)]
    if sum(ways) != 1:
        return "give one of DATASET.jsonl, --compare A.json B.json, --repeat RECORD.json"
    if bool(arguments.a) != bool(arguments.b):
        return "--a and --b go together"
    if (arguments.compare or arguments.repeat) and (given := _given(arguments)):
        return f"{given} changes nothing about a record: leave it out, or give a DATASET.jsonl"
    if arguments.a and (arguments.url or not arguments.datasets):
        return "--a and --b take a DATASET.jsonl, and no --url: an address can be one of them"
    if arguments.variants and not arguments.url:
        return "--variants are those of a running gateway: name it with --url"
    if arguments.tries and not arguments.variants:
        return "--tries is about --variants A,B"
    variants = _variants(arguments)
    if len(variants) > 2 or len(set(variants)) < len(variants):
        return f"--variants {arguments.variants}: expected one or two different ones, as in none,b"
    return ""


def _variants(arguments: argparse.Namespace) -> list[str]:
    return [name.strip() for name in arguments.variants.split(",")] if arguments.variants else []


def _given(arguments: argparse.Namespace) -> str:
    """An option that says what to ask of what, where it was given."""
    usual = {
        "url": None,
        "corpus": None,
        "concurrency": 4,
        "top_k": 10,
        "limit": None,
        "judge": False,
        "variants": None,
    }
    names = [name for name, value in usual.items() if getattr(arguments, name) != value]
    return f"--{names[0].replace('_', '-')}" if names else ""


def _work(arguments: argparse.Namespace, runs: list[dict[str, Any]], notes: list[str]) -> list[Difference]:
    """Adds each record to `runs` as soon as there is one, and to `notes` what is to be known of them; gives the
    differences of two."""
    from evaluation.comparing import compare
    from evaluation.evaluate import Options, evaluate, options_of, with_target
    from evaluation.reaching import TRIES
    from evaluation.record import paired_values, read_record
    from evaluation.repeating import repeated, unlike

    if arguments.compare:
        runs += [read_record(path) for path in arguments.compare]
    elif arguments.repeat:
        before = read_record(arguments.repeat)
        again = evaluate(options_of(before), token=arguments.token, keep=runs.append)
        notes += repeated(before, again)
        return []
    else:
        options = Options(
            datasets=[str(Path(path).absolute()) for path in arguments.datasets],
            url=socket_url(arguments.url) if arguments.url else "",
            corpus=str(Path(arguments.corpus).absolute()) if arguments.corpus else "",
            top_k=arguments.top_k,
            concurrency=arguments.concurrency,
            limit=arguments.limit,
            seed=arguments.seed,
            judge=arguments.judge,
        )
        sides = [options]
        if arguments.a:
            sides = [options if one == "default" else with_target(options, one) for one in (arguments.a, arguments.b)]
        elif variants := _variants(arguments):
            sides = [
                replace(options, name=f"variant {one}", variant=one, tries=arguments.tries or TRIES) for one in variants
            ]
        for side in sides:
            evaluate(side, token=arguments.token, keep=runs.append)
        if len(sides) == 1:
            return []
        for run, letter in zip(runs, "AB", strict=True):
            run["name"] = run["name"] if run["name"] != run["dataset"]["name"] else f"{run['name']} {letter}"
    a, b = paired_values(*runs)
    notes += unlike(*runs)
    return compare(a, b, seed=arguments.seed)


def _write(
    arguments: argparse.Namespace, runs: list[dict[str, Any]], differences: list[Difference], notes: list[str]
) -> None:
    from evaluation.comparing import sentence
    from evaluation.page import page
    from evaluation.reaching import unreached
    from evaluation.record import SCHEMA, as_json
    from evaluation.text import table

    notes = [*notes, *(said for run in runs for said in unreached(run))]
    if arguments.json:
        told = runs[0] if len(runs) == 1 else {"schema": SCHEMA, "runs": runs, "differences": differences}
        _save(arguments.json, as_json({**told, "notes": notes}))
    if arguments.out:
        _save(arguments.out, page(runs, differences, notes))
    for run in runs:
        print(f"\n{table(run)}")
    if notes:
        print("", *notes, sep="\n")
    if differences:
        print("\nB beside A:", *map(sentence, differences), sep="\n  ")
    for place in filter(None, (arguments.json, arguments.out)):
        print(f"written: {place}")


def _save(path: Path, text: str) -> None:
    # Half of a character, as a model may write one, is its escape in JSON too.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
