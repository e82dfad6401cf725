"""Which quantity a question asks for, and what that looks like in a sentence that gives it."""

from __future__ import annotations

import re

_NUMERAL = (
    r"(?:(?<!\d)\d[\d,.]*|[一二两三四五六七八九十百半]+|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|half)\b)"
)
_CHINESE_UNIT = re.compile(
    r"(?:多少|几)\s*个?\s*(工作日|天|小时|分钟|元|块|年|周|星期|月|次|人|岁|倍|公里|平方米|份|台|名|位|%)"
)
_ENGLISH_UNIT = re.compile(
    r"\bhow many (?:[\w-]+ ){0,3}?(day|hour|minute|week|month|year|time|kilomet|people|person|employee|page|seat|room)",
    re.IGNORECASE,
)
_SAME_UNIT = {"天": "天|个?工作日|个?自然日", "块": "元|块", "月": "个月", "星期": "周|星期", "周": "周|星期"}


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_MONEY = _any(
    r"\d\s*(?:万|千|百)?\s*(?:元|块|%|美元|欧元)|[¥$€£]\s?\d",
    r"\d\s*(?:yuan|rmb|usd|eur|dollars?|euros?|pounds?|%)",
)
_DATE = _any(
    r"\d\s*[月日号点时]|\d{1,2}:\d{2}|周[一二三四五六日末]|星期|当天|之前",
    r"\b(?:january|february|march|april|may|june|july|august|september|october|november|december)\b",
    r"\b(?:monday|tuesday|wednesday|thursday|friday|first day|before)\b",
    r"\d (?:working )?(?:days?|hours?|weeks?|months?)",
)
_DURATION = _any(
    r"(?<!\d)\d{1,3}(?:\.\d)?\s*(?:个?工作日|个?自然日|天|周|个月|小时|分钟|年)|[一二两三四五六十半]\s*(?:天|周|个月|小时|年)",
    _NUMERAL + r"[\s-]*(?:working |calendar )?(?:days?|weeks?|months?|years?|hours?|minutes?)",
)
_KINDS = [
    (
        _any(
            r"多少钱|金额|价格|租金|(?:费用|工资|补贴|补助|奖金)是?多少|几块",
            r"\bhow (?:much (?:does|do|is|are|money)|expensive)|\b(?:cost|price|fee|rent)\b",
        ),
        _MONEY,
    ),
    (
        _any(
            r"几号|几点|何时|什么时候|哪一?天|哪天|日期|截止|几月",
            r"\b(?:when|what (?:date|day|time)|deadline|due)\b",
        ),
        _DATE,
    ),
    (_any(r"多长|多久", r"\bhow (?:long|soon|quickly|often|early|late)\b"), _DURATION),
    (
        _any(
            r"多少|几[个次号岁]|多大|多高|上限|比例",
            r"\b(?:how (?:many|much|large|big|high|old|far)|number of|limit|rate|percent\w*)\b",
        ),
        _any(_NUMERAL),
    ),
]
"""What asks for a quantity and what it looks like; the first that fits counts."""


def wanted_quantity(question: str) -> re.Pattern[str] | None:
    """The shape of the quantity that is asked for, or None where none is."""
    chinese = _CHINESE_UNIT.search(question)
    if chinese and not question.startswith("月", chinese.end(1)):
        unit = chinese[1]
        if (unit, question[chinese.start() : chinese.start() + 1]) not in {("月", "几"), ("天", "哪")}:
            return _any(_NUMERAL + rf"\s*(?:{_SAME_UNIT.get(unit, unit)})")
    english = _ENGLISH_UNIT.search(question)
    if english:
        return _any(_NUMERAL + rf"[\s-]*(?:[a-z]+ )?{english[1]}")
    return next((shape for asks, shape in _KINDS if asks.search(question)), None)
