"""Plain text and Markdown."""

from __future__ import annotations

import datetime
import math
import re
from typing import Any

import yaml

from services.retriever.blocks import markdown_blocks
from services.retriever.decoding import clean, decode
from services.retriever.filters import is_key

from .content import Content

MAX_METADATA_CHARS = 512
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)


def read_text(data: bytes) -> Content:
    text = clean(decode(data))
    return Content(first_line(text), text)


def read_markdown(data: bytes) -> Content:
    text = clean(decode(data))
    metadata: dict[str, Any] = {}
    found = _FRONT_MATTER.match(text)
    if found and (header := _front_matter(found.group(1))) is not None:
        metadata = header
        # Blanks in its place keep the offsets those of the file.
        text = re.sub(r"[^\n]", " ", found.group()) + text[found.end() :]
    title = str(metadata.pop("title", "")) or _first_heading(text)
    return Content(re.sub(r"[*_`]", "", title), text, markdown=True, metadata=metadata)


def _first_heading(text: str) -> str:
    return next((block.heading for block in markdown_blocks(text, 0, len(text)) if block.kind == "heading"), "")


def first_line(text: str) -> str:
    line = text.lstrip().partition("\n")[0].strip()
    return line if len(line) <= 80 else ""


def is_plain(value: Any) -> bool:
    """Whether a metadata value is one that a filter can ask for."""
    if isinstance(value, str):
        return len(value) <= MAX_METADATA_CHARS
    if isinstance(value, int):  # bool as well
        return -(2**63) <= value < 2**63
    return isinstance(value, float) and math.isfinite(value)


def _front_matter(source: str) -> dict[str, Any] | None:
    """The plain values of a YAML header, for lists and maps cannot be filtered by equality; None if it is no header."""
    try:
        loaded = yaml.safe_load(source)
    except MemoryError:
        raise
    except Exception:  # what is wrong in a header can be almost any error of the library's
        return None
    if not isinstance(loaded, dict):
        return None
    plain = {}
    for key, value in loaded.items():
        if isinstance(value, (datetime.date, datetime.datetime)):
            value = value.isoformat()
        if isinstance(value, str):
            value = clean(value)
        if is_key(key) and is_plain(value):
            plain[key] = value
    return plain
