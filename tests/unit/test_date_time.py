from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton_proto.messages import Language
from services.tools.clock import DateTime, _monday_to_friday
from services.tools.port import ToolContext, ToolError

# A Sunday evening in Shanghai, and still Sunday noon in London.
NOW = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)


def ask(language: Language = "en", *, zone: str = "Asia/Shanghai", now: datetime = NOW, **arguments) -> str:
    context = ToolContext(call_id="c", owner="o", language=language, progress=lambda text: None)
    return asyncio.run(DateTime(zone, lambda: now).call(arguments, context))


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ({}, "It is Sunday, 2026-11-22, 20:30 (Asia/Shanghai, UTC+08:00)."),
        ({"timezone": "America/New_York"}, "It is Sunday, 2026-11-22, 07:30 (America/New_York, UTC-05:00)."),
        ({"operation": "weekday", "date": "2026-12-25"}, "2026-12-25 is a Friday."),
        ({"operation": "weekday"}, "2026-11-22 is a Sunday."),
        ({"operation": "add_days", "days": 30}, "30 days after 2026-11-22 is Tuesday, 2026-12-22."),
        (
            {"operation": "add_days", "days": -1, "date": "2024-03-01"},
            "1 days before 2024-03-01 is Thursday, 2024-02-29.",
        ),
        (
            {"operation": "difference", "date": "2026-11-23", "until": "2026-11-29"},
            "From 2026-11-23 to 2026-11-29 it is 6 days; counting both ends 7 days, 5 of them Monday to Friday "
            "(public holidays not taken off).",
        ),
    ],
)
def test_it_answers_in_english(arguments: dict, answer: str) -> None:
    assert ask(**arguments) == answer


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ({}, "现在是 2026-11-22 星期日 20:30（Asia/Shanghai，UTC+08:00）。"),
        ({"operation": "weekday", "date": "2026-12-25"}, "2026-12-25 是星期五。"),
        ({"operation": "add_days", "days": 30}, "2026-11-22 的 30 天后是 2026-12-22（星期二）。"),
    ],
)
def test_it_answers_in_chinese(arguments: dict, answer: str) -> None:
    assert ask("zh", **arguments) == answer


def test_today_is_today_in_the_zone_that_counts() -> None:
    late = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)
    assert ask(now=late, operation="weekday") == "2026-11-23 is a Monday."
    assert ask(now=late, zone="UTC", operation="weekday") == "2026-11-22 is a Sunday."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timezone": "Mars/Base"}, "no time zone"),
        ({"timezone": "../../etc/passwd"}, "no time zone"),
        ({"timezone": ""}, "no time zone"),
        ({"timezone": "Asia"}, "no time zone"),
        ({"timezone": "a\x00b"}, "no time zone"),
        ({"date": "2026-02-30"}, "no day 2026-02-30"),
        ({"operation": "add_days"}, "needs `days`"),
        ({"operation": "difference"}, "needs `until`"),
        ({"operation": "add_days", "date": "9999-12-31", "days": 1}, "years 1 to 9999"),
        ({"operation": "add_days", "date": "0001-01-01", "days": -1}, "years 1 to 9999"),
    ],
)
def test_what_cannot_be_answered_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ToolError, match=message):
        ask(**arguments)


def test_an_unknown_zone_stops_the_start() -> None:
    with pytest.raises(ValueError, match="Mars/Base"):
        DateTime("Mars/Base")


@given(st.dates(date(2000, 1, 1), date(2030, 1, 1)), st.integers(0, 400))
def test_working_days_are_counted_like_one_by_one(first: date, length: int) -> None:
    days = [first + timedelta(days=offset) for offset in range(length + 1)]
    assert _monday_to_friday(first, days[-1]) == sum(day.weekday() < 5 for day in days)
