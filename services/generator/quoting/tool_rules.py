"""Which tool a question plainly asks for. Only the question is read, never a passage: a document cannot call tools."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from baton_proto.messages import ToolCall, ToolSpec, ToolTurn

CALCULATOR, DATE_TIME, LEAVE_BALANCE = "calculator", "date_time", "leave_balance"

_I = re.IGNORECASE
_MAX_QUESTION = 300

# --- leave balance ----------------------------------------------------------------------------------------------------

_LEAVE = r"(?:年假|年休假|病假|事假|假期|休假|带薪假|调休|假)"
_LEAVE_EN = r"(?:leave|vacation|holidays?|pto|time off|days off|sick days)"
_BALANCE = [
    re.compile(pattern, _I)
    for pattern in (
        rf"(?:我|本人|自己).{{0,4}}(?:剩|还有|余下|还能休|还可以休|有|用了|休了|用掉|请了).{{0,6}}(?:几|多少).{{0,4}}{_LEAVE}",
        rf"{_LEAVE}.{{0,4}}(?:还剩|剩余|剩下|剩|还有|用了|还能休).{{0,3}}(?:几|多少)",
        rf"(?:我|本人|查|看).{{0,10}}{_LEAVE}.{{0,3}}(?:余额|剩余天数|结余|余量)|^{_LEAVE}余额[?？。]?$",
        rf"(?:我|本人).{{0,3}}还有(?:没有)?{_LEAVE}吗?[?？。]?$",
        rf"\bhow (?:many|much)\b.*\b{_LEAVE_EN}\b.*\b(?:do i (?:still )?have|have i (?:got )?left|i have left)\b",
        rf"\bhow (?:many|much)\b.*\b{_LEAVE_EN}\b.*\b(?:am i left|is left for me|have i (?:used|taken))\b",
        rf"\bhow (?:many|much)\b.*\b(?:do i still have|have i (?:used|taken))\b.*\b{_LEAVE_EN}\b",
        rf"\bmy\b.{{0,30}}\b{_LEAVE_EN}\b.{{0,12}}\b(?:balance|left|remaining)\b",
        rf"\bmy (?:remaining|unused) .{{0,20}}\b{_LEAVE_EN}\b",
        rf"\bdo i (?:still )?have any\b.*\b{_LEAVE_EN}\b.*\b(?:left|remaining)\b|^{_LEAVE_EN} balance\W*$",
    )
]
_NOT_BALANCE = re.compile(
    r"员工|新人|结转|过期|作废|离职|怎么|如何|哪里|哪儿|规定|政策|最多|"
    r"\b(?:carry|carried|expire|polic\w+|where|what happens|if i|when i leave|employees?)\b",
    _I,
)
_LEAVE_TYPES = [
    ("annual", re.compile(r"年假|年休假|\b(?:annual|vacation|pto|holidays?)\b", _I)),
    ("sick", re.compile(r"病假|\bsick\b", _I)),
    ("personal", re.compile(r"事假|\bpersonal\b", _I)),
]

# --- date and time ----------------------------------------------------------------------------------------------------

_NOW = re.compile(
    r"(?:请问|请告诉我|告诉我)?[,，]?\s*(?:今天|现在|当前|此刻|今日)(?:是|的|到底|究竟)*"
    r"(?:几月几号|几月几日|几号|几日|几点(?:钟|了)?|几时|星期几|周几|礼拜几|日期|时间|什么日子|什么时间|哪一天|哪天|多少号)(?:和(?:时间|日期))?"
    r"(?:是(?:多少|什么|几号|几点))?[了呢啊呀吗]?|现在时间|(?:现在)?几点(?:钟)?了|"
    r"(?:please )?(?:can you |could you )?(?:tell me )?(?:what(?:'s| is)|what) (?:the )?(?:current |today's |exact )*"
    r"(?:date|day|weekday|time|day of the week|date and time|time and date)(?: is it| is today| it is)*"
    r"(?: today| now| right now| currently)*|today's date|(?:the )?current (?:date|time)|"
    r"(?:which|what) (?:day|date)(?: of the week)? (?:is (?:it )?(?:today|now)|do we have today)",
    _I,
)

# --- arithmetic -------------------------------------------------------------------------------------------------------

_SPOKEN = [
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),
    (re.compile(r"(\d+(?:\.\d+)?)\s*(?:%|percent)\s*of\s*(\d+(?:\.\d+)?)", _I), r"\2*\1/100"),
    (re.compile(r"(\d+(?:\.\d+)?)\s*(?:元|块)?\s*的\s*(\d+(?:\.\d+)?)\s*%"), r"\1*\2/100"),
    (re.compile(r"百分之\s*(\d+(?:\.\d+)?)"), r"\1/100"),
    (re.compile(r"(?<=\d)\s*(?:[×xX✕∗·]|乘以|乘上|乘|times|multiplied by)\s*(?=[\d(])", _I), "*"),
    (re.compile(r"(?<=\))\s*(?:[×xX✕∗]|乘以|乘上|乘|times|multiplied by)\s*(?=[\d(])", _I), "*"),
    (re.compile(r"\s*(?:÷|除以|divided by)\s*", _I), "/"),
    (re.compile(r"(?<=[\d)])\s*(?:加上|加|plus)\s*(?=[\d(])", _I), "+"),
    (re.compile(r"(?<=[\d)])\s*(?:减去|减|minus|−|–)\s*(?=[\d(])", _I), "-"),
    (re.compile(r"\^"), "**"),
]
_EXPRESSION = re.compile(r"[-(\s]*\d[\d\s.()+\-*/%]*")
_OPERATION = re.compile(r"[\d)]\s*(?:\*\*|//|[-+*/%])\s*[-(\s]*\d")
_DATE_LIKE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}/\d{1,2}/\d{2,4}")
_ASKS_TO_COMPUTE = re.compile(
    r"(?:请问|请|帮我|帮忙|计算一下|计算|算一下|算算|算出|算|一下|的结果|结果|等于多少|等于几|等于|是多少|得多少|得几|多少|是|为|一共|"
    r"what is|what's|whats|how much is|how much|calculate|compute|evaluate|work out|equals?|the result of|result|"
    r"please|can you|could you|is|of|[\s=＝?？.。,，!！:：])*",
    _I,
)


def wanted_calls(question: str, tools: Sequence[ToolSpec], turns: Sequence[ToolTurn]) -> list[ToolCall]:
    """The call to make next, if any. A tool that has been called in an earlier turn is not called again."""
    offered = {spec.name: spec for spec in tools}
    called = {call.name for turn in turns for call in turn.calls}
    text = unicodedata.normalize("NFKC", question).strip()
    if not text or len(text) > _MAX_QUESTION:
        return []
    for name, arguments in _wishes(text):
        if name in offered and name not in called:
            fitted = _fitting(arguments, offered[name])
            if fitted is not None:
                return [ToolCall(call_id=f"call_{len(turns)}_0", name=name, arguments=fitted)]
    return []


def expression_in(text: str) -> str | None:
    """The arithmetic that a question consists of, as an expression, or None where it asks for something else."""
    for pattern, written in _SPOKEN:
        text = pattern.sub(written, text)
    if _DATE_LIKE.search(text):
        return None
    for found in _EXPRESSION.finditer(text):
        expression = found[0].strip()
        rest = text[: found.start()] + " " + text[found.end() :]
        if _OPERATION.search(expression) and _ASKS_TO_COMPUTE.fullmatch(rest):
            return expression
    return None


def _wishes(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Tool names with the arguments that the question names, under the parameter names that the tools are known by."""
    wishes: list[tuple[str, dict[str, Any]]] = []
    if any(pattern.search(text) for pattern in _BALANCE) and not _NOT_BALANCE.search(text):
        kinds = [kind for kind, pattern in _LEAVE_TYPES if pattern.search(text)]
        wishes.append((LEAVE_BALANCE, {"leave_type": kinds[0]} if len(kinds) == 1 else {}))
    if _NOW.fullmatch(text.strip("?？!！。. ")):
        wishes.append((DATE_TIME, {}))
    expression = expression_in(text)
    if expression is not None:
        wishes.append((CALCULATOR, {"expression": expression}))
    return wishes


def _fitting(arguments: dict[str, Any], spec: ToolSpec) -> dict[str, Any] | None:
    """The arguments that the tool's schema knows, or None where it requires one that the question does not give."""
    properties = spec.parameters.get("properties", {})
    fitted = {
        name: value
        for name, value in arguments.items()
        if name in properties and value in properties[name].get("enum", [value])
    }
    required = spec.parameters.get("required", [])
    return fitted if all(name in fitted for name in required) else None
