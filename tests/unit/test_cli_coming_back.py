"""When `baton ask` tries again."""

from __future__ import annotations

import pytest

from services.cli.coming_back import ComingBack
from services.cli.display import column_after


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def at_most(patience_s: float = 1_000.0, clock: Clock | None = None) -> ComingBack:
    """With the longest wait that chance may give."""
    return ComingBack(patience_s, lambda: 1.0, clock or Clock())


def test_waits_double_up_to_a_bound() -> None:
    coming = at_most()
    assert [coming.lost(None) for _ in range(7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]


def test_waits_are_anything_from_zero_to_the_bound() -> None:
    assert ComingBack(10.0, lambda: 0.0).lost(None) == 0.0


@pytest.mark.parametrize("code", [1012, 4008])
def test_a_leaving_replica_is_left_at_once_but_only_once(code: int) -> None:
    coming = at_most()
    assert [coming.lost(code), coming.lost(code)] == [0.0, 1.0]


def test_too_many_connections_always_means_a_pause() -> None:
    coming = at_most()
    assert [coming.lost(4029), coming.lost(4029)] == [5.5, 6.0]


def test_it_gives_up_when_patience_is_over_and_never_waits_longer() -> None:
    clock = Clock()
    coming = at_most(2.0, clock)
    assert [coming.lost(None), coming.lost(None), coming.lost(None)] == [0.5, 1.0, 2.0]
    clock.now += 1.5
    assert coming.lost(None) == 0.5
    clock.now += 0.5
    assert coming.lost(None) is None


def test_a_new_frame_and_a_connection_that_lasted_begin_a_new_outage() -> None:
    clock = Clock()
    for renew in ("frame", "lasted"):
        coming = at_most(10.0, clock)
        coming.lost(None)
        coming.lost(None)
        clock.now += 9.0
        if renew == "frame":
            coming.progress()
        assert coming.lost(None, lasted_s=6.0 if renew == "lasted" else 0.0) == 0.5
        assert coming.first_try


@pytest.mark.parametrize(
    ("text", "column"),
    [("", 0), ("abc", 3), ("abc\n", 0), ("a\nbc", 2), ("a" * 10, 0), ("a" * 13, 3), ("年假", 4), ("a" * 9 + "年", 2)],
)
def test_the_column_where_a_text_ends_in_a_terminal_of_ten(text: str, column: int) -> None:
    assert column_after(text, 10) == column
