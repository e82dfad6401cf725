"""Files that lie, are broken or mean harm: each gets a reason that says what it is, quickly."""

from __future__ import annotations

import functools
import io
import re
import time
import zipfile
import zlib
from collections.abc import Callable

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.retriever.bad_document import BadDocument
from services.retriever.extract import extract
from tests.office_files import changed, make_docx, make_epub, make_pptx, make_xlsx, saved, zipped
from tests.servers.pdf import make_pdf

LAUGHS = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>'
OUTSIDE = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>'
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


def ole(stream: str) -> bytes:
    return OLE + stream.encode("utf-16-le") + bytes(100)


def far_out() -> bytes:
    book = openpyxl.Workbook()
    for row in range(1, 1_300):
        book.active.cell(row, 16_384, "x")  # type: ignore[union-attr]
    return saved(book)


def locked_zip() -> bytes:
    data = bytearray(make_docx())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for found in re.finditer(re.escape(mark), bytes(data)):
            data[found.start() + offset] |= 1
    return bytes(data)


def many_parts() -> bytes:
    return changed(make_docx(), {f"word/media/{number}.txt": "" for number in range(10_001)})


def twice_the_same() -> bytes:
    out = io.BytesIO(make_docx())
    with zipfile.ZipFile(out, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("word/document.xml", "<x/>")
    return out.getvalue()


def circular_pages() -> bytes:
    return make_pdf(["x"]).replace(b"/Kids [4 0 R]", b"/Kids [2 0 R]")


def pdf_bomb() -> bytes:
    """A page whose stream unpacks to 150 MB."""
    packed = zlib.compress(zlib.compress(bytes(150_000_000), 9), 9)
    body = b"<< /Length %d /Filter [/FlateDecode /FlateDecode] >>\nstream\n%s\nendstream" % (len(packed), packed)
    return re.sub(rb"<< /Length \d+ >>\nstream\n.*?\nendstream", lambda _: body, make_pdf(["x"]), flags=re.DOTALL)


HOSTILE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "an image named .md": ("a.md", lambda: PNG, "named .md, but it is a PNG image"),
    "an image named .pdf": ("a.pdf", lambda: PNG, "named .pdf, but it is a PNG image"),
    "a zip named .pdf": ("a.pdf", lambda: zipped({"a": "b"}), "named .pdf, but it is a ZIP archive"),
    "a workbook named .docx": ("a.docx", make_xlsx, "named .docx, but it is an Excel workbook"),
    "a Word document named .pdf": ("a.pdf", make_docx, "named .pdf, but it is a Word document"),
    "a Word document named .csv": ("a.csv", make_docx, "named .csv, but it is a Word document"),
    "a PDF named .docx": ("a.docx", lambda: make_pdf(["x"]), "named .docx, but it is a PDF"),
    "a page named .pdf": ("a.pdf", lambda: b"<!-- x -->\n<!DOCTYPE html><p>x", "named .pdf, but it is an HTML page"),
    "a page named .xlsx": ("a.xlsx", lambda: b"<html><table>", "named .xlsx, but it is an HTML page"),
    "a book named .pptx": ("a.pptx", make_epub, "named .pptx, but it is an EPUB book"),
    "an old .doc": ("a.docx", lambda: ole("WordDocument"), "named .docx, but it is an old Word document"),
    "an old .xls": ("a.xlsx", lambda: ole("Workbook"), "named .xlsx, but it is an old Excel workbook"),
    "text named .docx": ("a.docx", lambda: b"hello", "named .docx, but it is not a Word document"),
    "binary named .txt": ("a.txt", lambda: bytes(range(256)) * 4, "binary file"),
    "RTF named .txt": ("a.txt", lambda: b"{\\rtf1 x}", "named .txt, but it is an RTF document"),
    "an encrypted document": ("a.docx", lambda: ole("EncryptedPackage"), "is encrypted; remove the password first"),
    "an encrypted archive": ("a.docx", locked_zip, "is encrypted; remove the password first"),
    "a locked book": (
        "a.epub",
        lambda: make_epub(
            {"META-INF/encryption.xml": '<e><CipherReference URI="OEBPS/text/one%20a.xhtml"/></e>'},
        ),
        "is encrypted; remove the password first",
    ),
    "half a document": ("a.docx", lambda: make_docx()[:3_000], "damaged or cut off"),
    "half a workbook": ("a.xlsx", lambda: make_xlsx()[:2_000], "damaged or cut off"),
    "half a book": ("a.epub", lambda: make_epub()[:-30], "damaged or cut off"),
    "a broken part": ("a.pptx", lambda: changed(make_pptx(), {"ppt/presentation.xml": "<x"}), "damaged or cut off"),
    "a bomb in a document": (
        "a.docx", lambda: changed(make_docx(), {"word/media/a.bin": bytes(60_000_000)}), "may be a bomb",
    ),
    "a bomb in a book": ("a.epub", lambda: make_epub({"x": "0" * 60_000_000}), "may be a bomb"),
    "laughs in a document": (
        "a.docx", lambda: changed(make_docx(), {"word/document.xml": LAUGHS}), "declares entities",
    ),
    "laughs in UTF-16": (
        "a.docx", lambda: changed(make_docx(), {"word/styles.xml": LAUGHS.encode("utf-16")}), "declares entities",
    ),
    "laughs in a workbook": ("a.xlsx", lambda: changed(make_xlsx(), {"xl/workbook.xml": LAUGHS}), "declares entities"),
    "laughs in slides": (
        "a.pptx", lambda: changed(make_pptx(), {"ppt/slides/slide1.xml": LAUGHS}), "declares entities",
    ),
    "an entity from outside": (
        "a.docx", lambda: changed(make_docx(), {"docProps/core.xml": OUTSIDE}), "declares entities",
    ),
    "laughs in a book": ("a.epub", lambda: make_epub({"OEBPS/book.opf": LAUGHS}), "declares entities"),
    "an outside entity in a chapter": ("a.epub", lambda: make_epub({"OEBPS/text/two.xhtml": OUTSIDE}), "declares"),
    "a name that climbs": ("a.docx", lambda: changed(make_docx(), {"../../x": "y"}), "leads out of it"),
    "an absolute name": ("a.xlsx", lambda: changed(make_xlsx(), {"/etc/x": "y"}), "leads out of it"),
    "a name with a drive": ("a.epub", lambda: make_epub({"C:\\x": "y"}), "leads out of it"),
    "too many parts": ("a.docx", many_parts, "more than 10,000 parts"),
    "a part twice": ("a.docx", twice_the_same, "two parts called"),
    "cells far out": ("a.xlsx", far_out, "too far apart"),
    "an empty workbook": ("a.xlsx", lambda: saved(openpyxl.Workbook()), "no text"),
    "a book without chapters": ("a.epub", lambda: zipped({"META-INF/container.xml": "<x/>"}), "no list of its"),
    "pages in a circle": ("a.pdf", circular_pages, "damaged|no text"),
    "a PDF bomb": ("a.pdf", pdf_bomb, "may be a bomb"),
    "half a PDF": ("a.pdf", lambda: make_pdf(["x"])[:300], "damaged|no text"),
    "HTML nested for ever": ("a.html", lambda: b"<div>" * 100_000, "nested too deeply"),
    "a chapter nested for ever": (
        "a.epub", lambda: make_epub({"OEBPS/text/two.xhtml": "<div>" * 100_000}), "nested too deeply",
    ),
    "comments without end": ("a.pdf", lambda: b"<!-- -->" * 2_000 + b"x", "not a PDF"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_with_what_is_wrong_with_it(what: str) -> None:
    name, make, reason = HOSTILE[what]
    data = make()
    started = time.process_time()
    with pytest.raises(BadDocument, match=reason):
        extract(name, data)
    assert time.process_time() - started < 10


def test_a_chapter_of_an_old_book_may_name_its_document_type() -> None:
    assert "从前" in extract("a.epub", make_epub()).text


def test_a_sheet_that_claims_to_be_enormous_is_read_by_what_is_in_it() -> None:
    data = make_xlsx()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        sheet = archive.read("xl/worksheets/sheet1.xml").decode()
    lie = re.sub(r'<dimension ref="[^"]*"', '<dimension ref="A1:XFD1048576"', sheet)
    assert lie != sheet
    assert extract("a.xlsx", changed(data, {"xl/worksheets/sheet1.xml": lie})).text == extract("a.xlsx", data).text


MADE = {
    "docx": functools.cache(make_docx),
    "xlsx": functools.cache(make_xlsx),
    "pptx": functools.cache(make_pptx),
    "epub": functools.cache(make_epub),
    "pdf": functools.cache(lambda: make_pdf(["One page.", "Two pages."])),
}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(MADE)), st.data())
def test_a_file_with_flipped_bytes_or_cut_short_is_read_or_refused(kind: str, draw: st.DataObject) -> None:
    data = bytearray(MADE[kind]())
    for _ in range(draw.draw(st.integers(0, 5))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    if draw.draw(st.booleans()):
        del data[draw.draw(st.integers(0, len(data))) :]
    try:
        document = extract(f"a.{kind}", bytes(data))
    except BadDocument:
        return
    document.text.encode()
