"""How many people a Baton can serve: open connections, questions by an open-loop schedule, every frame checked.

    make load                                  # a system started for it: 5,000 connections, 200 answers at once
    make load URL=wss://baton.example/ws       # one that runs; BATON_TOKEN is its users' token
    make load SCENARIO=my.toml ARGS=--find-limit

Without --url a Baton is started here with the demo's documents and a generator that writes at the scenario's pace.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench.sockets import Address, allow_open_files
from evaluation.replay import CannotAsk
from evaluation.running import Running, ingest, interruptible, parse_settings, started

from .report import Run, page, record, steps, text
from .scenario import BadScenario, Scenario, read
from .users import Crowd
from .verdict import verdict
from .watch import Watch

DOCUMENTS = Path(__file__).parents[2] / "examples" / "hr_assistant" / "documents"
SPARE_FILES = 200
MOST_CONCURRENCY = 4_096
FINISH_S = 60.0
GROWTH = 1.5
MOST_STEPS = 12
OWN = {"BATON_RETRIEVER": "local", "BATON_GENERATOR": "bench.load.paced_generator:open_generator"}
"""Of a system that is started here. Milvus Lite is for trying out, and would be what is measured."""


@contextlib.contextmanager
def own_system(scenario: Scenario, settings: dict[str, str]) -> Iterator[Running]:
    """Raises CannotAsk."""
    pace = {
        "LOAD_TOKENS": str(max(1, round(scenario.answer_s * scenario.tokens_per_s))),
        "LOAD_TOKENS_PER_S": str(scenario.tokens_per_s),
        "BATON_CONCURRENCY": str(min(MOST_CONCURRENCY, scenario.connections)),
        "BATON_MAX_CONNECTIONS": str(scenario.connections + SPARE_FILES),
    }
    with started({**OWN, **pace, **settings}) as running:
        ingest(running, DOCUMENTS)
        yield running


async def load(scenario: Scenario, address: Address, where: str, watched: bool) -> Run:
    """Raises OSError: not everybody could connect."""
    crowd, watch = Crowd(scenario, address), Watch()
    looking = asyncio.create_task(watch.look())
    try:
        await crowd.gather()
        asking = asyncio.create_task(crowd.ask())
        await asyncio.sleep(scenario.warm_up_s)
        watch.begin()
        await asking
        watch.end()
        unfinished = await crowd.finish(FINISH_S + scenario.answer_s)
    finally:
        looking.cancel()
    usage = watch.usage if watched else {}
    cores = len(os.sched_getaffinity(0))
    return Run(scenario, crowd.tally, unfinished, usage, verdict(crowd.tally, unfinished, usage, cores), where)


def until_the_limit(scenario: Scenario, address: Address, where: str, watched: bool) -> list[Run]:
    """More and more answers at once, until something does not hold or no connection is left."""
    runs: list[Run] = []
    while len(runs) < MOST_STEPS:
        runs.append(asyncio.run(load(scenario, address, where, watched)))
        print(steps(runs[-1:]).splitlines()[-1], flush=True)
        more = round(scenario.running * GROWTH)
        if runs[-1].verdict.broken or more > scenario.connections:
            break
        scenario = replace(scenario, running=more)
    return runs


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="", help="WebSocket of a Baton that runs (default: one is started)")
    parser.add_argument("--token", default=os.environ.get("BATON_TOKEN", ""), help="its token [$BATON_TOKEN]")
    parser.add_argument("--scenario", type=Path, metavar="FILE.toml", help="what the users do (docs/load.md)")
    parser.add_argument("--connections", type=int, help="instead of the scenario's")
    parser.add_argument("--running", type=int, help="answers at once, instead of the scenario's")
    parser.add_argument("--duration", type=float, help="seconds that are measured, instead of the scenario's")
    parser.add_argument("--settings", default="", metavar="BATON_A=1,…", help="of the system that is started")
    parser.add_argument("--find-limit", action="store_true", help="raise the load until an objective does not hold")
    parser.add_argument("--out", type=Path, metavar="FILE.html", help="write a page with plots there")
    parser.add_argument("--json", type=Path, metavar="FILE.json", help="write the figures there")
    arguments = parser.parse_args(argv)
    try:
        scenario = _scenario(arguments)
        allow_open_files(scenario.connections + SPARE_FILES)
        with interruptible():
            runs = _runs(arguments, scenario)
    except KeyboardInterrupt:
        return 130
    except (BadScenario, CannotAsk, ValueError, OSError) as error:
        print(f"load: {error}", file=sys.stderr)
        return 2
    print(f"\n{text(runs[-1])}")
    if len(runs) > 1:
        print(f"\n{steps(runs)}")
    for path, content in (
        (arguments.out, page(runs)),
        (arguments.json, json.dumps([record(run) for run in runs], indent=1)),
    ):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
            print(f"written: {path}")
    return 1 if runs[0].verdict.broken else 0


def _scenario(arguments: argparse.Namespace) -> Scenario:
    scenario = read(arguments.scenario) if arguments.scenario else Scenario()
    given = {
        "connections": arguments.connections,
        "running": arguments.running,
        "duration_s": arguments.duration,
    }
    return replace(scenario, **{name: value for name, value in given.items() if value is not None})


def _runs(arguments: argparse.Namespace, scenario: Scenario) -> list[Run]:
    many = until_the_limit if arguments.find_limit else lambda *of: [asyncio.run(load(*of))]
    if arguments.url:
        return many(scenario, Address.of(arguments.url, arguments.token), arguments.url, False)
    settings = parse_settings(arguments.settings) if arguments.settings else {}
    with own_system(scenario, settings) as running:
        where = "a system started for the test"
        print(f"{running.url}: {scenario.connections:,} connections", flush=True)
        return many(scenario, Address.of(running.url), where, True)


if __name__ == "__main__":
    sys.exit(main())
