"""Files to text. The text is what passages are cut from and what their offsets refer to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from baton_proto.language import guess_language
from baton_proto.messages import Language

from .bad_document import BadDocument
from .reading import recognising
from .reading.content import MAX_TEXT_CHARS, Content
from .reading.csv_text import read_csv, read_tsv
from .reading.docx import read_docx
from .reading.epub import read_epub
from .reading.html import read_html
from .reading.pdf import read_pdf
from .reading.pptx import read_pptx
from .reading.text import is_plain, read_markdown, read_text
from .reading.xlsx import read_xlsx

__all__ = ["MEDIA_TYPES", "Document", "extract", "is_plain"]

MAX_TITLE_CHARS = 200
_OFFICE = "application/vnd.openxmlformats-officedocument"


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of file. `bytes_are` is what its first bytes must say; empty for text, which has no mark of its own."""

    media_type: str
    read: Callable[[bytes], Content]
    bytes_are: str = ""


_MARKDOWN = _Kind("text/markdown", read_markdown)
_TEXT = _Kind("text/plain", read_text)
_HTML = _Kind("text/html", read_html)
_KINDS = {
    ".md": _MARKDOWN,
    ".markdown": _MARKDOWN,
    ".txt": _TEXT,
    ".text": _TEXT,
    ".html": _HTML,
    ".htm": _HTML,
    ".pdf": _Kind("application/pdf", read_pdf, recognising.PDF),
    ".docx": _Kind(f"{_OFFICE}.wordprocessingml.document", read_docx, recognising.WORD),
    ".xlsx": _Kind(f"{_OFFICE}.spreadsheetml.sheet", read_xlsx, recognising.EXCEL),
    ".pptx": _Kind(f"{_OFFICE}.presentationml.presentation", read_pptx, recognising.POWERPOINT),
    ".csv": _Kind("text/csv", read_csv),
    ".tsv": _Kind("text/tab-separated-values", read_tsv),
    ".epub": _Kind("application/epub+zip", read_epub, recognising.EPUB),
}
MEDIA_TYPES = {suffix: kind.media_type for suffix, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says. `markdown` tells whether `text` has Markdown's structure. `pages` are the offsets at which
    pages (slides, sheets) 1, 2, 3, … start; empty where there are none. `metadata` are plain values that filters can
    ask for."""

    title: str
    text: str
    media_type: str
    language: Language
    markdown: bool = False
    pages: tuple[int, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


def extract(name: str, data: bytes) -> Document:
    """The document in a file called `name`. May take long and much memory: strangers' files are read in a sandbox.

    Raises:
        BadDocument: nothing can be read from it.
    """
    suffix = PurePosixPath(name).suffix.lower()
    kind = _KINDS.get(suffix)
    if kind is None:
        raise BadDocument(f"unknown kind of file; these are read: {', '.join(_KINDS)}")
    if not data.strip():
        raise BadDocument("the file is empty")
    if kind.bytes_are:
        recognising.refuse_unless(suffix, kind.bytes_are, data)
    else:
        _refuse_what_is_not_text(suffix, data)
    content = _read(kind, suffix, data)
    if not content.text.strip():
        raise BadDocument("there is no text in it")
    if len(content.text) > MAX_TEXT_CHARS:
        raise BadDocument(f"its text is longer than {MAX_TEXT_CHARS:,} characters; split it")
    return Document(
        title=" ".join(content.title.split())[:MAX_TITLE_CHARS] or PurePosixPath(name).stem,
        text=content.text,
        media_type=kind.media_type,
        language=guess_language(content.text, "en"),
        markdown=content.markdown,
        pages=content.pages,
        metadata=content.metadata,
    )


def _refuse_what_is_not_text(suffix: str, data: bytes) -> None:
    kind = recognising.kind_of(data)
    if kind and kind != recognising.HTML:  # a text may be about HTML
        raise BadDocument(f"named {suffix}, but it is {kind}; give it the right name or convert it")


def _read(kind: _Kind, suffix: str, data: bytes) -> Content:
    try:
        return kind.read(data)
    except (BadDocument, MemoryError):
        raise
    except RecursionError:
        raise BadDocument(f"what is in the {suffix} file is nested too deeply") from None
    except Exception as error:  # a broken file can make its library raise almost anything
        if "Memory allocation failed" in str(error):  # libxml2's own word for it
            raise MemoryError from error
        raise BadDocument(f"the {suffix} file is damaged or cut off ({type(error).__name__})") from error
