"""Files of every kind that is read, made by the libraries that people use, and broken ones in many ways."""

from __future__ import annotations

import io
import itertools
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import docx
import openpyxl
import pptx
import pypdf

from services.retriever.extract import MEDIA_TYPES
from tests.servers.pdf import make_pdf

LARGE = 2_000_000
"""Bytes of a file that is too large (BATON_MAX_DOCUMENT_BYTES of the workers)."""
UNPACKED = 20_000_000
"""Bytes of an archive's files that are too many (BATON_ARCHIVE_MAX_BYTES of the workers)."""
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4


def _saved(document: object) -> bytes:
    out = io.BytesIO()
    document.save(out)  # type: ignore[attr-defined]
    return out.getvalue()


def make_docx(title: str, text: str) -> bytes:
    document = docx.Document()
    document.add_heading(title, 1)
    document.add_paragraph(text)
    return _saved(document)


def make_xlsx(title: str, text: str) -> bytes:
    book = openpyxl.Workbook()
    book.active.title = "Sheet"
    for row in (["name", "note"], [title, text], ["other", 42]):
        book.active.append(row)
    return _saved(book)


def make_pptx(title: str, text: str) -> bytes:
    show = pptx.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[1])
    slide.shapes.title.text = title
    slide.placeholders[1].text = text
    return _saved(show)


def make_epub(title: str, text: str) -> bytes:
    return make_zip(
        {
            "mimetype": b"application/epub+zip",
            "META-INF/container.xml": b'<?xml version="1.0"?><container version="1.0" '
            b'xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="book.opf" '
            b'media-type="application/oebps-package+xml"/></rootfiles></container>',
            "book.opf": f'<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0" '
            f'unique-identifier="id"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title>'
            f'<dc:identifier id="id">x</dc:identifier><dc:language>en</dc:language></metadata><manifest><item id="a" '
            f'href="a.xhtml" media-type="application/xhtml+xml"/></manifest><spine><itemref idref="a"/></spine>'
            f"</package>".encode(),
            "a.xhtml": f'<html xmlns="http://www.w3.org/1999/xhtml"><head><title>{title}</title></head><body><h1>{title}'
            f"</h1><p>{text}</p></body></html>".encode(),
        }
    )


def make_zip(members: dict[str, bytes]) -> bytes:
    return make_zip_of(members.items())


def make_zip_of(members: Iterable[tuple[str, bytes]]) -> bytes:
    """As `make_zip`; the same name may come twice."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


def _markdown(title: str, text: str) -> bytes:
    return f"# {title}\n\n{text}\n".encode()


def _text(title: str, text: str) -> bytes:
    return f"{title}\n\n{text}\n".encode()


def _html(title: str, text: str) -> bytes:
    return f"<title>{title}</title><h1>{title}</h1><p>{text}</p>".encode()


def _csv(title: str, text: str) -> bytes:
    return f'name,note\n"{title}","{text}"\nother,42\n'.encode()


MAKERS: dict[str, Callable[[str, str], bytes]] = {
    ".md": _markdown,
    ".txt": _text,
    ".html": _html,
    ".pdf": lambda title, text: make_pdf([f"{title}. {text}"]),
    ".docx": make_docx,
    ".xlsx": make_xlsx,
    ".csv": _csv,
    ".pptx": make_pptx,
    ".epub": make_epub,
}


def good_files() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of readable files without end, all kinds in turn, no two of the same content."""
    kinds = [suffix for suffix in MAKERS if suffix in MEDIA_TYPES]
    for number, suffix in enumerate(itertools.cycle(kinds)):
        long = " ".join(f"Sentence {n} of {number} is there to be cut." for n in range(number % 40))
        data = MAKERS[suffix](f"Paper {number}", f"The word of it is subject{number}. {long}")
        yield f"{suffix[1:]}/folder {number % 7}/paper {number}{suffix}", data


def _encrypted_pdf() -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(make_pdf(["secret"])))
    writer.encrypt("password", algorithm="AES-256")
    return _written(writer)


def _written(writer: pypdf.PdfWriter) -> bytes:
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def _blank_pdf() -> bytes:
    writer = pypdf.PdfWriter()
    writer.add_blank_page(200, 200)
    return _written(writer)


def encrypted_zip() -> bytes:
    """An archive that says its file is encrypted: the flag is set in both headers, as a program would."""
    data = bytearray(make_zip({"a.md": b"# Secret\n\nhidden"}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def _damaged_zip() -> bytes:
    data = bytearray(make_zip({"a.md": b"# Title\n\n" + bytes(range(32, 120)) * 50}))
    at = data.index(b"a.md") + 10
    data[at : at + 20] = b"\xff" * 20
    return bytes(data)


def _laughing(suffix: str, part: str) -> bytes:
    """An office file of which a part is a billion laughs."""
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    xml = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "ha">{entities}]><x>&l9;</x>'.encode()
    return _with_part(MAKERS[suffix]("Title", "text"), part, xml)


def _with_part(data: bytes, part: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, content if info.filename == part else old.read(info))
    return out.getvalue()


def _bomb_docx() -> bytes:
    """300 MB of one word, packed into some hundred KB."""
    return _with_part(
        make_docx("Title", "text"), "word/document.xml",
        b'<?xml version="1.0"?><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
        b"<w:body><w:p><w:r><w:t>" + b"bomb " * 60_000_000 + b"</w:t></w:r></w:p></w:body></w:document>",
    )  # fmt: skip


BROKEN: dict[str, tuple[str, Callable[[], bytes]]] = {
    "empty": (".md", lambda: b""),
    "blank": (".txt", lambda: b" \n\t\n" * 20),
    "binary": (".txt", lambda: b"\x00\x01\x02\x03" * 50),
    "picture": (".md", lambda: PNG),
    "large": (".txt", lambda: b"word " * (LARGE // 5 + 1)),
    "without text": (".html", lambda: b"<html><body><script>var x = 1</script></body></html>"),
    "no pdf": (".pdf", lambda: PNG),
    "cut off": (".pdf", lambda: make_pdf(["Some text that is cut off."] * 5)[:300]),
    "locked": (".pdf", _encrypted_pdf),
    "scan": (".pdf", _blank_pdf),
    "garbage": (".pdf", lambda: b"%PDF-1.7\n" + zlib.compress(b"x" * 1000)),
    "locked zip": (".zip", encrypted_zip),
    "climbing": (".zip", lambda: make_zip({"ok.md": b"# Fine\n\nFine.", "../../climbed.md": b"# Bad\n\nBad."})),
    "absolute": (".zip", lambda: make_zip({"/tmp/climbed.md": b"# Bad\n\nBad."})),
    "backslash": (".zip", lambda: make_zip({"..\\climbed.md": b"# Bad\n\nBad."})),
    "bomb": (".zip", lambda: make_zip({f"{n}.txt": b" " * (LARGE - 1) for n in range(UNPACKED // LARGE + 1)})),
    "damaged": (".zip", _damaged_zip),
    "no zip": (".zip", lambda: b"PK\x03\x04 but nothing that follows"),
    "nothing in it": (".zip", lambda: make_zip({"picture.png": PNG, ".hidden.md": b"x"})),
    "no docx": (".docx", lambda: b"just text"),
    "bomb docx": (".docx", _bomb_docx),
    "laughs": (".docx", lambda: _laughing(".docx", "word/document.xml")),
    "old doc": (".docx", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 2000),
    "other zip": (".docx", lambda: make_zip({"a.txt": b"no document"})),
    "laughs too": (".xlsx", lambda: _laughing(".xlsx", "xl/worksheets/sheet1.xml")),
    "no xlsx": (".xlsx", lambda: make_pdf(["a pdf by another name"])),
    "cut off pptx": (".pptx", lambda: make_pptx("Title", "text")[:5_000]),
    "no epub": (".epub", lambda: make_zip({"mimetype": b"application/epub+zip"})),
    "cut off epub": (".epub", lambda: make_epub("Title", "text")[:200]),
    "binary csv": (".csv", lambda: b"a,b\n\x00\x01,\x02\n" * 20),
}  # fmt: skip
"""What is wrong with a file: its suffix, and what makes its bytes."""


def broken_files() -> Iterator[tuple[str, bytes]]:
    """Name and bytes of files that cannot be read, without end, all ways in turn."""
    kinds = [(what, *how) for what, how in BROKEN.items() if how[0] in MEDIA_TYPES or how[0] == ".zip"]
    made: dict[str, bytes] = {}
    for number, (what, suffix, make) in enumerate(itertools.cycle(kinds)):
        data = made.setdefault(what, b"") or make()
        made[what] = data
        yield f"broken/{what} {number}{suffix}", data


def write_files(folder: Path, total: int, broken: int) -> None:
    """`total` files below `folder`, `broken` of which cannot be read."""
    good, bad = good_files(), broken_files()
    for number in range(total):
        # The broken ones lie between the others.
        spoilt = (number + 1) * broken // total > number * broken // total
        name, data = next(bad) if spoilt else next(good)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
