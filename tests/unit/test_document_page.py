"""A document as a page: the passage is marked exactly, and no text becomes markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.documents import DocumentMeta, Original, View
from services.gateway.document_page import MAX_PART_CHARS, Wanted, document_response
from services.gateway.marking import Span, marked_markdown, marked_plain, parts
from services.gateway.originals import file_response
from services.gateway.uploads import BadUpload, safe_name

TEXT = """# Title

First sentence here. **Second** sentence goes. Third one.

> quoted *words* stand here

- item one
- item two

| a | b |
|---|---|
| 1 | 2 |
| 3 | 4 |

```
x = 1
y = 2
```

Last [link](https://example.com/there "why") for now.\r
年假共十五天。结转五天。
"""
META = DocumentMeta("T", "text/markdown", "t.md", "", ("everybody",))


class _Page(HTMLParser):
    """The elements and attributes of a page, its text, and the text within `mark`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.marked, self.text, self._depth = "", "", 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        self._depth += tag == "mark"

    def handle_endtag(self, tag: str) -> None:
        self._depth -= tag == "mark"

    def handle_data(self, data: str) -> None:
        self.text += data
        self.marked += data if self._depth else ""


def span(first: str, last: str) -> Span:
    return Span(TEXT.index(first), TEXT.index(last) + len(last))


@pytest.mark.parametrize(
    ("first", "last", "marked"),
    [
        ("**Second", "goes.", "Second sentence goes."),
        ("First", "one.", "First sentence here. Second sentence goes. Third one."),
        ("Third", "item one", "Third one. quoted words stand here item one"),
        ("# Title", "here.", "Title First sentence here."),
        ("| 3", "x = 1", "3 4 x = 1"),
        ("- item two", "item two", "item two"),
        ("年假", "天。", "年假共十五天。"),
        ("there", "there", "Last link for now. 年假共十五天。结转五天。"),  # an edge in an address: all of it
    ],
)
def test_exactly_the_passage_is_marked(first: str, last: str, marked: str) -> None:
    page = _Page(marked_markdown(TEXT, span(first, last)))
    assert " ".join(page.marked.split()) in (marked, marked.replace(" ", "")) or _without_blanks(
        page.marked
    ) == _without_blanks(marked)
    assert [value for name, value in page.attributes if name == "id"] == ["passage"]
    assert _without_blanks(page.text) == _without_blanks(_Page(marked_markdown(TEXT)).text)


def _without_blanks(text: str) -> str:
    return "".join(text.split())


def test_plain_text_is_marked_to_the_character() -> None:
    page = _Page(marked_plain("a <b> c & d", Span(2, 9)))
    assert (page.marked, page.text, page.tags) == ("<b> c &", "a <b> c & d", {"pre", "mark"})


HARMLESS = {
    *(
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "p",
        "em",
        "strong",
        "code",
        "pre",
        "blockquote",
        "ul",
        "ol",
        "li",
        "hr",
        "br",
    ),
    *("a", "table", "thead", "tbody", "tr", "th", "td", "mark"),
}
PIECES = (
    *(
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<mark id=passage>",
        '"><svg onload=x>',
        "&lt;script&gt;",
    ),
    *(
        "[x](javascript:alert(1))",
        '[x](y "<mark>")',
        "![x](http://e.example/p)",
        "<javascript:alert(1)>",
        "`<b>`",
        "```\n<i>\n",
    ),
    *(
        "\ufdd0",
        "\ufdd1",
        "\0",
        "\r\n",
        "\r",
        "\n\n",
        "\n",
        "# ",
        "> ",
        "- ",
        "| a | b |\n|---|---|\n| ",
        "    ",
        "**",
        "*",
        "字",
    ),
    *(
        "<!--",
        "<![CDATA[",
        "&#x3c;script&#x3e;",
        "<a href='data:text/html,x' id=passage>",
        "\\",
        "[r]: vbscript:x\n\n[r]",
        " a ",
    ),
)


@given(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.integers(0, 200), st.integers(0, 200), st.booleans()
)
def test_no_text_becomes_markup(text: str, start: int, length: int, markdown: bool) -> None:
    passage = (min(start, len(text)), min(start + length, len(text)))
    view = View(text, markdown, passages=(passage,))
    response = document_response("d" * 32, META, view, Wanted(passage=0, bare=True))
    body = re.search(r"<main[^>]*>(.*)</main></body>", bytes(response.body).decode(), re.S)
    assert body is not None
    page = _Page(body[1])
    assert page.tags <= HARMLESS
    for name, value in page.attributes:
        assert name in ("href", "rel", "title", "id", "start", "align", "style", "class")
        assert name != "id" or value == "passage"
        assert name not in ("style", "class")
        assert name != "href" or not re.match(r"\s*(javascript|data|vbscript):", value or "", re.I)
    assert sum(name == "id" for name, _ in page.attributes) <= 1


def test_a_long_text_is_shown_in_parts_with_ways_to_the_others() -> None:
    text = "".join(f"Paragraph {n} says little.\n\n" for n in range(5_000))
    starts = [found.start() for found in re.finditer("Paragraph", text)]
    passages = tuple((start, start + 20) for start in starts)
    cuts = parts(text, passages, MAX_PART_CHARS)
    assert set(cuts) <= {0, *starts}
    assert all(b - a <= MAX_PART_CHARS for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True))
    view = View(text, True, passages=passages)
    response = document_response("d" * 32, META, view, Wanted(passage=4_000))
    page = bytes(response.body).decode()
    at, of = map(int, response.headers["baton-part"].split("/"))
    assert of == len(cuts)
    assert '<mark id="passage">Paragraph 4000 says </mark>' in page
    assert f"?part={at - 1}" in page
    assert f"?part={at + 1}" in page
    assert len(page) < 3 * MAX_PART_CHARS
    assert "Paragraph 0 " in bytes(document_response("d" * 32, META, view, Wanted()).body).decode()


def test_pages_can_be_gone_to_and_a_passage_that_never_was_marks_nothing() -> None:
    view = View("One.Two.Three.", pages=(0, 4, 8), passages=((4, 8),))
    page = bytes(document_response("d" * 32, META, view, Wanted(passage=0, language="zh")).body).decode()
    assert re.findall('id="([^"]+)"', page) == ["page=1", "page=2", "passage", "page=3"]
    assert "第 2 页" in page
    for ordinal in (1, -1, 10**9):
        assert "<mark" not in bytes(document_response("d" * 32, META, view, Wanted(passage=ordinal)).body).decode()


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "text/markdown", "application/xhtml+xml"])
def test_a_file_that_could_run_something_is_only_saved(kind: str) -> None:
    response = file_response(Original(b"<script>", DocumentMeta("t", kind, 'x"\r\n.svg')))
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"] == "attachment; filename*=utf-8''x%22%0D%0A.svg"
    assert "sandbox" in response.headers["content-security-policy"]


@given(st.text(max_size=40) | st.lists(st.sampled_from(["a", "..", ".", "/", "\\", "C:", "\0", "é"])).map("".join))
def test_a_name_that_is_taken_stays_in_its_folder(name: str) -> None:
    try:
        safe = safe_name(name)
    except BadUpload:
        return
    assert not safe.startswith("/")
    assert not {"", ".", ".."}.intersection(safe.split("/"))
    assert "\\" not in safe
    assert not re.match("[A-Za-z]:", safe)
    assert safe_name(safe) in (safe, safe.replace("%22", '"'))


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(
    ("text", "lang"), [("Leave of 15 days.", "en"), ("员工有 15 天 annual leave。", "zh-CN"), ("42 + 1", None)]
)
def test_a_text_is_read_out_in_its_own_language_whatever_the_readers_is(language: str, text: str, lang: str) -> None:
    page = bytes(document_response("d" * 32, META, View(text), Wanted(language=language)).body).decode()
    found = re.search(r"<main(?: lang=\"([^\"]*)\")?>", page)
    assert found is not None
    assert found[1] == lang
    assert f'<html lang="{"zh-CN" if language == "zh" else "en"}">' in page
