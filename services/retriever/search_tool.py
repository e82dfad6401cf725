"""The tool `search_documents` as a model is told of it, and what its results say where nothing is found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from baton_proto.messages import Language, ToolCall, ToolSpec
from services.common.arguments import ArgumentChecker
from services.common.config import RetrieverSettings
from services.common.wording import choose, shorten

DEFAULT_TOP_K = 5
MAX_TOP_K = 10
MAX_SEARCHES = 3
"""Searches of one turn; a model that asks for more is told so."""

SEARCH_DOCUMENTS = ToolSpec(
    name="search_documents",
    description=(
        "Searches the documents again with words of your own. Use it when the passages you have do not answer the "
        "question, or only a part of it. 用新的关键词再次检索文档。 "
        "The passages found come with numbers that you may cite."
    ),
    parameters={
        "type": "object",
        "properties": {
            "query": {
                "type": "string",
                "description": "What to look for: a few words or a question, in the language of the documents",
                "minLength": 1,
                "maxLength": 1000,
            },
            "top_k": {
                "type": "integer",
                "description": f"Most passages wanted; {DEFAULT_TOP_K} if left out",
                "minimum": 1,
                "maximum": MAX_TOP_K,
            },
        },
        "required": ["query"],
        "additionalProperties": False,
    },
)

_CHECKER = ArgumentChecker(SEARCH_DOCUMENTS)


def problem_of(call: ToolCall, settings: RetrieverSettings, language: Language) -> str:
    """Why a call is not run, in words from which a model can correct itself."""
    if call.name != SEARCH_DOCUMENTS.name or not settings.search_tool:
        name = shorten(call.name, 64)
        return choose(language, zh=f"这里没有名为 {name} 的工具。", en=f"There is no tool named {name} here.")
    problem = _CHECKER.problem(call.arguments, language)
    if problem is None and not _text(call.arguments).strip():
        problem = choose(
            language,
            zh="参数 query 是空白的；请写要查找的内容。",
            en="The argument query is blank; say what to look for.",
        )
    return problem or ""


def _text(arguments: Mapping[str, Any]) -> str:
    return str(arguments["query"])


def too_many(language: Language) -> str:
    return choose(
        language,
        zh=f"一次最多检索 {MAX_SEARCHES} 次，这一次没有执行；请先看其他结果。",
        en=f"At most {MAX_SEARCHES} searches are run at once; this one was not. Look at the other results first.",
    )


def nothing_found(language: Language) -> str:
    return choose(
        language,
        zh="没有找到相关段落。可以换一种说法再查，或者依据已有的段落回答。",
        en="No passage matches. Try other words, or answer from the passages you have.",
    )


def no_room(language: Language) -> str:
    return choose(
        language,
        zh="找到了段落，但无法再加入这次回答。请依据已有的段落回答。",
        en="There are passages, but none can be added to this answer any more. Answer from those you have.",
    )
