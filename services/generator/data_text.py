"""Text from documents, tools and earlier turns, so that in a prompt it stays what it is: data.

Three things could make it more. The tags of our own fence: they are disarmed, also where look-alikes or invisible
characters hide them. The control tokens of chat templates (`<|im_start|>`, `[INST]`, `<s>` …): many servers read them
inside a message as the beginning of another one. And bracketed numbers, which would be taken for citations.
"""

from __future__ import annotations

import re
from functools import lru_cache

from .citations import without_marks

# Nobody sees them, models do: zero-width and direction marks, soft hyphens, tag characters ("ASCII smuggling").
# U+200C and U+200D stay, scripts and emoji need them.
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\U000e0000-\U000e007f]")
# Every repetition has a bound or a fixed end, so that no text takes long.
_HIDDEN = r"[\s\u200c\u200d]{0,50}"
_RESERVED = "|".join(r"[\s\u200c\u200d]{0,2}".join(name) for name in ("passage", "think", "tool_"))
_FENCE = re.compile(rf"[<＜‹〈⟨﹤](?={_HIDDEN}(?:[/／⁄∕]{_HIDDEN})?(?:{_RESERVED}))", re.IGNORECASE)
_TEMPLATE = re.compile(
    r"<(?=\s*[|｜])|<(?=</?SYS>>)|<(?=/?s>)|<(?=(?:start|end)_of_turn>)|<(?=/?(?:bos|eos|pad|unk)>)|<(?=[^\S\n]*/?"
    r"(?:system|user|assistant|human)\s*>)",
    re.IGNORECASE,
)
_BRACKET = re.compile("[<＜‹〈⟨﹤]")
_REMEMBERED_CHARS = 4_000
_INSTRUCTION = re.compile(r"\[(/?)(INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|IMG)\]", re.IGNORECASE)


def _seen(text: str) -> str:
    return text if text.isascii() else _INVISIBLE.sub("", text)


def harmless(text: str) -> str:
    """`text` without what a prompt's structure is made of; other markup and all that people see stays."""
    text = _seen(text)
    if _BRACKET.search(text):
        text = _TEMPLATE.sub("&lt;", _FENCE.sub("&lt;", text))
    return _INSTRUCTION.sub(r"(\1\2)", text) if "[" in text else text


def as_data(text: str) -> str:
    """`harmless`, and without anything that looks like a citation."""
    return _as_data(text) if len(text) <= _REMEMBERED_CHARS else _disarmed(text)


def _disarmed(text: str) -> str:
    return harmless(without_marks(_seen(text).strip()))


_as_data = lru_cache(maxsize=500)(_disarmed)


def as_result(text: str) -> str:
    """What a tool returned. In JSON, lists of numbers stay as they are."""
    return harmless(text) if text.lstrip().startswith(("{", "[")) else as_data(text)


def as_attribute(text: str) -> str:
    """One line that fits between double quotes."""
    text = " ".join(without_marks(_seen(text)).split())
    text = text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
    return harmless(text)
