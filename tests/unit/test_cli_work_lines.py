"""What `baton work` prints, from a snapshot alone."""

from __future__ import annotations

from services.cli.work_lines import MAX_ROWS, Running, Snapshot, Stage, columns, snapshot_lines

NOW = 1_795_334_400_000


def running(number: int) -> Running:
    return Running(f"{number:032x}", f"r{number}", "generate", "generator-1", NOW - 2_000, 1)


def test_columns_line_up_also_with_wide_characters() -> None:
    assert columns([("a", "b"), ("年假", "c"), ("ab", "12")], right={1}) == ["a      b", "年假   c", "ab    12"]


def test_a_stage_with_work_and_no_worker_is_marked() -> None:
    waiting = Stage("generate", 0, 0, 0, 3, 1, NOW - 200_000)
    idle = Stage("retrieve", 0, 0, 0, 0, 0, None)
    _, first, second, *_ = snapshot_lines(Snapshot(NOW, stages=[waiting, idle]))
    assert first.split() == ["generate", "0", "0", "0", "3", "1", "3", "min", "20", "s", "NO", "WORKER"]
    assert "NO WORKER" not in second


def test_a_long_list_is_cut_and_says_so() -> None:
    lines = snapshot_lines(Snapshot(NOW, running=[running(number) for number in range(MAX_ROWS + 5)]))
    assert sum("generator-1" in line for line in lines) == MAX_ROWS
    assert "  and 5 more; --json has them all" in lines


def test_nothing_at_all_hints_at_the_wrong_nats() -> None:
    assert "BATON_NATS_URL" in snapshot_lines(Snapshot(NOW))[0]


def test_workers_that_do_not_tell_what_they_hold_are_named() -> None:
    lines = snapshot_lines(Snapshot(NOW, silent=["old-1 (generate, 2 running)"]))
    assert "  not told what they hold: old-1 (generate, 2 running)" in lines


def test_requests_that_wait_for_their_users_turn_are_told() -> None:
    lines = snapshot_lines(Snapshot(NOW, waiting_for_turn=17, users_waiting=1))
    assert "before the first stage: 17 requests of 1 user wait for their turn" in lines
