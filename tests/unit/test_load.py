"""The load test's own rules: what users do, how times are counted, what is called the limit."""

from __future__ import annotations

import asyncio
import itertools
import statistics
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from bench.load.report import Run, page, record, text
from bench.load.scenario import BadScenario, Scenario, read
from bench.load.tally import Tally, Tried
from bench.load.users import Crowd, Question, User
from bench.load.verdict import verdict
from bench.load.watch import CLIENT, OTHERS, Usage
from bench.sockets import Address, Frame, Socket
from evaluation.ranks import percentile

QUIET = {"gateway": Usage(1, 0.3, 0.3), CLIENT: Usage(1, 0.1, 0.1), OTHERS: Usage()}


def held(**fields: object) -> Tally:
    tally = Tally(ttfb=[0.02] * 100, ttft=[0.1] * 100, gaps=[0.03] * 1000)
    tally.outcomes["stop"] = 100
    for name, value in fields.items():
        setattr(tally, name, value)
    return tally


def test_questions_come_by_a_schedule_of_the_seed_and_as_often_as_wanted() -> None:
    scenario = Scenario(running=200, answer_s=10, follow_ups=0.2, duration_s=600, warm_up_s=0)
    arrivals = list(scenario.arrivals())
    assert arrivals == sorted(arrivals) == list(replace(scenario, connections=9_000).arrivals())
    assert arrivals != list(replace(scenario, seed=2).arrivals())
    assert 15 < len(arrivals) / 600 < 17  # 20 a second, of which a fifth are follow-ups
    pauses = [after - before for before, after in itertools.pairwise(arrivals)]
    assert 0.9 < statistics.stdev(pauses) / statistics.mean(pauses) < 1.1, "exponential pauses, as of independent users"


def test_a_scenario_file_is_read_and_what_it_leaves_out_has_its_default(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text('connections = 10\nrunning = 2\nthink_s = 1\nquestions = ["年假?"]\n', encoding="utf-8")
    assert read(path) == Scenario(connections=10, running=2, think_s=1, questions=("年假?",))


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("conections = 1", "unknown conections; there are connections, running"),
        ('running = "many"', "running: expected a whole number, got 'many'"),
        ("running = true", "running: expected a whole number, got True"),
        ("think_s = 'long'", "think_s: expected a number"),
        ("questions = 'one'", "questions: expected a list of texts"),
        ("connections = 1\nrunning = 2", "need as many connections"),
        ("reconnects = 2", "reconnects: expected a share from 0 to 0.95, got 2"),
        ("duration_s = 0", "duration_s: expected more than 0"),
        ("questions = []", "questions: expected at least one"),
        ("=", "no TOML"),
    ],
)
def test_a_wrong_scenario_is_refused_with_what_is_wrong(tmp_path: Path, toml: str, message: str) -> None:
    path = tmp_path / "s.toml"
    path.write_text(toml)
    with pytest.raises(BadScenario) as refused:
        read(path)
    assert str(path) in str(refused.value)
    assert message in str(refused.value)


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(n) for n in range(1000, 0, -1)]
    assert [percentile(values, share) for share in (50, 95, 99.9, 100)] == [500, 950, 999, 1000]
    assert percentile([], 50) == 0
    assert percentile([7], 1) == 7


@pytest.mark.parametrize(
    ("fields", "unfinished", "broken"),
    [
        ({}, 0, ""),
        ({"wrong": ["r1: 4 was expected, 6 came"]}, 0, "1 frames lost, repeated or out of order: r1: 4 was expected"),
        ({}, 2, "2 answers did not end"),
        ({"ttfb": [0.02] * 94 + [0.5] * 6}, 0, "p95 of the first frame is 500 ms (objective: 300 ms)"),
        ({"ttft": [1.2] * 100}, 0, "p95 of the first token is 1,200 ms"),
    ],
)
def test_what_did_not_hold_is_named(fields: dict[str, object], unfinished: int, broken: str) -> None:
    found = verdict(held(**fields), unfinished, QUIET, 2).broken
    assert (not found) if not broken else broken in found[0]


def test_the_first_limit_is_named_with_what_to_do() -> None:
    def limit(tally: Tally, **usage: Usage) -> str:
        return verdict(tally, 0, {**QUIET, **usage}, 2).limit

    refused = held()
    refused.outcomes["refused: overloaded"] = 5
    assert "5 questions were refused with 'overloaded'" in limit(refused)
    assert "other processes 1.50" in limit(held(), **{OTHERS: Usage(cores=1.5)})
    assert "one gateway process: 0.95 of one core; start more replicas of gateway" in limit(
        held(), gateway=Usage(1, 0.95, 0.95)
    )
    assert "run the test from several machines" in limit(held(), **{CLIENT: Usage(1, 0.95, 0.95)})
    assert limit(held(ttft=[4.0] * 100)).startswith("places in workers: questions wait although no process is busy")
    assert limit(held()).startswith("not reached; nearest is the CPU of gateway: 0.30")
    assert "not on this machine" in verdict(held(), 0, {}, 2).limit


def test_a_report_has_the_figures_for_people_and_for_programs() -> None:
    tally = held(begun=[(float(n), 0.1) for n in range(75)])
    run = Run(Scenario(), tally, 0, QUIET, verdict(tally, 0, QUIET, 2), "<b>here</b>")
    assert "no frame lost; 0 answers did not end" in text(run)
    assert record(run)["times_ms"]["first token"]["p95"] == 100
    shown = page([run])
    assert "<b>here" not in shown
    assert shown.count("<svg") == 3


def test_answers_are_told_by_variant_where_there_are_several() -> None:
    async def scenario() -> Tally:
        crowd = Crowd(Scenario(connections=1, running=1, follow_ups=0), Address(1))
        user, socket = User(crowd), cast(Socket, None)
        for tries, last in (
            ("b", Frame("done", "r", 2, finish_reason="stop", variant="b")),
            (None, Frame("done", "r", 2, finish_reason="stop")),
            ("b", Frame("error", "r", 2, code="internal")),
        ):
            user.question = Question(0.0, "?", "", "r", measured=True, breaks_at=0)
            for frame in (Frame("accepted", "r", 0, variant=tries), Frame("answer_chunk", "r", 1), last):
                user._receive(socket, frame, 0.0)
        return crowd.tally

    tally = asyncio.run(scenario())
    outcomes = {name: dict(one.outcomes) for name, one in tally.variants.items()}
    assert outcomes == {"b": {"stop": 1, "internal": 1}, "none": {"stop": 1}}
    assert tally.variants["b"].ttft == tally.ttft[::2]
    tally = held(
        variants={
            "b": Tried(Counter(stop=9, internal=1), [0.02], [0.3]),
            "none": Tried(Counter(stop=90), [0.02], [0.1]),
        }
    )
    run = Run(Scenario(), tally, 0, QUIET, verdict(tally, 0, QUIET, 2), "here")
    rows = [line.split() for line in text(run).splitlines() if line.startswith(("b ", "none "))]
    assert rows[0] == ["b", "10", "1", "20.0", "ms", "20.0", "ms", "300.0", "ms", "300.0", "ms"]
    assert [row[:2] for row in rows] == [["b", "10"], ["none", "90"]]
    assert record(run)["variants"]["b"]["times_ms"]["first token"]["p95"] == 300
    del tally.variants["b"]
    assert "variant" not in text(run)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ws://127.0.0.1:8000/ws", Address(8000)),
        ("wss://baton.example/chat/ws", Address(443, "baton.example", "/chat/ws", True)),
        ("http://baton.example/ws", None),
    ],
)
def test_an_address_is_that_of_a_websocket(url: str, address: Address | None) -> None:
    if address is None:
        with pytest.raises(ValueError, match="expected ws://"):
            Address.of(url)
    else:
        assert Address.of(url) == address
