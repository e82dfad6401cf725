"""EPUB books: the chapters in their order of reading."""

from __future__ import annotations

import io
import posixpath
import re
import urllib.parse
import zipfile
from collections.abc import Iterator
from typing import Any

from defusedxml import ElementTree

from services.retriever.bad_document import BadDocument
from services.retriever.decoding import clean, decode_page
from services.retriever.html_text import html_to_text

from .content import Content, Writer
from .recognising import ENCRYPTED
from .zipped import checked_parts

MAX_CHAPTERS = 5_000
_KIND = "the EPUB book"
_CONTAINER, _ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
_PAGES = {"application/xhtml+xml", "text/html", "application/x-dtbook+xml"}
_VOID = "br|hr|img|input|meta|link|col|area|base|wbr|source|track|embed"
_SELF_CLOSED = re.compile(rf"<(?!(?:{_VOID})\b)([a-z][a-z0-9]*)\b([^<>]*)/>", re.IGNORECASE)


def read_epub(data: bytes) -> Content:
    parts = checked_parts(data, _KIND, doctypes=True)
    with zipfile.ZipFile(io.BytesIO(data)) as book:
        package_name = _package_name(book)
        if package_name not in parts:
            raise BadDocument(f"{_KIND} has no list of its chapters")
        package = ElementTree.fromstring(book.read(package_name))
        locked = _locked(book) if _ENCRYPTION in parts else set()
        writer = Writer()
        first = ""
        for number, name in enumerate(_chapters(package, package_name)):
            if number >= MAX_CHAPTERS:
                raise BadDocument(f"{_KIND} has more than {MAX_CHAPTERS:,} chapters; split it")
            if name in locked:
                raise BadDocument(f"{_KIND} {ENCRYPTED}")
            if name not in parts:
                continue
            # As XML an element may close itself; read as HTML it would swallow what follows.
            page = _SELF_CLOSED.sub(r"<\1\2></\1>", clean(decode_page(book.read(name))))
            title, text = html_to_text(page)
            first = first or title
            writer.add(text)
    return writer.content(_title(package) or first)


def _package_name(book: zipfile.ZipFile) -> str:
    for element in ElementTree.fromstring(book.read(_CONTAINER)).iter():
        if _local(element) == "rootfile":
            return str(element.get("full-path", ""))
    return ""


def _chapters(package: Any, package_name: str) -> Iterator[str]:
    """Names of the parts to read. One that leads out of the book is no name of a part, and so is passed over."""
    folder = posixpath.dirname(package_name)
    pages = {}
    for item in package.iter():
        listing = "nav" in item.get("properties", "").split()
        if _local(item) == "item" and item.get("media-type") in _PAGES and not listing:
            path = urllib.parse.unquote(item.get("href", "").partition("#")[0])
            pages[item.get("id")] = posixpath.normpath(posixpath.join(folder, path))
    for reference in package.iter():
        if _local(reference) == "itemref" and reference.get("idref") in pages:
            yield pages.pop(reference.get("idref"))


def _locked(book: zipfile.ZipFile) -> set[str]:
    """Parts that only a licensed reader can open. Fonts usually are, which does no harm."""
    found = ElementTree.fromstring(book.read(_ENCRYPTION)).iter()
    return {urllib.parse.unquote(element.get("URI", "")) for element in found if _local(element) == "CipherReference"}


def _title(package: Any) -> str:
    return next((str(element.text or "") for element in package.iter() if _local(element) == "title"), "")


def _local(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]
