"""From an answer's body to the text that the model reads."""

from __future__ import annotations

import codecs
import json
import re
import warnings
from dataclasses import dataclass
from typing import Any

import httpx
from bs4 import BeautifulSoup

_HOLE = re.compile(r"\{(/[^{}]*)\}")
_POINTER = re.compile(r"(/([^~]|~0|~1)*)?")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_NOT_READ = ("script", "style", "head", "template", "noscript")
_BLANK_LINES = re.compile(r"\s*\n\s*")


class Unreadable(Exception):
    """The body is not of a kind that can be read as text."""


class Missing(Exception):
    """The answer has no such place."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What is taken of a JSON answer: the value at a JSON pointer (RFC 6901), or a text with `{/pointers}`."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Selection:
        """Raises ValueError."""
        pointers = [text] if text.startswith("/") else _HOLE.findall(text)
        if not pointers:
            raise ValueError("expected a JSON pointer such as /data/items, or a text with such pointers in braces")
        for pointer in pointers:
            if not _POINTER.fullmatch(pointer):
                raise ValueError(f"{pointer!r} is no JSON pointer: after ~ comes 0 or 1")
        return cls(text)

    def of(self, document: Any) -> str:
        """Raises Missing."""
        if self.text.startswith("/"):
            return shown(at(document, self.text))
        return _HOLE.sub(lambda match: shown(at(document, match[1])), self.text)


def at(document: Any, pointer: str) -> Any:
    """The value at a JSON pointer. Raises Missing."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict) and key in document:
            document = document[key]
        elif isinstance(document, list) and _INDEX.fullmatch(key) and int(key) < len(document):
            document = document[int(key)]
        else:
            raise Missing(pointer)
    return document


def shown(value: Any) -> str:
    """A JSON value for a model: a text as it is, everything else as compact JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def as_text(body: bytes, headers: httpx.Headers, selection: Selection | None) -> str:
    """The body's text, or what `selection` takes of it.

    Raises:
        Unreadable, Missing
    """
    media_type, charset = _content_type(headers)
    if selection is not None or media_type == "application/json" or media_type.endswith("+json"):
        document = _json(body, charset)
        return shown(document) if selection is None else selection.of(document)
    text = _text(body, charset, media_type)
    return _plain(text) if media_type in ("text/html", "application/xhtml+xml") else text


def _content_type(headers: httpx.Headers) -> tuple[str, str]:
    media_type, _, parameters = headers.get("content-type", "").partition(";")
    charset = re.search(r"charset\s*=\s*\"?([A-Za-z0-9_.:-]{1,40})", parameters, re.IGNORECASE)
    return media_type.strip().lower(), charset[1] if charset else "utf-8"


def _json(body: bytes, charset: str) -> Any:
    if not body.strip():
        return ""
    try:
        return json.loads(body if charset.lower() in ("utf-8", "utf8") else body.decode(charset))
    except (ValueError, LookupError, RecursionError):
        raise Unreadable("no JSON") from None


def _text(body: bytes, charset: str, media_type: str) -> str:
    known = media_type.startswith("text/") or media_type in ("application/xml", "application/xhtml+xml", "")
    if not known and not media_type.endswith("+xml") and body:
        raise Unreadable(media_type[:60])
    try:
        codecs.lookup(charset)
        text = body.decode(charset, "strict" if media_type == "" else "replace")
    except (ValueError, LookupError):
        raise Unreadable("no text") from None
    if "\0" in text:
        raise Unreadable("no text")
    return text


def _plain(html: str) -> str:
    """The text of a page, a line for each piece of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            page = BeautifulSoup(html, "html.parser")
            for element in page(_NOT_READ):
                element.decompose()
            text = page.get_text("\n")
        except RecursionError:
            raise Unreadable("nested too deeply") from None
    return _BLANK_LINES.sub("\n", text).strip()
