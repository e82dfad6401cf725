"""A document as a page: its text with a passage marked, page by page, in parts where it is long."""

from __future__ import annotations

import html
import itertools
import re
from bisect import bisect_right
from dataclasses import dataclass

from starlette.responses import HTMLResponse, Response

from services.common.documents import DocumentMeta, View

from .marking import Span, marked_markdown, marked_plain, parts
from .originals import PAGE_CSP, SAFE_HEADERS

MAX_PART_CHARS = 40_000
"""Characters of a part. Hostile Markdown of this length takes about a second to read."""
_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]+")
_WORDS = {
    "en": {
        "original": "Original file",
        "page": "Page {n}",
        "earlier": "Earlier",
        "later": "Later",
        "part": "{at} of {of}",
    },
    "zh": {
        "original": "原始文件",
        "page": "第 {n} 页",
        "earlier": "上一部分",
        "later": "下一部分",
        "part": "{at} / {of}",
    },
}
_PAGE = """<!doctype html>
<html lang="{language}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="stylesheet" href="/static/document.css"></head>
<body><header class="document"><strong>{title}</strong>{links}</header><main{lang}>{body}</main>{more}</body></html>
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody wants to see: a passage by its ordinal, or a part counted from 1. `bare` leaves out links, which
    somebody whose token is in no address could not follow."""

    passage: int | None = None
    part: int | None = None
    language: str = "en"
    bare: bool = False


def document_response(document_id: str, meta: DocumentMeta, view: View, wanted: Wanted) -> Response:
    """The page. The header `Baton-Part` says which part of how many it is."""
    span = _span(view, wanted.passage)
    starts = parts(view.text, view.passages, MAX_PART_CHARS)
    at = bisect_right(starts, span.start) - 1 if span else min(max((wanted.part or 1) - 1, 0), len(starts) - 1)
    end = starts[at + 1] if at + 1 < len(starts) else len(view.text)
    words = _WORDS[wanted.language]
    address = f"/documents/{document_id}"
    number = bisect_right(view.pages, span.start if span else starts[at])
    fragment = f"#page={number}" if number and meta.media_type == "application/pdf" else ""
    page = _PAGE.format(
        language="zh-CN" if wanted.language == "zh" else "en",
        title=html.escape(meta.title),
        links="" if wanted.bare else f' <a href="{address}?original=1{fragment}">{words["original"]}</a>',
        lang=_lang(view.text[starts[at] : end]),
        body=_body(view, span, starts[at], end, words["page"]),
        more="" if wanted.bare or len(starts) == 1 else _more(address, at, len(starts), words),
    )
    headers = {**SAFE_HEADERS, "Content-Security-Policy": PAGE_CSP, "Baton-Part": f"{at + 1}/{len(starts)}"}
    return HTMLResponse(page, headers=headers)


def _lang(text: str) -> str:
    """The attribute for the language of a text, by the rule of the page (static/elements.js); empty for neither."""
    sample = text[:2_000]
    han, words = len(_HAN.findall(sample)), len(_LATIN.findall(sample))
    if not han and not words:
        return ""
    return ' lang="zh-CN"' if han >= words else ' lang="en"'


def _span(view: View, passage: int | None) -> Span:
    if passage is None or not 0 <= passage < len(view.passages):
        return Span(0, 0)
    start, end = view.passages[passage]
    return Span(start, end)


def _body(view: View, span: Span, start: int, end: int, label: str) -> str:
    """The text of a part, with a heading for each of its pages."""
    first = max(bisect_right(view.pages, start), 1)
    edges = [start, *(edge for edge in view.pages if start < edge < end), end]
    render = marked_markdown if view.markdown else marked_plain
    found: list[str] = []
    scrolled = False
    for number, (left, right) in enumerate(itertools.pairwise(edges), first):
        if view.pages:
            found.append(f'<p class="page" id="page={number}">{label.format(n=number)}</p>')
        inside = span.within(left, right)
        found.append(render(view.text[left:right], inside, first=not scrolled))
        scrolled = scrolled or bool(inside)
    return "\n".join(found)


def _more(address: str, at: int, of: int, words: dict[str, str]) -> str:
    earlier = f'<a href="{address}?part={at}">{words["earlier"]}</a>' if at else ""
    later = f'<a href="{address}?part={at + 2}">{words["later"]}</a>' if at + 1 < of else ""
    return f'<nav class="parts">{earlier} <span>{words["part"].format(at=at + 1, of=of)}</span> {later}</nav>'
