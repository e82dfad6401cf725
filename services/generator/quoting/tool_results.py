"""What the tools of earlier turns gave, told to the user, with what the documents say to it."""

from __future__ import annotations

from baton_proto.messages import Language, ToolOutcome
from services.generator.citations import without_marks
from services.generator.port import Prompt

from .composition import quote
from .selection import MIN_COVERAGE
from .tool_rules import CALCULATOR, DATE_TIME

_MAX_RESULT_CHARS = 2000
_RELATED = 0.7
"""Share of the question's words that a rule must hold to be worth a place beside a tool's result."""


def describe_results(prompt: Prompt) -> str | None:
    """The answer after tool calls, or None where there were none."""
    outcomes = [outcome for turn in prompt.turns for outcome in turn.results]
    if not outcomes:
        return None
    parts = [_told(outcome, prompt.language) for outcome in outcomes]
    if any(outcome.name not in (CALCULATOR, DATE_TIME) for outcome in outcomes):
        least = _RELATED if all(outcome.ok for outcome in outcomes) else MIN_COVERAGE
        quoted = quote(prompt.standalone or prompt.question, prompt.language, prompt.passages, most=2, least=least)
        if quoted is not None:
            lead = "相关规定：" if prompt.language == "zh" else "What the documents say: "
            parts.append(lead + quoted)
    return "\n\n".join(parts)


def _told(outcome: ToolOutcome, language: Language) -> str:
    content = without_marks(outcome.content.strip())
    if len(content) > _MAX_RESULT_CHARS:
        content = content[:_MAX_RESULT_CHARS].rstrip() + "…"
    if outcome.ok and outcome.name == CALCULATOR:
        content = content.replace("**", "^").replace("*", " × ").replace("/", " ÷ ")
    if outcome.ok:
        return content or ("（工具没有返回内容。）" if language == "zh" else "(The tool returned nothing.)")
    if language == "zh":
        return f"调用 {outcome.name} 没有成功：{content or '原因不明。'}"
    return f"The call of {outcome.name} failed: {content or 'no reason was given.'}"
