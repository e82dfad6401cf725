"""Office files and books made with the libraries that people's programs use, and ways to spoil them."""

from __future__ import annotations

import datetime
import io
import zipfile
from collections.abc import Mapping

import docx
import openpyxl
import pptx
import pptx.util
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls, qn

CONTAINER = (
    '<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
)
CHAPTER_ONE = (
    '<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.1//EN" '
    '"http://www.w3.org/TR/xhtml11/DTD/xhtml11.dtd"><html xmlns="http://www.w3.org/1999/xhtml"><head><title/>'
    '<script src="x.js"/></head><body><h1>第一章</h1><p>从前有一座山。<a id="here"/>山里有座庙。</p></body></html>'
)


def make_docx() -> bytes:
    document = docx.Document()
    document.core_properties.title = ""
    document.add_heading("员工手册", 0)
    document.add_heading("Annual leave", 1)
    document.add_paragraph("Every employee has 15 days.")
    document.add_paragraph("# not a heading")
    document.add_paragraph("first", style="List Bullet")
    document.add_paragraph("second", style="List Bullet")
    document.add_paragraph("one", style="List Number")
    document.add_paragraph("two", style="List Number")
    table = document.add_table(rows=3, cols=2)
    for row, cells in zip(table.rows, [("城市", "Limit"), ("上海", "600 | 700"), ("Merged", "")], strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    table.rows[2].cells[0].merge(table.rows[2].cells[1])
    document.add_heading("病假", 2)
    document.add_paragraph("请假前告知主管。")
    return saved(document)


def make_docx_of(body: str) -> bytes:
    """A Word document of this XML; its list 1 has numbers at all depths."""
    document = docx.Document()
    parsed = parse_xml(f"<w:body {nsdecls('w')}>{body}</w:body>")
    for element in list(parsed):
        document.element.body.insert(len(document.element.body) - 1, element)
    numbering = document.part.numbering_part.element
    for level in numbering.iter(qn("w:lvl")):
        level.remove(level.find(qn("w:numFmt")))
        level.append(parse_xml(f'<w:numFmt {nsdecls("w")} w:val="decimal"/>'))
    kind = next(numbering.iterchildren(qn("w:abstractNum")))
    for depth in range(1, 3):
        kind.append(parse_xml(f'<w:lvl {nsdecls("w")} w:ilvl="{depth}"><w:numFmt w:val="decimal"/></w:lvl>'))
    number = next(number for number in numbering.iterchildren(qn("w:num")) if number.get(qn("w:numId")) == "1")
    number.find(qn("w:abstractNumId")).set(qn("w:val"), kind.get(qn("w:abstractNumId")))
    return saved(document)


def make_xlsx() -> bytes:
    book = openpyxl.Workbook()
    book.properties.title = "费用 2026"
    sheet = book.active
    sheet.title = "Limits"
    sheet.append(["City", "Limit", None, "Since"])
    sheet.append(["上海", 600.0, None, datetime.datetime(2026, 1, 1)])
    sheet.append([None, None, None, None])
    sheet.append(["Berlin", 12.5, None, True])
    hidden = book.create_sheet("Secret")
    hidden.append(["hidden words"])
    hidden.sheet_state = "hidden"
    book.create_sheet("名单").append(["姓名", "部门"])
    book["名单"].append(["王芳", "人力资源部"])
    return saved(book)


def make_pptx() -> bytes:
    show = pptx.Presentation()
    first = show.slides.add_slide(show.slide_layouts[1])
    first.shapes.title.text = "New office 新办公室"
    first.placeholders[1].text = "Second floor\nOpen from May"
    first.notes_slide.notes_text_frame.text = "Mention the parking."
    second = show.slides.add_slide(show.slide_layouts[5])
    second.shapes.title.text = "时间表"
    inch = pptx.util.Inches(1)
    table = second.shapes.add_table(2, 2, inch, inch, inch, inch).table
    for (row, column), text in {(0, 0): "日期", (0, 1): "事项", (1, 0): "5 月", (1, 1): "搬迁"}.items():
        table.cell(row, column).text = text
    group = second.shapes.add_group_shape()
    group.shapes.add_textbox(inch, inch, inch, inch).text_frame.text = "in a group"
    return saved(show)


def make_epub(changes: Mapping[str, str] | None = None) -> bytes:
    parts = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OEBPS/book.opf": '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        "<metadata><dc:title>山里的故事</dc:title></metadata><manifest>"
        '<item id="b" href="text/two.xhtml" media-type="application/xhtml+xml"/>'
        '<item id="a" href="text/one%20a.xhtml" media-type="application/xhtml+xml"/>'
        '<item id="n" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>'
        '<item id="out" href="../../../etc/passwd" media-type="application/xhtml+xml"/></manifest>'
        '<spine><itemref idref="a"/><itemref idref="out"/><itemref idref="b"/><itemref idref="n"/></spine></package>',
        "OEBPS/text/one a.xhtml": CHAPTER_ONE,
        "OEBPS/text/two.xhtml": "<html><body><h1>Two</h1><p>The end.</p></body></html>",
        "OEBPS/nav.xhtml": "<html><body><h1>Contents</h1></body></html>",
    }
    return zipped({**parts, **(changes or {})})


def zipped(parts: Mapping[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return out.getvalue()


def changed(data: bytes, changes: Mapping[str, str | bytes]) -> bytes:
    """An archive with members replaced or added."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts: dict[str, str | bytes] = {name: archive.read(name) for name in archive.namelist()}
    return zipped({**parts, **changes})


def saved(document: object) -> bytes:
    out = io.BytesIO()
    document.save(out)  # type: ignore[attr-defined]
    return out.getvalue()
