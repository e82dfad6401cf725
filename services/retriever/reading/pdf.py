"""PDFs, page by page."""

from __future__ import annotations

import io
import logging

import pypdf
import pypdf.errors

from services.retriever.bad_document import BadDocument
from services.retriever.decoding import clean

from .content import MAX_PAGES, Content, Writer
from .recognising import ENCRYPTED
from .text import first_line


def read_pdf(data: bytes) -> Content:
    try:
        return _read(data)
    except pypdf.errors.LimitReachedError:
        raise BadDocument("the PDF unpacks to far more than a document has; it may be a bomb") from None


def _read(data: bytes) -> Content:
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    reader = pypdf.PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        raise BadDocument(f"the PDF {ENCRYPTED}")
    writer = Writer()
    for number, page in enumerate(reader.pages):
        if number == MAX_PAGES:
            raise BadDocument(f"the PDF has more than {MAX_PAGES:,} pages; split it")
        writer.page()
        writer.add(clean(page.extract_text()).strip())
    content = writer.content("", markdown=False)
    if not content.text.strip():
        raise BadDocument("there is no text in it; is it a scan? Run OCR first")
    title = str((reader.metadata.title if reader.metadata else "") or "")
    return Content(clean(title) or first_line(content.text), content.text, pages=content.pages)
