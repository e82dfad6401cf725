"""What a question asks for, read off its words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from baton_proto.messages import Language

from .quantities import wanted_quantity
from .stop_words import WEAK
from .words import content_words


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_TOPICS = r"\b(?:polic\w+|rules?|benefits|options|types|kinds|guidelines)\b"
_OVERVIEW = _any(
    r"有哪些|有什么|是什么样|介绍|概述|概括|总结|简述|说明一下",
    r"(?:政策|制度|规定|福利|待遇)(?:是什么|如何|怎么样|呢)?[?？。!！]*$",
    r"\b(?:overview|summar\w+|tell me about|explain|describe|outline)\b",
    r"^what (?:are|is) (?:the |our |your |all )?[\w\s'-]*" + _TOPICS,
    r"^what [\w\s'-]*" + _TOPICS + r"[\w\s'-]* (?:are there|do we have|exist)",
)
NEGATION = _any(
    r"不能|不可|不得|不予|不准|不允许|禁止|不会|不用|不需要|无需|不必",
    r"\b(?:not|never|no|without|cannot|can't|don't|doesn't|mustn't|isn't|aren't|forbidden|prohibited|excluded)\b",
)
"""A sentence with a negation, which a question with one is rather after."""
_CONTACT = _any(
    r"联系|邮箱|电话|找谁|问谁|哪里|内线|举报|报告", r"\b(?:who|whom|where|contact|e-?mail|phone|call|ask|report)\b"
)
_ASKS = _any(
    r"[?？吗呢几谁]|多少|什么|怎|如何|哪|是否|能否|可以",
    r"\b(?:who|what|when|where|which|why|how|can|could|do|does|is|are|may|must|should|will)\b",
)
_PHRASES = [
    (_any(r"\bwork(?:ing|s)? (?:from|at) home\b", r"\bhome office days?\b"), "work remotely"),
    (_any(r"\bpaid time off\b"), "annual leave"),
    (_any(r"在家(?:里)?(?:办公|工作|上班)"), "远程办公"),
]
"""What people say, and what documents call it."""
_MAX_TOPIC_WORDS = 3
_WEAK_WEIGHT = 0.3
_CHARACTER_WEIGHT = 0.6


@dataclass(frozen=True, slots=True)
class Question:
    """`words` carry the meaning, each with its weight, and `parts` are the words inside a Chinese compound,
    `pairs` those that follow each other. `wants` is
    the shape of the quantity that is asked for, if one is; the flags say what kind of answer would do."""

    text: str
    language: Language
    words: dict[str, float]
    parts: dict[str, tuple[str, ...]]
    pairs: tuple[tuple[str, str], ...]
    wants: re.Pattern[str] | None
    wants_overview: bool
    wants_contact: bool
    negated: bool


def read_question(text: str, language: Language) -> Question:
    for phrase, same in _PHRASES:
        text = phrase.sub(same, text)
    sequence = content_words(text)
    found = dict.fromkeys(sequence)
    parts = {word: tuple(part for part in found if _is_part(part, word)) for word in found}
    # Search mode gives a Chinese compound and its parts (加班费: 加班, 班费): they are one piece of evidence.
    whole = [word for word in found if not any(word in inner for inner in parts.values())]
    return Question(
        text=text,
        language=language,
        words={word: _weight(word) for word in whole},
        parts={word: parts[word] for word in whole},
        pairs=tuple((one, other) for one, other in pairwise(sequence) if one in whole and other in whole),
        wants=wanted_quantity(text),
        wants_overview=bool(_OVERVIEW.search(text.strip())) or _is_topic(text, whole),
        wants_contact=bool(_CONTACT.search(text)),
        negated=bool(NEGATION.search(text)),
    )


def _weight(word: str) -> float:
    if word in WEAK or word[0].isdigit():
        return _WEAK_WEIGHT
    # A lone Chinese character is most often a verb that documents put otherwise.
    return _CHARACTER_WEIGHT if len(word) == 1 and not word.isascii() else 1.0


def _is_part(part: str, word: str) -> bool:
    return not part.isascii() and part != word and part in word


def _is_topic(text: str, words: list[str]) -> bool:
    """Only a subject, as one types into a search box: `年假`, `sick leave`."""
    return 0 < len(words) <= _MAX_TOPIC_WORDS and not _ASKS.search(text)
