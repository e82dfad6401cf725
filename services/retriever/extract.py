"""Files to text. The text is what passages are cut from and what their offsets refer to."""

from __future__ import annotations

import datetime
import io
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pypdf
import pypdf.errors
import yaml

from baton_proto.language import guess_language
from baton_proto.messages import Language

from .bad_document import BadDocument
from .decoding import clean, decode
from .filters import is_key
from .html_text import html_to_text

MARKDOWN, TEXT, HTML, PDF = "text/markdown", "text/plain", "text/html", "application/pdf"
MEDIA_TYPES = {
    ".md": MARKDOWN,
    ".markdown": MARKDOWN,
    ".txt": TEXT,
    ".text": TEXT,
    ".html": HTML,
    ".htm": HTML,
    ".pdf": PDF,
}
MAX_PAGES = 5_000
MAX_TEXT_CHARS = 20_000_000
MAX_TITLE_CHARS = 200
MAX_METADATA_CHARS = 512
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_MARKDOWN_TITLE = re.compile(r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t]*#*[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says. `markdown` tells whether `text` has Markdown's structure. `pages` are the offsets at which
    pages 1, 2, 3, … start; empty where there are no pages. `metadata` are plain values that filters can ask for."""

    title: str
    text: str
    media_type: str
    language: Language
    markdown: bool = False
    pages: tuple[int, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


def extract(name: str, data: bytes) -> Document:
    """The document in a file called `name`. Takes time with large PDFs: call it in a thread.

    Raises:
        BadDocument: nothing can be read from it.
    """
    media_type = MEDIA_TYPES.get(PurePosixPath(name).suffix.lower())
    if media_type is None:
        raise BadDocument(f"unknown kind of file; these are read: {', '.join(MEDIA_TYPES)}")
    if not data.strip():
        raise BadDocument("the file is empty")
    pages: tuple[int, ...] = ()
    metadata: dict[str, Any] = {}
    if media_type == PDF:
        title, text, pages = _pdf(data)
    elif media_type == HTML:
        try:
            title, text = html_to_text(clean(decode(data)))
        except RecursionError:
            raise BadDocument("its HTML is nested too deeply") from None
    else:
        text = clean(decode(data))
        title, text, metadata = _markdown(text) if media_type == MARKDOWN else (_first_line(text), text, {})
    if not text.strip():
        raise BadDocument("there is no text in it" + ("; is it a scan? Run OCR first" if media_type == PDF else ""))
    if len(text) > MAX_TEXT_CHARS:
        raise BadDocument(f"its text is longer than {MAX_TEXT_CHARS:,} characters; split it")
    return Document(
        title=" ".join(title.split())[:MAX_TITLE_CHARS] or PurePosixPath(name).stem,
        text=text,
        media_type=media_type,
        language=guess_language(text, "en"),
        markdown=media_type in (MARKDOWN, HTML),
        pages=pages,
        metadata=metadata,
    )


def _markdown(text: str) -> tuple[str, str, dict[str, Any]]:
    metadata: dict[str, Any] = {}
    found = _FRONT_MATTER.match(text)
    if found and (header := _front_matter(found.group(1))) is not None:
        metadata = header
        # Blanks in its place keep the offsets those of the file.
        text = re.sub(r"[^\n]", " ", found.group()) + text[found.end() :]
    heading = _MARKDOWN_TITLE.search(text)
    title = str(metadata.pop("title", "") or (heading.group(1) if heading else ""))
    return re.sub(r"[*_`]", "", title), text, metadata


def _front_matter(source: str) -> dict[str, Any] | None:
    """The plain values of a YAML header, for lists and maps cannot be filtered by equality; None if it is no header."""
    try:
        loaded = yaml.safe_load(source)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    if not isinstance(loaded, dict):
        return None
    plain = {}
    for key, value in loaded.items():
        if isinstance(value, (datetime.date, datetime.datetime)):
            value = value.isoformat()
        if is_key(key) and is_plain(value):
            plain[key] = value
    return plain


def is_plain(value: Any) -> bool:
    """Whether a metadata value is one that a filter can ask for."""
    if isinstance(value, str):
        return len(value) <= MAX_METADATA_CHARS
    if isinstance(value, int):  # bool as well
        return -(2**63) <= value < 2**63
    return isinstance(value, float) and math.isfinite(value)


def _first_line(text: str) -> str:
    line = text.lstrip().partition("\n")[0].strip()
    return line if len(line) <= 80 else ""


def _pdf(data: bytes) -> tuple[str, str, tuple[int, ...]]:
    if b"%PDF-" not in data[:1024]:
        raise BadDocument("this is not a PDF, whatever its name says")
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise BadDocument("the PDF is encrypted; save it without a password")
        if len(reader.pages) > MAX_PAGES:
            raise BadDocument(f"the PDF has more than {MAX_PAGES:,} pages; split it")
        title = str((reader.metadata.title if reader.metadata else "") or "")
        pages = [clean(page.extract_text()).strip() for page in reader.pages]
    except BadDocument:
        raise
    except Exception as error:  # a broken PDF can make pypdf raise almost anything
        raise BadDocument(f"the PDF is damaged ({type(error).__name__})") from error
    starts, parts, offset = [], [], 0
    for page in pages:
        starts.append(offset)
        parts.append(page + "\n\n")
        offset += len(page) + 2
    return clean(title) or _first_line("".join(parts)), "".join(parts), tuple(starts)
