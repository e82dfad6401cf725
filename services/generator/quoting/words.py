"""Content words of Chinese and English text, the same for questions and passages.

English words are lower-cased and stemmed (Snowball); Chinese is cut with jieba's dictionary in search mode, where the
dictionary knows only single characters neighbours are paired (年, 假 become 年假). Function words are left out.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import pairwise

import jieba  # type: ignore[import-untyped]
import snowballstemmer

from .stop_words import CHINESE_STOP, ENGLISH_STOP, PARTICLES, SAME_WORD

_CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_RUN = re.compile(rf"[{_CJK}]+|\d+(?:[.,:]\d+)*|[^\W\d_{_CJK}]+(?:['’][a-z]+)?")
_CHINESE = re.compile(rf"[{_CJK}]")


@lru_cache(maxsize=1)
def _tokenizer() -> jieba.Tokenizer:
    tokenizer = jieba.Tokenizer()
    tokenizer.initialize()
    return tokenizer


def load() -> None:
    """Read jieba's dictionary now; it takes about a second. Without it the first Chinese text would wait."""
    jieba.setLogLevel("WARNING")
    _tokenizer()


def is_chinese(text: str) -> bool:
    """Whether the text is mainly Chinese: a Chinese character says about as much as three Latin letters."""
    chinese = len(_CHINESE.findall(text))
    latin = sum(char.isascii() and char.isalpha() for char in text)
    return chinese * 3 > latin


@lru_cache(maxsize=8192)
def content_words(text: str) -> tuple[str, ...]:
    """The words of a sentence that carry meaning, in order, with repetitions."""
    text = unicodedata.normalize("NFKC", text)
    found: list[str] = []
    for run in _RUN.findall(text):
        if _CHINESE.match(run):
            found.extend(_chinese(run))
        elif run[0].isdigit():
            found.append(run.replace(",", ""))
        else:
            word = run.lower().replace("’", "'").removesuffix("'s")
            if word not in ENGLISH_STOP and word.replace("'", "") not in ENGLISH_STOP:
                found.append(stem(word))
    return tuple(SAME_WORD.get(word, word) for word in found)


def _chinese(run: str) -> list[str]:
    found: list[str] = []
    singles: list[str] = []
    for word in [*_tokenizer().cut_for_search(run, HMM=False), ""]:
        if len(word) == 1 and word not in PARTICLES:
            singles.append(word)
            continue
        # Characters that the dictionary knows no word for: each with its neighbour, or alone.
        found.extend(map("".join, pairwise(singles)) if len(singles) > 1 else singles)
        singles.clear()
        found.append(word)
    return [word for word in found if word and word not in CHINESE_STOP and word not in PARTICLES]


@lru_cache(maxsize=8192)
def stem(word: str) -> str:
    """The stem of a lower-case English word."""
    # A stemmer keeps the word it works on in itself: a new one for each word makes this safe on every thread.
    stemmed: str = snowballstemmer.stemmer("english").stemWord(word)
    return stemmed
