"""The original documents behind the sources, as pages that can do no harm."""

from __future__ import annotations

import html
from functools import partial
from urllib.parse import quote

import nh3
from markdown_it import MarkdownIt
from starlette.responses import HTMLResponse, Response

from services.common.documents import Original

PAGE_CSP = (
    "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "sandbox allow-popups allow-downloads"
)
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Who may read it can change, and so can who sits at a browser.
    "Cache-Control": "no-store",
}
_render_markdown = partial(MarkdownIt("commonmark", {"html": False}).enable("table").render)
_PAGE = """<!doctype html>
<html><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="stylesheet" href="/static/document.css"></head>
<body><main>{body}</main></body></html>
"""


def file_response(document: Original) -> Response:
    """The file itself: a PDF for the browser's viewer, everything else only to be saved."""
    shown = document.meta.media_type == "application/pdf"
    where = f"{'inline' if shown else 'attachment'}; filename*=utf-8''{quote(document.meta.name, safe='')}"
    headers = {**SAFE_HEADERS, "Content-Disposition": where}
    if shown:  # in a sandbox the browser's viewer does not work
        return Response(document.data, media_type="application/pdf", headers=headers)
    headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return Response(document.data, media_type="application/octet-stream", headers=headers)


def original_response(document: Original) -> Response:
    """A document of which no text is kept, for a browser: text as sanitised HTML without scripts, or the file."""
    kind = document.meta.media_type
    if kind == "application/pdf":
        return file_response(document)
    text = _decode(document.data)
    if kind == "text/markdown":
        body = nh3.clean(_render_markdown(text))
    elif kind == "text/html":
        body = nh3.clean(text)
    else:
        body = f"<pre>{html.escape(text)}</pre>"
    page = _PAGE.format(title=html.escape(document.meta.title), body=body)
    return HTMLResponse(page, headers={**SAFE_HEADERS, "Content-Security-Policy": PAGE_CSP})


def _decode(data: bytes) -> str:
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("utf-8", "replace")
