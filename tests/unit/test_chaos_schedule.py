"""The schedule of `make chaos`: from seed and duration alone, and never more away at once than promised."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chaos.habits import habit
from tests.chaos.schedule import FREEZE_S, MOST_AWAY, NATS_SPACING_S, SERVICES, WORKERS, Fault, plan

seeds = st.integers(0, 10**9)
durations = st.floats(10, 400)
few = settings(max_examples=30)


@few
@given(seeds, durations, st.booleans())
def test_a_schedule_follows_from_seed_and_duration(seed: int, duration_s: float, cluster: bool) -> None:
    assert plan(seed, duration_s, cluster=cluster) == plan(seed, duration_s, cluster=cluster)


def test_another_seed_is_another_schedule() -> None:
    assert plan(1, 600) != plan(2, 600)


@few
@given(seeds, durations, st.booleans())
def test_every_fault_begins_and_is_undone_while_clients_ask(seed: int, duration_s: float, cluster: bool) -> None:
    faults = plan(seed, duration_s, cluster=cluster)
    assert all(0 < fault.at_s <= fault.at_s + fault.for_s < duration_s for fault in faults)
    assert faults == sorted(faults, key=lambda fault: fault.at_s)


@few
@given(seeds, durations, st.booleans())
def test_never_two_processes_of_a_service_are_away_and_few_altogether(
    seed: int, duration_s: float, cluster: bool
) -> None:
    faults = plan(seed, duration_s, cluster=cluster)
    for fault in faults:
        away = [one.service for one in faults if one.at_s <= fault.at_s < one.over_s and one.service != "nats"]
        assert len(away) == len(set(away)) <= MOST_AWAY


@few
@given(seeds, durations, st.booleans())
def test_one_nats_server_is_away_at_a_time_and_the_next_only_after_a_pause(
    seed: int, duration_s: float, cluster: bool
) -> None:
    lost = [fault for fault in plan(seed, duration_s, cluster=cluster) if fault.service == "nats"]
    assert all(later.at_s - earlier.over_s > NATS_SPACING_S[cluster] for earlier, later in itertools.pairwise(lost))
    assert {fault.target for fault in lost} <= ({"nats-0", "nats-1", "nats-2"} if cluster else {"nats"})


@pytest.mark.parametrize("cluster", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_ten_minutes_have_every_kind_of_fault_for_every_service(seed: int, cluster: bool) -> None:
    found = {(fault.kind, fault.service) for fault in plan(seed, 600, cluster=cluster)}
    wanted = {(kind, service) for kind in ("kill", "term") for service in (*SERVICES, "nats")}
    assert found == wanted | {(kind, worker) for kind in ("freeze", "freeze+term") for worker in WORKERS}


@few
@given(seeds)
def test_a_frozen_worker_sleeps_through_a_redelivery(seed: int) -> None:
    frozen = [fault for fault in plan(seed, 300) if fault.kind == "freeze"]
    assert frozen
    assert all(FREEZE_S[0] <= fault.for_s <= FREEZE_S[1] and fault.for_s > 5 for fault in frozen)


def test_a_fault_prints_as_one_line() -> None:
    assert str(Fault(12.5, "freeze", "tools-1", 7.0)) == "   12.5 s  freeze      tools-1      for 7.0 s"


@few
@given(seeds, st.integers(0, 100), st.integers(0, 1000))
def test_a_client_s_habits_follow_from_seed_and_number(seed: int, client: int, number: int) -> None:
    one = habit(seed, client, number, 30)
    assert one == habit(seed, client, number, 30)
    assert 0 <= one.question < 30
    assert one.second is None or one.second.from_seq < one.second.after


def test_clients_do_everything_that_clients_do() -> None:
    habits = [habit(1, client, number, 30) for client in range(10) for number in range(20)]
    leaves = [leave for one in habits for leave in one.leaves]
    assert any(one.slow_s for one in habits)
    assert any(one.cancel_after is not None for one in habits)
    assert any(one.second is not None for one in habits)
    assert any(one.again for one in habits)
    assert any(leave.rewind for leave in leaves)
    assert any(leave.by_query for leave in leaves)
    assert any(leave.stay for leave in leaves)
