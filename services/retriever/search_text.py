"""Text as it is indexed and looked for: the same on every kind of Milvus, for Chinese and English together.

Milvus kinds differ in which analyzer filters they know, so all but the segmentation of Chinese happens here, to
passages and questions alike: NFKC, lower case, no punctuation, no accents on Latin letters, English function words
dropped and the others reduced to their stem (Snowball's English stemmer), thousands separators removed.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from functools import lru_cache

import snowballstemmer

from .stop_words import ENGLISH_STOP_WORDS
from .stored import StoredPassage

_CJK = "\u2e80-\u2fdf\u3005\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+")
_CHINESE = re.compile(rf"[{_CJK}]")
_WRAPPED = re.compile(rf"(?<=[{_CJK}])[ \t]*\n[ \t]*(?=[{_CJK}])")
_POSSESSIVE = re.compile(r"(?<=\w)['’]s\b", re.IGNORECASE)
_APOSTROPHE = re.compile(r"(?<=[A-Za-z])['’](?=[A-Za-z])")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_ACRONYM = re.compile(r"[A-Z]{2,}")

_local = threading.local()


def search_text(*parts: str) -> str:
    """The words of `parts` in their order, separated by blanks, ready to be indexed or looked for."""
    return " ".join(word for part in parts for word in _words(part))


def passage_words(passage: StoredPassage) -> str:
    """What is indexed of a passage, in every store.

    A Chinese title or heading counts twice: what a passage is about stands there (如何申请 below 年假政策), and words
    that jieba's dictionary lacks are cut into characters that are everywhere in longer texts beside it. English ones
    count once: twice, they outweigh the text of the demo's handbook.
    """
    named = (passage.document.title, passage.heading)
    twice = [part for part in named for _ in range(2 if _CHINESE.search(part) else 1)]
    return search_text(*twice, passage.lead, passage.text)


def _words(text: str) -> list[str]:
    # A line break inside Chinese text stands for nothing; left in, it would cut words in two.
    text = _WRAPPED.sub("", unicodedata.normalize("NFKC", text))
    text = _POSSESSIVE.sub("", text)
    text = _THOUSANDS.sub("", _APOSTROPHE.sub("", text))
    words = []
    for match in _WORD.finditer(text):
        raw = match.group()
        word = _normal(raw)
        if word not in ENGLISH_STOP_WORDS or _ACRONYM.fullmatch(raw):
            words.append(word if not word.isascii() or not word.isalpha() else stem(word))
    return words


@lru_cache(maxsize=50_000)
def _normal(raw: str) -> str:
    lowered = raw.lower()
    if lowered.isascii():
        return lowered
    plain = "".join(char for char in unicodedata.normalize("NFKD", lowered) if not unicodedata.combining(char))
    return plain if plain.isascii() else lowered


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """The stem of a lower-case English word; safe on every thread."""
    # A stemmer keeps the word it works on in itself, so every thread has its own.
    stemmer = getattr(_local, "stemmer", None)
    if stemmer is None:
        stemmer = _local.stemmer = snowballstemmer.stemmer("english")
    stemmed: str = stemmer.stemWord(word)
    return stemmed
