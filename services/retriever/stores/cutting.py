"""Passages and questions cut into words, for stores whose engine does not do it."""

from __future__ import annotations

import threading
from functools import lru_cache

import jieba  # type: ignore[import-untyped]

from services.retriever.search_text import passage_words
from services.retriever.stop_words import CHINESE_STOP_WORDS
from services.retriever.stored import StoredPassage

_STOP = frozenset(CHINESE_STOP_WORDS)
_FIRST_USE = threading.Lock()


def words_of(passage: StoredPassage) -> list[str]:
    """The words that a passage is found by."""
    return cut(passage_words(passage))


def cut(text: str) -> list[str]:
    """The words of a text that `search_text` has made, with runs of Chinese cut by jieba."""
    words: list[str] = []
    for run in text.split():
        if run.isascii():
            words.append(run)
        else:
            words += [word for word in _cut_chinese(run) if word not in _STOP]
    return words


@lru_cache(maxsize=10_000)
def _cut_chinese(run: str) -> tuple[str, ...]:
    if not jieba.dt.initialized:
        with _FIRST_USE:
            jieba.initialize()
    return tuple(word for word in jieba.cut_for_search(run) if not word.isspace())
