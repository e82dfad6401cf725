"""What is in a zip archive, without believing a word of it: names, sizes and links are those of whoever made it."""

from __future__ import annotations

import hashlib
import io
import re
import stat
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from .bad_document import BadDocument
from .extract import MEDIA_TYPES

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".jar")
MAX_NAME_CHARS = 512
_CHUNK = 256 * 1024
_ENTRY = b"PK\x01\x02"
_UTF8, _ENCRYPTED = 0x800, 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Of these a piece is unpacked at a time. A few hundred bytes of bzip2 or LZMA become gigabytes at once."""
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one archive may hold: so many files, so many bytes of all of them unpacked, and of one."""

    files: int
    bytes: int
    file_bytes: int


class Archive:
    """A zip archive in memory. Making one takes time, for it is unpacked once to see how much it is: in a thread.

    Attributes:
        members: names of the files that may be ingested, in the order of the archive, with `/` between folders.
        refused: names and reasons of those that may not, though somebody may have expected it.

    Raises:
        BadDocument: it is none, is damaged, is too much, or was made to do harm; nothing of it must be ingested.
    """

    def __init__(self, data: bytes, limits: Limits) -> None:
        self._limits = limits
        self._infos: dict[str, zipfile.ZipInfo] = {}
        self.members: list[str] = []
        self.refused: list[tuple[str, str]] = []
        self._zip = _opened(data, limits.files)
        for info in self._zip.infolist():
            self._look_at(info)
        if len(self.members) + len(self.refused) > limits.files:
            raise BadDocument(_too_many(limits.files))
        self._count()

    def read(self, name: str) -> bytes:
        """The bytes of a member."""
        return b"".join(self._pieces(self._infos[name]))

    def _look_at(self, info: zipfile.ZipInfo) -> None:
        name = _name(info)
        if name.endswith("/"):
            _check_path(name.rstrip("/"))
            return
        _check_path(name)
        path = PurePosixPath(name)
        if any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
            return
        name = unicodedata.normalize("NFC", path.as_posix())
        reason = self._refusal(info, name)
        if reason:
            self.refused.append((name[:MAX_NAME_CHARS], reason))
        elif path.suffix.lower() in MEDIA_TYPES:
            self._infos[name] = info
            self.members.append(name)

    def _refusal(self, info: zipfile.ZipInfo, name: str) -> str:
        """Why a file is not taken; empty where it may be, or is of a kind that folders just contain."""
        suffix = PurePosixPath(name).suffix.lower()
        if stat.S_ISLNK(info.external_attr >> 16):
            return "a link; only files are taken from an archive"
        if suffix in ARCHIVES:
            return "an archive in an archive; unpack it and bring it in by itself"
        if suffix not in MEDIA_TYPES:
            return ""
        if info.flag_bits & _ENCRYPTED:
            return "it is encrypted; make the archive without a password"
        if info.compress_type not in _METHODS:
            return "it is packed in an unusual way; make the archive with the usual method, Deflate"
        if len(name) > MAX_NAME_CHARS:
            return f"its name is longer than {MAX_NAME_CHARS} characters"
        if name in self._infos:
            return "the archive has two files of this name; the first one is taken"
        return ""

    def _count(self) -> None:
        """Unpack all members once, counting: what the archive says about sizes is not believed."""
        total = 0
        for name in list(self.members):
            size = 0
            for piece in self._pieces(self._infos[name]):
                size += len(piece)
                total += len(piece)
                if total > self._limits.bytes:
                    raise BadDocument(
                        f"its files have more than {self._limits.bytes:,} bytes (BATON_ARCHIVE_MAX_BYTES); split it"
                    )
                if size > self._limits.file_bytes:
                    self.members.remove(name)
                    self.refused.append(
                        (name, f"larger than {self._limits.file_bytes:,} bytes (BATON_MAX_DOCUMENT_BYTES)")
                    )
                    break

    def _pieces(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        try:
            with self._zip.open(info) as file:
                while piece := file.read(_CHUNK):
                    yield piece
        except Exception as error:  # what is wrong in an archive can be almost any error of the library's
            raise BadDocument(f"the archive is damaged at {_name(info)[:80]!r} ({type(error).__name__})") from error


def member_upload(upload: str, name: str) -> str:
    """The upload id of a file from an archive, so that it is queued once however often the archive is unpacked.

    Args:
        upload: the archive's.
        name: the file's own, the archive's in front.
    """
    return hashlib.sha256(f"{upload}\0{name}".encode()).hexdigest()[:32]


def _opened(data: bytes, most: int) -> zipfile.ZipFile:
    # Each entry becomes an object; that must be bounded before they are read.
    if data.count(_ENTRY) > 2 * most + 1_000:
        raise BadDocument(_too_many(most))
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except Exception as error:
        raise BadDocument("this is not a zip archive, or it is damaged") from error


def _too_many(most: int) -> str:
    return f"it holds more than {most:,} files (BATON_ARCHIVE_MAX_FILES); split it"


def _name(info: zipfile.ZipInfo) -> str:
    """A member's name. Without the flag that says UTF-8 it may be in whatever code page its maker used: UTF-8 all the
    same, or GBK, as Chinese Windows writes it."""
    name = info.orig_filename
    if info.flag_bits & _UTF8:
        return name
    try:
        raw = name.encode("cp437")
    except UnicodeEncodeError:
        return name
    for encoding in ("utf-8", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return name


def _check_path(name: str) -> None:
    """Refuse the whole archive where a name leads out of the folder that it stands for: that is no mistake."""
    if _CONTROL.search(name):
        raise BadDocument(f"it holds a file with control characters in its name: {name[:80]!r}")
    if name.startswith("/") or "\\" in name or _DRIVE.match(name) or ".." in name.split("/"):
        raise BadDocument(f"it holds a path that leads out of it: {name[:80]!r}")
