"""HTML pages."""

from __future__ import annotations

from services.retriever.decoding import clean, decode_page
from services.retriever.html_text import html_to_text

from .content import Content


def read_html(data: bytes) -> Content:
    title, text = html_to_text(clean(decode_page(data)))
    return Content(title, text, markdown=True)
