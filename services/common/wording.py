"""Short texts for people, in the request's language."""

from __future__ import annotations

from baton_proto.messages import Language


def choose(language: Language, *, zh: str, en: str) -> str:
    return zh if language == "zh" else en


def clean(text: str) -> str:
    """`text` without lone surrogates, which no UTF-8 message can carry."""
    return text.encode("utf-8", "replace").decode("utf-8")


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters of `text`, on one line."""
    line = " ".join(clean(text[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
