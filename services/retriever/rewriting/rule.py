"""Follow-ups made to stand alone without a model: a rule over closed lists of words. docs/follow-ups.md describes it.

What a question is about are its words that no list knows. A follow-up is a question that is about nothing of its own
(`怎么申请?`, `how do I apply for it?`) or that is no whole question (`那病假呢?`, `and for contractors?`). It takes
what it lacks from the question before it, which the same rule has made to stand alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from baton_proto.messages import Language, PastTurn

from . import chinese, english
from .port import MAX_STANDALONE_CHARS, latest_question

MAX_FOLLOW_UP_CHARS = 120
"""A longer question is taken to say all that it means."""
MAX_JOINED_CHARS = 400
_CHINESE = re.compile(r"[\u3400-\u9fff]")


class RuleRewriter:
    """The rule behind the port."""

    async def rewrite(self, question: str, history: Sequence[PastTurn], language: Language) -> str:
        return standalone(question, latest_question(history))


def standalone(question: str, before: str) -> str:
    """`question` with what it takes from `before`, the last question as it stood alone; as it is where that is nothing.

    A pure function: the same input gives the same result.
    """
    text, last = _plain(question), _plain(before)
    if not text or not last or len(text) > MAX_FOLLOW_UP_CHARS or len(last) > MAX_JOINED_CHARS:
        return question[:MAX_STANDALONE_CHARS]
    chinese_text, chinese_last = bool(_CHINESE.search(text)), bool(_CHINESE.search(last))
    if chinese_text and chinese_last:
        joined = chinese.join(text, last)
    elif not chinese_text and not chinese_last:
        joined = english.join(text, last)
    elif chinese_text:
        joined = chinese.join_subject(text, english.subject(last))
    else:
        joined = english.join_subject(text, chinese.subject(last))
    return question[:MAX_STANDALONE_CHARS] if joined is None or len(joined) > MAX_JOINED_CHARS else joined


def search_words(question: str) -> str:
    """What to search for where `question` was made of a follow-up: the question, and what it is about once more. A
    search by words counts those twice, so that words which were only taken over do not lead it back to where it was."""
    text = _plain(question)
    if len(text) > MAX_JOINED_CHARS:
        return question
    about = chinese.subject(text) if _CHINESE.search(text) else english.subject(text)
    return f"{question} {about}".strip()


def _plain(text: str) -> str:
    """On one line, with full-width letters and digits as plain ones; Chinese punctuation stays recognisable."""
    return " ".join(unicodedata.normalize("NFKC", text).split())
