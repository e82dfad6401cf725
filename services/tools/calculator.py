"""The calculator: exact arithmetic for a model that cannot count."""

from __future__ import annotations

from typing import Any

from baton_proto.messages import Language, ToolSpec
from services.common.wording import choose

from .arithmetic import Refused
from .expression import MAX_CHARS, compute
from .port import ToolContext, ToolError


def evaluate(expression: str, language: Language = "en") -> str:
    """The value of `expression` in decimals, after "= ", or after "≈ " where it is rounded.

    Raises:
        ToolError: it is no expression, or too long, too deep or too large.
    """
    try:
        text, exact = compute(expression)
    except Refused as refused:
        raise ToolError(choose(language, zh=refused.zh, en=refused.en)) from None
    return f"{'=' if exact else '≈'} {text}"


class Calculator:
    timeout_s = 2.0
    spec = ToolSpec(
        name="calculator",
        description=(
            "Computes an arithmetic expression exactly. Use it for every calculation. 计算算式。 "
            "Operators: + - * / // % ** and parentheses; functions: sqrt, abs, round (halves away from zero), floor, "
            "ceil, min, max, sum, avg."
        ),
        parameters={
            "type": "object",
            "properties": {
                "expression": {
                    "type": "string",
                    "description": "The expression, as in (128 + 72) * 3",
                    "minLength": 1,
                    "maxLength": MAX_CHARS,
                }
            },
            "required": ["expression"],
            "additionalProperties": False,
        },
    )

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> str:
        expression: str = arguments["expression"]
        result = evaluate(expression, context.language)
        return f"{' '.join(expression.split()).rstrip('=＝？? ')} {result}"
