"""Turns and load: the logic of admission that needs no server."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.waiting import StreamState
from services.gateway.admission import FEW_SHARE, MANY_SHARE, Load
from services.gateway.feeder import turns

LINES = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 6))


@given(LINES, st.sampled_from(["", *"abcdefghz"]), st.integers(0, 20))
def test_nobody_has_a_second_turn_while_somebody_waits_for_the_first(
    line: dict[str, int], after: str, room: int
) -> None:
    chosen = turns(line, after, room)
    assert len(chosen) == min(room, sum(line.values()))
    had = Counter(chosen)
    assert all(had[lane] <= count for lane, count in line.items())
    still_waiting = [had[lane] for lane, count in line.items() if had[lane] < count]
    assert max(had.values(), default=0) <= min(still_waiting, default=room) + 1


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 6), min_size=1), st.integers(1, 3))
def test_with_room_for_few_everybody_still_has_a_turn(line: dict[str, int], room: int) -> None:
    after, served = "", set()
    for _ in range(len(line)):
        chosen = turns(line, after, room)
        served |= set(chosen)
        after = chosen[-1]
    assert served == set(line)


def _load(*, limit: int = 100, work: int = 0, waiting: int = 0, per_second: int = 0) -> Load:
    load = Load(limit)
    for second in range(20):
        load.observe(StreamState(work, per_second * second), StreamState(waiting, 0), float(second))
    return load


def test_the_queue_is_full_for_who_has_many_before_it_is_for_who_has_few() -> None:
    assert not _load(work=60, waiting=9).full(MANY_SHARE)
    assert _load(work=60, waiting=10).full(MANY_SHARE)
    assert not _load(work=60, waiting=29).full(FEW_SHARE)
    assert _load(work=60, waiting=30).full(FEW_SHARE)


def test_what_is_added_between_two_observations_counts() -> None:
    load = _load(work=69)
    load.enter()
    assert load.full(MANY_SHARE)
    load.settle(stored=False)
    assert not load.full(MANY_SHARE)


@pytest.mark.parametrize("arrives", ["before the look", "while it is looked", "after the look"])
def test_what_is_on_its_way_while_the_streams_are_looked_at_is_not_missed(arrives: str) -> None:
    load = _load(work=68)
    load.enter()
    load.enter()
    if arrives == "before the look":
        load.settle(stored=True)
    load.look()
    # What the streams tell may be from before they arrived.
    seen = StreamState(69 if arrives == "before the look" else 68, 0)
    if arrives == "while it is looked":
        load.settle(stored=True)
    load.observe(seen, StreamState(0, 0), 100.0)
    if arrives == "after the look":
        load.settle(stored=True)
    assert load.full(MANY_SHARE)
    load.settle(stored=True)
    load.look()
    load.observe(StreamState(70, 0), StreamState(0, 0), 101.0)
    assert load.queued == 70


def test_even_the_smallest_queue_takes_something() -> None:
    assert not _load(limit=1).full(MANY_SHARE)


def test_come_back_when_the_queue_will_have_drained_and_not_all_at_once() -> None:
    load = _load(limit=1000, work=400, waiting=100, per_second=50)
    times = [load.retry_after_ms() for _ in range(200)]
    assert min(times) >= 9_900
    assert max(times) <= 15_100
    assert max(times) - min(times) > 2_000


def test_when_to_come_back_is_bounded_whatever_the_pace() -> None:
    for load in (_load(), _load(work=5, per_second=1000), _load(work=9_000, per_second=1), _load(work=9_000)):
        assert 1_000 <= load.retry_after_ms() <= 30_000
