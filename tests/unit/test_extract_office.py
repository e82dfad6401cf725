"""Word, Excel, PowerPoint, EPUB, CSV: their text in its order, with headings, lists, tables and pages."""

from __future__ import annotations

import pptx
import pytest

from services.retriever.extract import Document, extract
from tests.office_files import make_docx, make_docx_of, make_epub, make_pptx, make_xlsx, saved


def blocks(document: Document) -> list[str]:
    return [block for block in document.text.split("\n\n") if block]


def page(document: Document, number: int) -> str:
    ends = [*document.pages[1:], len(document.text)]
    return document.text[document.pages[number - 1] : ends[number - 1]].strip()


def test_a_word_document_keeps_headings_lists_and_tables_in_their_order() -> None:
    document = extract("handbook.docx", make_docx())
    assert document.title == "员工手册"
    assert document.markdown
    assert document.pages == ()
    assert blocks(document) == [
        "# 员工手册",
        "## Annual leave",
        "Every employee has 15 days.",
        "\\# not a heading",
        "- first\n- second\n1. one\n2. two",
        "| 城市 | Limit |\n| --- | --- |\n| 上海 | 600 \\| 700 |\n| Merged |  |",
        "### 病假",
        "请假前告知主管。",
    ]


def test_each_shown_sheet_of_a_workbook_is_a_page_with_a_table() -> None:
    document = extract("limits.xlsx", make_xlsx())
    assert document.title == "费用 2026"
    assert page(document, 1) == (
        "# Limits\n\n| City | Limit | Since |\n| --- | --- | --- |\n"
        "| 上海 | 600 | 2026-01-01 |\n| Berlin | 12.5 | TRUE |"
    )
    assert page(document, 2) == "# 名单\n\n| 姓名 | 部门 |\n| --- | --- |\n| 王芳 | 人力资源部 |"
    assert "hidden" not in document.text


def test_each_slide_is_a_page_with_its_title_texts_tables_and_notes() -> None:
    document = extract("move.pptx", make_pptx())
    assert document.title == "New office 新办公室"
    assert len(document.pages) == 2
    assert page(document, 1) == "# New office 新办公室\n\n- Second floor\n- Open from May\n\nMention the parking."
    assert page(document, 2) == "# 时间表\n\n| 日期 | 事项 |\n| --- | --- |\n| 5 月 | 搬迁 |\n\nin a group"


def test_a_book_is_read_in_the_order_of_its_spine_and_nothing_outside_of_it() -> None:
    document = extract("story.epub", make_epub())
    assert document.title == "山里的故事"
    assert document.language == "zh"
    assert blocks(document) == ["# 第一章", "从前有一座山。山里有座庙。", "# Two", "The end."]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "城市,Limit\n上海,600\n"),
        ("a.csv", "城市;Limit\r\n上海;600\r\n"),
        ("a.tsv", "城市\tLimit\n上海\t600"),
        ("a.csv", "城市\tLimit\n上海\t600"),
        ("a.csv", '"城市","Limit"\n"上\n海","600"\n'.replace("上\n海", "上海")),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "gb18030", "utf-16"])
def test_a_table_of_text_is_read_with_its_own_delimiter_and_encoding(name: str, text: str, encoding: str) -> None:
    document = extract(name, text.encode(encoding))
    assert document.text.strip() == "| 城市 | Limit |\n| --- | --- |\n| 上海 | 600 |"
    assert document.title == "a"


def test_a_cell_with_a_line_break_and_a_comma_stays_a_cell() -> None:
    text = extract("a.csv", b'Item,Price\n"Desk, large\nwhite",120\nChair,50\n').text
    assert "| Desk, large white | 120 |" in text


def test_a_word_document_keeps_repeated_rows_and_its_numbers_and_has_moved_text_once() -> None:
    inside = (
        "<w:p><w:moveFrom><w:r><w:t>moved</w:t></w:r></w:moveFrom><w:del><w:r><w:delText>gone</w:delText></w:r></w:del>"
        "<w:r><w:t>first</w:t></w:r></w:p><w:p><w:moveTo><w:r><w:t>moved</w:t></w:r></w:moveTo></w:p>"
        "<w:tbl><w:tr><w:tc><w:p><w:r><w:t>A</w:t></w:r></w:p></w:tc><w:tc><w:tbl><w:tr><w:tc><w:tcPr>"
        '<w:gridSpan w:val="3"/></w:tcPr><w:p><w:r><w:t>B</w:t></w:r></w:p></w:tc></w:tr></w:tbl><w:p/></w:tc>'
        "<w:tc><w:p><w:r><w:t>C</w:t></w:r></w:p></w:tc></w:tr><w:sdt><w:sdtContent><w:tr>"
        + "".join(f"<w:tc><w:p><w:r><w:t>{n}</w:t></w:r></w:p></w:tc>" for n in (1, 2, 3))
        + "</w:tr></w:sdtContent></w:sdt></w:tbl>"
        + "".join(
            f'<w:p><w:pPr><w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="1"/></w:numPr></w:pPr>'
            f"<w:r><w:t>item</w:t></w:r></w:p>"
            for level in (0, 1, 1, 0, 1)
        )
    )
    assert blocks(extract("a.docx", make_docx_of(inside))) == [
        "first",
        "moved",
        "| A | B | C |\n| --- | --- | --- |\n| 1 | 2 | 3 |",
        "1. item\n  1. item\n  2. item\n2. item\n  1. item",
    ]


def test_a_slide_keeps_a_shape_that_has_the_number_of_its_title() -> None:
    presentation = pptx.Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[5])
    slide.shapes.title.text = "Title"
    box = slide.shapes.add_textbox(0, 0, 100, 100)
    box.text_frame.text = "kept"
    box._element.nvSpPr.cNvPr.set("id", str(slide.shapes.title.shape_id))
    assert extract("a.pptx", saved(presentation)).text.split() == ["#", "Title", "kept"]
