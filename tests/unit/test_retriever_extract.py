"""Files become text, or are refused with a reason that helps."""

from __future__ import annotations

import io

import pypdf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retriever.bad_document import BadDocument
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


@pytest.mark.parametrize(
    ("charset", "says"),
    [("big5", "\u7279\u4f11\u5047\u6709\u5341\u4e94\u5929"), ("windows-1252", "caf\u00e9 r\u00e9sum\u00e9")],
)
def test_html_is_read_in_the_charset_that_it_names(charset: str, says: str) -> None:
    page = f'<html><head><meta http-equiv="Content-Type" content="text/html; charset={charset}"></head><p>{says}'
    assert extract("a.html", page.encode(charset)).text == says


def test_html_in_another_charset_than_it_names_is_refused() -> None:
    for name in ("big5", "no-such", "rot13", "base64"):
        page = f"<meta charset={name}><p>".encode() + b"\xff\xfe\x81"
        with pytest.raises(BadDocument, match=f"it is not in {name}, as it says; save it as UTF-8"):
            extract("a.html", page)


@pytest.mark.parametrize("text", ["ID3 tags are in MP3 files.", "GIF8 is how a GIF begins.", "OggS begins a page."])
def test_a_text_about_a_kind_of_file_is_not_taken_for_one(text: str) -> None:
    assert extract("a.txt", text.encode()).text == text


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
