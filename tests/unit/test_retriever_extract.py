"""Files become text, or are refused with a reason that helps."""

from __future__ import annotations

import contextlib
import io
import time

import pypdf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retriever.bad_document import BadDocument
from services.retriever.chunking import chunk
from services.retriever.extract import extract
from services.retriever.html_text import html_to_text
from tests.servers.pdf import make_pdf

CHINESE = "年假政策\n\n员工每年有十五天年假，需要提前申请。"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_text_is_read_in_every_usual_encoding(encoding: str) -> None:
    document = extract("leave.txt", CHINESE.encode(encoding))
    assert document.text == CHINESE
    assert document.language == "zh"
    assert document.title == "年假政策"


def test_western_text_of_an_old_encoding_is_refused_and_not_read_as_chinese() -> None:
    with pytest.raises(BadDocument, match="save it as UTF-8"):
        extract("menu.txt", "Crème brûlée, naïve façade, größer, señor".encode("latin-1"))


def test_line_ends_become_newlines() -> None:
    assert extract("a.txt", b"one\r\ntwo\rthree").text == "one\ntwo\nthree"


def test_a_markdown_title_comes_from_its_header_then_its_first_heading_then_its_name() -> None:
    assert extract("a.md", b"---\ntitle: Header\n---\n# Heading").title == "Header"
    assert extract("a.md", b"intro\n\n## The `code` **Heading** ##\n").title == "The code Heading"
    assert extract("the-name.md", b"just text").title == "the-name"


def test_a_markdown_header_becomes_metadata_and_keeps_the_offsets() -> None:
    source = "---\ndepartment: hr\nyear: 2026\nfrom: 2026-01-01\ntags: [a, b]\nbad key: x\nratio: .inf\n---\n\nBody."
    document = extract("a.md", source.encode())
    assert document.metadata == {"department": "hr", "year": 2026, "from": "2026-01-01"}
    assert document.text.strip() == "Body."
    assert document.text.index("Body.") == source.index("Body.")


def test_a_rule_at_the_top_is_no_header() -> None:
    source = b"---\nJust: text: with colons\n---\nmore"
    assert extract("a.md", source).text == source.decode()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.md", b"", "empty"),
        ("a.md", b" \n\t ", "empty"),
        ("a.html", b"<html><head><title>x</title></head><body><nav>menu</nav></body></html>", "no text"),
        ("a.md", b"%PDF-1.7 ...", "a PDF"),
        ("a.txt", b"PK\x03\x04rest", "ZIP"),
        ("a.md", b"text\0with zero", "binary"),
        ("a.md", bytes(range(1, 32)) * 20, "binary"),
        ("a.md", b"\x80\x81\x82\xff\xfe", "UTF-8"),
        ("a.pdf", b"hello", "not a PDF"),
        ("a.pdf", b"%PDF-1.7\nbroken", "damaged"),
        ("a.exe", b"x", "unknown kind"),
        ("noending", b"x", "unknown kind"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_its_reason(name: str, data: bytes, reason: str) -> None:
    with pytest.raises(BadDocument, match=reason):
        extract(name, data)


def test_a_pdf_gives_its_text_page_by_page() -> None:
    document = extract("a.pdf", make_pdf(["First page here.", "Second page there."]))
    assert len(document.pages) == 2
    assert document.text[document.pages[1] :].strip() == "Second page there."
    assert not document.markdown


def test_an_encrypted_pdf_is_refused_and_one_without_a_password_is_read() -> None:
    def encrypted(password: str) -> bytes:
        writer = pypdf.PdfWriter(clone_from=io.BytesIO(make_pdf(["Secret text."])))
        writer.encrypt(password, "owner", algorithm="AES-256")
        out = io.BytesIO()
        writer.write(out)
        return out.getvalue()

    with pytest.raises(BadDocument, match="encrypted"):
        extract("a.pdf", encrypted("user"))
    assert "Secret" in extract("a.pdf", encrypted("")).text


def test_a_pdf_without_text_is_taken_for_a_scan() -> None:
    with pytest.raises(BadDocument, match="OCR"):
        extract("a.pdf", make_pdf([""]))


def test_html_keeps_headings_lists_tables_and_code_and_loses_the_rest() -> None:
    title, text = html_to_text(
        "<html><head><title>Site</title><style>x{}</style></head><body><nav>Menu</nav><script>bad()</script>"
        "<h1>Leave <em>policy</em></h1><p>One<br>two\n three</p><!-- no -->"
        "<ul><li>a<ol><li>b</li></ol></li><li><p>c</p></li></ul>"
        "<table><tr><th>City</th><th>Limit</th></tr><tr><td>上海</td><td>600</td></tr></table>"
        "<pre>x = 1\n  y</pre><div>loose<div>deep</div>tail</div><footer>(c)</footer></body></html>"
    )
    assert title == "Leave policy"
    assert text.split("\n\n") == [
        "# Leave policy",
        "One\ntwo three",
        "- a\n  1. b\n- c",
        "| City | Limit |\n| --- | --- |\n| 上海 | 600 |",
        "```\nx = 1\n  y\n```",
        "loose",
        "deep",
        "tail",
    ]


def test_a_page_that_lies_in_a_form_is_read_without_the_forms_fields() -> None:
    page = b"<body><form><h1>Leave</h1><p>15 days.</p><button>Send</button><select><option>x</select></form>"
    assert extract("a.html", page).text == "# Leave\n\n15 days."


def test_html_without_end_tags_is_read_as_browsers_read_it() -> None:
    _, text = html_to_text(
        "<p>one<p>two<ul><li>a<li>b</ul><table><tr><th>K<th>V<tr><td>1<td>2</table>" + "<p>x" * 5_000
    )
    assert text.split("\n\n")[:4] == ["one", "two", "- a\n- b", "| K | V |\n| --- | --- |\n| 1 | 2 |"]


def test_html_nested_without_end_is_refused_at_once() -> None:
    with pytest.raises(BadDocument, match="nested too deeply"):
        extract("a.html", b"<div>" * 1_000_000 + b"x")


def test_html_as_deep_as_allowed_is_read() -> None:
    assert "here" in extract("a.html", b"<div>" * 299 + b"here").text


@given(st.binary(max_size=300), st.sampled_from(["a.md", "a.txt", "a.html", "a.pdf"]))
def test_no_file_makes_extraction_fail_in_another_way(data: bytes, name: str) -> None:
    try:
        document = extract(name, data)
    except BadDocument:
        return
    document.text.encode()
    assert document.title


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("pdf.md", b"# PDFs begin\n\nwith `%PDF-1.7`.", "# PDFs begin\n\nwith `%PDF-1.7`."),
        ("box.txt", b"The ftyp box", "The ftyp box"),
        ("tags.txt", b"ID3 tags", "ID3 tags"),
        ("a.md", b"---\na: !!bool no such\n---\nx", "---\na: !!bool no such\n---\nx"),
        ("a.html", b"<script>" + b"if(i<n){}" * 400 + b"</script><p>Hello", "Hello"),
        ("a.html", b"<form id=aspnetForm><h1>Policy</h1><p>Text</form>", "# Policy\n\nText"),
        (
            "a.html",
            b"<ul><li>one<ul><li>in</ul>more</li><ul><li>two</ul>and</ul>",
            "- one more\n  - in\n  - two\n- and",
        ),
        ("a.html", b"<pre>a<br>b</pre>", "```\na\nb\n```"),
        ("a.html", b"<meta charset=iso-8859-1><p>Gr\xfc\xdfe \x96", "Grüße –"),
        ("a.html", b'<meta charset="big5"><p>' + "公司休假規定".encode("big5"), "公司休假規定"),
        ("a.csv", b"a,b\n1," + b"x" * 200_000, "| a | b |\n| --- | --- |\n| 1 | " + "x" * 200_000 + " |"),
        ("a.csv", b"sep=;\na;b\n1,5;2", "| a | b |\n| --- | --- |\n| 1,5 | 2 |"),
    ],
)
def test_what_looks_wrong_and_is_usual_is_read(name: str, data: bytes, text: str) -> None:
    assert extract(name, data).text.strip() == text


def test_half_a_character_in_a_header_stays_out_of_the_metadata() -> None:
    assert extract("a.md", b'---\na: "x\\ud800\\0"\n---\nText').metadata == {"a": "x\ufffd"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.md", "# a" + " " * 20_000 + "b"),
        ("a.md", "# a" + " #" * 20_000 + "b"),
        ("a.html", "<p>中" + "\n" * 20_000 + "x"),
        ("a.csv", ",".join("c" * 9_000) + "\n" + "1\n" * 9_000),
    ],
    ids=["blanks in a heading", "marks in a heading", "line breaks", "a table that is wide above and long below"],
)
def test_what_was_made_to_take_for_ever_does_not(name: str, text: str) -> None:
    started = time.process_time()
    with contextlib.suppress(BadDocument):
        document = extract(name, text.encode())
        chunk(document.text, limit=300, markdown=document.markdown)
    assert time.process_time() - started < 10, "it takes a part of a second on an idle machine"
