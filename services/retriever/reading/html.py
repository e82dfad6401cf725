"""HTML pages."""

from __future__ import annotations

import codecs
import re

from services.retriever.bad_document import BadDocument
from services.retriever.decoding import clean, decode
from services.retriever.html_text import html_to_text

from .content import Content

_CHARSET = re.compile(rb"<meta\b[^>]*\bcharset\s*=\s*[\"']?\s*([A-Za-z0-9_-]{1,40})", re.IGNORECASE)
_LOOKED_AT = 4_096


def read_html(data: bytes) -> Content:
    title, text = html_to_text(clean(_decoded(data)))
    return Content(title, text, markdown=True)


def _decoded(data: bytes) -> str:
    """By its bytes as any text; where those say nothing, by what the page says itself."""
    try:
        return decode(data)
    except BadDocument:
        named = _CHARSET.search(data[:_LOOKED_AT])
        if named is None:
            raise
        try:
            return codecs.decode(data, named[1].decode("ascii"), "strict").replace("\0", "")
        except (LookupError, ValueError, AttributeError, TypeError):
            raise BadDocument(f"it is not in {named[1].decode('ascii')}, as it says; save it as UTF-8") from None
