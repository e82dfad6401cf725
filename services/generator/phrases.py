"""What a generator service says itself, in both languages."""

from __future__ import annotations

from collections.abc import Sequence

from baton_proto import subjects
from baton_proto.messages import Language, ToolCall


def generating(language: Language) -> str:
    return "正在撰写回答…" if language == "zh" else "Writing the answer"


def thinking(language: Language) -> str:
    return "模型正在思考…" if language == "zh" else "The model is thinking"


def calling(calls: Sequence[ToolCall], stage: str, language: Language) -> str:
    if stage == subjects.RETRIEVE:
        return "正在再次检索文档…" if language == "zh" else "Searching the documents again"
    names = list(dict.fromkeys(call.name for call in calls))
    return f"正在调用 {'、'.join(names)}…" if language == "zh" else f"Calling {', '.join(names)}"


def not_served(name: str, language: Language) -> str:
    """The result of a call that no live worker can run for this user; a model reads it, and so may the user."""
    if language == "zh":
        return f"工具 {name} 目前不可用：没有在线的工具服务提供它。"
    return f"The tool {name} is not available: no live worker serves it."
