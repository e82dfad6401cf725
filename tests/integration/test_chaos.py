"""The short form of `make chaos`: a fixed seed, real processes, a few seconds of faults, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.report import Run
from tests.chaos.run import run_chaos
from tests.chaos.schedule import plan

CLIENTS = 12
QUESTIONS = 10


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("cluster", "seed", "duration_s", "faults"),
    [
        (False, 7371, 10.5, {"kill gateway", "freeze+term generator", "kill nats"}),
        (True, 47, 6.5, {"kill gateway", "kill nats", "kill generator"}),
    ],
    ids=["one nats-server", "three nats-servers"],
)
def test_under_faults_every_answer_is_whole_in_order_and_the_undisturbed_one(
    tmp_path: Path, cluster: bool, seed: int, duration_s: float, faults: set[str]
) -> None:
    lines: list[str] = []
    run = Run(seed, duration_s, CLIENTS, cluster, crowds=0)
    schedule = plan(seed, duration_s, cluster=cluster, every_s=0.8)
    assert {f"{fault.kind} {fault.service}" for fault in schedule} == faults
    verdict = run_chaos(run, schedule, tmp_path, lines.append, number=QUESTIONS, milvus=False)
    assert verdict.passed, "\n".join(lines)
    assert verdict.answers >= CLIENTS, "\n".join(lines)
