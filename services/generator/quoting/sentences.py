"""Sentences of Chinese and English prose, and text without its Markdown."""

from __future__ import annotations

import re

from services.generator.citations import without_marks

_ABBREVIATED = """
    mr mrs ms dr prof sr jr st no nos vs etc e.g i.e eg ie cf al approx est max min fig figs eq sec ch p pp vol ed inc
    ltd co corp dept gov u.s u.k a.m p.m jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri
"""
_ABBREVIATIONS = frozenset(_ABBREVIATED.split())
_END = re.compile(r"[。！？!?…]+[”’」』）\"')\]]*|\.+[”’\"')\]]*(?=\s|$)")
_WORD_BEFORE = re.compile(r"([A-Za-z][A-Za-z.]*)$")
_GOES_ON = re.compile(r"\s+[a-z]|\s*[,;:，、；：]")

_LINK = re.compile(r"!?\[([^\]\n]*)\]\((?:[^()\s]|\([^()\s]*\))*(?:\s+\"[^\"\n]*\")?\)")
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,200}>")
_EMPHASIS = re.compile(r"(\*\*\*|\*\*|__|~~)(?=\S)(.+?)(?<=\S)\1")
_LIGHT_EMPHASIS = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*(?![\w*])")
_CODE = re.compile(r"`+([^`\n]+)`+")
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+\-.!|>~])")
_SPACE = re.compile(r"[ \t\u3000\xa0]+")


def plain(text: str) -> str:
    """One line of source text without Markdown and HTML, and without anything that looks like a citation."""
    text = _LINK.sub(r"\1", text)
    text = _TAG.sub("", text)
    for pattern, kept in ((_EMPHASIS, r"\2"), (_LIGHT_EMPHASIS, r"\1"), (_CODE, r"\1"), (_ESCAPE, r"\1")):
        text = pattern.sub(kept, text)
    text = text.replace("**", "").replace("|", " ").replace("`", "'").replace("<", "‹").replace(">", "›")
    return without_marks(_SPACE.sub(" ", text)).strip()


def split_sentences(text: str) -> list[str]:
    """`text`, one paragraph on one line, as its sentences."""
    sentences: list[str] = []
    start = 0
    for end in _END.finditer(text):
        if _is_end(text, end):
            sentences.append(text[start : end.end()].strip())
            start = end.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence]


def _is_end(text: str, end: re.Match[str]) -> bool:
    if text[end.start()] != ".":
        # A quoted question inside a sentence ("Really?" he said) does not end it.
        return not _GOES_ON.match(text, end.end())
    if _GOES_ON.match(text, end.end()):
        return False
    word = _WORD_BEFORE.search(text, 0, end.start())
    if word is None:
        # "1." at the start is a number, "in 2026." is an end.
        return not re.fullmatch(r"\s*\d{1,3}", text[: end.start()])
    name = word[1].lower()
    return name not in _ABBREVIATIONS and len(name) > 1
