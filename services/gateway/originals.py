"""The original documents behind the sources, as pages that can do no harm."""

from __future__ import annotations

import html
from functools import partial

import nh3
from markdown_it import MarkdownIt
from starlette.responses import HTMLResponse, Response

from services.common.documents import Original

_CSP = "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"
_SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, max-age=60",
}
_render_markdown = partial(MarkdownIt("commonmark", {"html": False}).enable("table").render)
_PAGE = """<!doctype html>
<html><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="stylesheet" href="/static/document.css"></head>
<body><main>{body}</main></body></html>
"""


def original_response(document: Original) -> Response:
    """The document for a browser: a PDF as it is, everything else as sanitised HTML without scripts."""
    kind = document.meta.media_type
    if kind == "application/pdf":
        return Response(document.data, media_type=kind, headers={**_SAFE_HEADERS, "Content-Disposition": "inline"})
    text = _decode(document.data)
    if kind == "text/markdown":
        body = nh3.clean(_render_markdown(text))
    elif kind == "text/html":
        body = nh3.clean(text)
    else:
        body = f"<pre>{html.escape(text)}</pre>"
    page = _PAGE.format(title=html.escape(document.meta.title), body=body)
    return HTMLResponse(page, headers={**_SAFE_HEADERS, "Content-Security-Policy": f"{_CSP}; sandbox allow-popups"})


def _decode(data: bytes) -> str:
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("utf-8", "replace")
