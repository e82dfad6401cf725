"""Office documents and books are zip archives of XML: looked through here before any library sees them."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping

from services.retriever.bad_document import BadDocument

from .recognising import ENCRYPTED

MAX_ENTRIES = 10_000
MAX_UNPACKED = 256 * 1024 * 1024
MAX_RATIO = 200
_FREE = 4 * 1024 * 1024
"""Bytes that a member may have however well they were packed: rows of zeros are no bomb."""
_STEP = 64 * 1024
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


def checked_parts(data: bytes, what: str, *, doctypes: bool = False) -> Mapping[str, int]:
    """The names of an archive's members and their sizes, all of them unpacked once and counted.

    Args:
        what: what it is, for messages ("the Word document").
        doctypes: whether a part may name its document type, as books' pages do. Entities are refused anyway.

    Raises:
        BadDocument: it is damaged, encrypted, a bomb, has XML with declared entities, or names that climb out.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) > MAX_ENTRIES:
                raise BadDocument(f"{what} has more than {MAX_ENTRIES:,} parts")
            sizes: dict[str, int] = {}
            total = 0
            for member in members:
                _check_name(member, what)
                if member.filename in sizes:
                    raise BadDocument(f"{what} has two parts called {member.filename[:100]!r}")
                size = _check_member(archive, member, what, doctypes, total)
                sizes[member.filename] = size
                total += size
            return sizes
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, ValueError) as error:
        raise BadDocument(f"{what} is damaged or cut off ({type(error).__name__})") from error


def _check_name(member: zipfile.ZipInfo, what: str) -> None:
    name = member.filename.replace("\\", "/")
    if name.startswith("/") or ".." in name.split("/") or ":" in name.partition("/")[0]:
        raise BadDocument(f"{what} has a part whose name leads out of it ({name[:100]!r})")


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, what: str, doctypes: bool, before: int) -> int:
    if member.flag_bits & 0x1:
        raise BadDocument(f"{what} {ENCRYPTED}")
    if member.compress_type not in _METHODS:
        raise BadDocument(f"{what} is packed in a way that such documents never are")
    size, tail, markup = 0, b"", False
    most = max(_FREE, MAX_RATIO * member.compress_size)
    with archive.open(member) as file:
        while piece := file.read(_STEP):
            if not size:
                markup = _is_markup(piece) and not member.filename.lower().endswith(".svg")
            size += len(piece)
            if size > most or before + size > MAX_UNPACKED:
                raise BadDocument(f"{what} unpacks to far more than such a document has; it may be a bomb")
            if markup:
                # XML may be in UTF-16; a declaration may lie across two pieces.
                piece = tail + piece.replace(b"\0", b"")
                if b"<!ENTITY" in piece or (b"<!DOCTYPE" in piece and not doctypes):
                    raise BadDocument(f"{what} has XML that declares entities; it may be a bomb")
                tail = piece[-16:]
    return size


def _is_markup(start: bytes) -> bool:
    return start.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n").startswith(b"<")
