"""What a file really is, by its first bytes: names say what somebody called it."""

from __future__ import annotations

import io
import re
import zipfile

from services.retriever.bad_document import BadDocument

WORD, EXCEL, POWERPOINT = "a Word document (.docx)", "an Excel workbook (.xlsx)", "a PowerPoint presentation (.pptx)"
EPUB, PDF, HTML, ZIP = "an EPUB book", "a PDF", "an HTML page", "a ZIP archive"
ENCRYPTED = "is encrypted; remove the password first"
_MAGIC = (
    (b"%PDF-", PDF),
    (b"\x89PNG\r\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh91AY&SY", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a", "a RAR archive"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90\0", "a program"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"{\\rtf", "an RTF document"),
    (b"OggS\0", "an Ogg recording"),
    *((b"ID3" + bytes([version]), "an MP3 recording") for version in (2, 3, 4)),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OLD_OFFICE = (
    ("WordDocument", "an old Word document (.doc)"),
    ("Workbook", "an old Excel workbook (.xls)"),
    ("PowerPoint Document", "an old PowerPoint presentation (.ppt)"),
)
_HTML = re.compile(
    rb"\A(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?:(?!-->).)*-->\s*)*<(?:!doctype\s+html|html)\b",
    re.IGNORECASE | re.DOTALL,
)


def kind_of(data: bytes) -> str:
    """What the first bytes say, in words for people; empty where they say nothing (text, or something unknown).

    Raises:
        BadDocument: it is an Office document that is encrypted, or an archive that is cut off.
    """
    for magic, what in _MAGIC:
        if data.startswith(magic):
            return what
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(data)
    if data.startswith(_OLE):
        return _ole_kind(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "a WebP image"
    if data[:3] == b"\0\0\0" and data[4:8] == b"ftyp":
        return "a video or a HEIC image"
    return HTML if _HTML.match(data[:4096]) else ""


def refuse_unless(name_suffix: str, wanted: str, data: bytes) -> None:
    """
    Raises:
        BadDocument: `data` is not what its name says.
    """
    kind = kind_of(data)
    if kind == wanted or (wanted == PDF and not kind and b"%PDF-" in data[:1024]):
        return
    if kind:
        raise BadDocument(f"named {name_suffix}, but it is {kind}; give it the right name or convert it")
    raise BadDocument(f"named {name_suffix}, but it is not {wanted}")


def _zip_kind(data: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except Exception:  # cut off, or worse
        raise BadDocument("it is a ZIP archive or an Office document that is damaged or cut off") from None
    folders = {name.partition("/")[0] for name in names}
    for folder, what in (("word", WORD), ("xl", EXCEL), ("ppt", POWERPOINT)):
        if folder in folders and "[Content_Types].xml" in names:
            return what
    if b"application/epub+zip" in data[:200] or "META-INF/container.xml" in names:
        return EPUB
    if data.startswith(b"PK\x03\x04") and b"vnd.oasis.opendocument" in data[:200]:
        return "an OpenDocument file"
    return ZIP


def _ole_kind(data: bytes) -> str:
    if "EncryptedPackage".encode("utf-16-le") in data:
        raise BadDocument(f"the document {ENCRYPTED}")
    for stream, what in _OLD_OFFICE:
        if stream.encode("utf-16-le") in data:
            return what
    return "an old Office document"
