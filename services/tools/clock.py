"""Date and time: what a model cannot know, and what it easily gets wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from baton_proto.messages import Language, ToolSpec
from services.common.wording import choose, shorten

from .port import ToolContext, ToolError

MAX_DAYS = 36_500

_WEEKDAYS_EN = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_DATE = {"type": "string", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}


def utc_now() -> datetime:
    return datetime.now(UTC)


def time_zone(name: str) -> ZoneInfo:
    """The zone of an IANA name such as Asia/Shanghai.

    Raises:
        ValueError: there is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"there is no time zone {shorten(name, 60)!r}; it is a name such as Asia/Shanghai") from None


class DateTime:
    """Now, weekdays, and counting days.

    Args:
        timezone: IANA name of the zone that counts where a call names none.
        clock: the current instant, with a time zone.

    Raises:
        ValueError: there is no such zone.
    """

    timeout_s = 2.0
    spec = ToolSpec(
        name="date_time",
        description=(
            "The current date and time, the weekday of a date, a date some days before or after another, and the days "
            "between two dates. 查询当前日期时间、星期几，推算日期，计算相差天数。"
        ),
        parameters={
            "type": "object",
            "properties": {
                "operation": {
                    "type": "string",
                    "enum": ["now", "weekday", "add_days", "difference"],
                    "description": "now (default); weekday of `date`; add_days: `date` plus `days`; difference: from "
                    "`date` to `until`",
                },
                "date": {**_DATE, "description": "YYYY-MM-DD; today where it is absent"},
                "until": {**_DATE, "description": "YYYY-MM-DD, for difference"},
                "days": {
                    "type": "integer",
                    "minimum": -MAX_DAYS,
                    "maximum": MAX_DAYS,
                    "description": "for add_days; negative = before",
                },
                "timezone": {"type": "string", "maxLength": 60, "description": "IANA name, as in Europe/Berlin"},
            },
            "additionalProperties": False,
        },
    )

    def __init__(self, timezone: str, clock: Callable[[], datetime] = utc_now) -> None:
        self._zone = time_zone(timezone)
        self._clock = clock

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> str:
        language = context.language
        now = self._clock().astimezone(self._zone_of(arguments, language))
        day = _date(arguments["date"], language) if "date" in arguments else now.date()
        match arguments.get("operation", "now"):
            case "weekday":
                return _weekday(day, language)
            case "add_days":
                return _add(day, int(_needed(arguments, "days", language)), language)
            case "difference":
                return _difference(day, _date(_needed(arguments, "until", language), language), language)
            case _:
                return _now(now, language)

    def _zone_of(self, arguments: dict[str, Any], language: Language) -> ZoneInfo:
        name = arguments.get("timezone")
        if name is None:
            return self._zone
        try:
            return time_zone(name)
        except ValueError:
            shown = shorten(name, 60)
            raise ToolError(
                choose(
                    language,
                    zh=f"没有名为“{shown}”的时区，请使用 Asia/Shanghai 这样的名称。",
                    en=f'There is no time zone "{shown}"; use a name such as Asia/Shanghai.',
                )
            ) from None


def _needed(arguments: dict[str, Any], name: str, language: Language) -> Any:
    if name not in arguments:
        raise ToolError(choose(language, zh=f"这个操作需要参数 {name}。", en=f"This operation needs `{name}`."))
    return arguments[name]


def _date(text: str, language: Language) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ToolError(
            choose(
                language,
                zh=f"没有 {shorten(text, 20)} 这一天，日期写作 YYYY-MM-DD。",
                en=f"There is no day {shorten(text, 20)}; a date is written YYYY-MM-DD.",
            )
        ) from None


def _name(day: date, language: Language) -> str:
    return choose(language, zh="星期" + "一二三四五六日"[day.weekday()], en=_WEEKDAYS_EN[day.weekday()])


def _now(now: datetime, language: Language) -> str:
    weekday, zone = _name(now.date(), language), now.tzinfo
    offset = now.strftime("%z")
    offset = f"UTC{offset[:3]}:{offset[3:5]}"
    return choose(
        language,
        zh=f"现在是 {now:%Y-%m-%d} {weekday} {now:%H:%M}（{zone}，{offset}）。",
        en=f"It is {weekday}, {now:%Y-%m-%d}, {now:%H:%M} ({zone}, {offset}).",
    )


def _weekday(day: date, language: Language) -> str:
    weekday = _name(day, language)
    return choose(language, zh=f"{day} 是{weekday}。", en=f"{day} is a {weekday}.")


def _add(day: date, days: int, language: Language) -> str:
    try:
        result = day + timedelta(days=days)
    except OverflowError:
        raise ToolError(
            choose(language, zh="结果超出了公元 1 至 9999 年。", en="The result is outside of the years 1 to 9999.")
        ) from None
    weekday = _name(result, language)
    zh = f"{day} 的 {abs(days)} 天{'后' if days >= 0 else '前'}是 {result}（{weekday}）。"
    en = f"{abs(days)} days {'after' if days >= 0 else 'before'} {day} is {weekday}, {result}."
    return choose(language, zh=zh, en=en)


def _difference(start: date, end: date, language: Language) -> str:
    first, last = min(start, end), max(start, end)
    days, weekdays = (end - start).days, _monday_to_friday(first, last)
    return choose(
        language,
        zh=f"从 {start} 到 {end} 相差 {days} 天；首尾都算共 {abs(days) + 1} 天，"
        f"其中周一至周五 {weekdays} 天（未扣除节假日）。",
        en=f"From {start} to {end} it is {days} days; counting both ends {abs(days) + 1} days, {weekdays} of them "
        "Monday to Friday (public holidays not taken off).",
    )


def _monday_to_friday(first: date, last: date) -> int:
    """Days from Monday to Friday among `first` to `last`, both included."""
    weeks, rest = divmod((last - first).days + 1, 7)
    return 5 * weeks + sum((first.weekday() + offset) % 7 < 5 for offset in range(rest))
