"""Files that somebody brings in over HTTP: read from a form into files on disk, bounded, and named safely."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from .http_answers import STALL_S

MAX_NAME_CHARS = 1_024
MAX_FILES = 1_000
MAX_FIELDS = 8
MAX_FIELD_BYTES = 64 * 1024
MAX_METADATA = 64
FORM_ROOM = 64 * 1024
"""Bytes that a form may add to its files: the lines between its parts."""
_KEY = re.compile(r"[A-Za-z0-9_]{1,64}")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_DRIVE = re.compile(r"[A-Za-z]:")


class BadUpload(Exception):
    """What was sent cannot be taken; the text says why. `status` is HTTP's."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Upload:
    """Named files, the readers that were asked for (None: not said) and the metadata that goes with all of them."""

    files: list[tuple[str, UploadFile]]
    readers: list[str] | None
    metadata: dict[str, Any]


class _Parser(MultiPartParser):
    spool_max_size = 64 * 1024


@contextlib.asynccontextmanager
async def uploaded(request: Request, most: int) -> AsyncIterator[Upload]:
    """What the form holds; its files are forgotten afterwards.

    Raises:
        BadUpload
    """
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        raise BadUpload("send the files as multipart/form-data, as `curl -F file=@handbook.pdf` does")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most + FORM_ROOM:
        raise _too_large(most)
    parser = _Parser(
        request.headers,
        _bounded(request, most),
        max_files=MAX_FILES,
        max_fields=MAX_FIELDS,
        max_part_size=MAX_FIELD_BYTES,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise BadUpload(f"the form cannot be read: {error.message}") from None
    except ClientDisconnect:
        raise BadUpload("the upload was broken off") from None
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(form.close)
        found = [(field, value) for field, value in form.multi_items() if isinstance(value, UploadFile)]
        if not found:
            raise BadUpload("there is no file in the form; its parts must be called `file` and have a file name")
        if any(field != "file" for field, _ in found):
            raise BadUpload("the parts of the form that hold files must be called `file`")
        if sum(file.size or 0 for _, file in found) > most:
            raise _too_large(most)
        files = [(safe_name(file.filename or ""), file) for _, file in found]
        yield Upload(files, _readers(form.get("readers")), _metadata(form.get("metadata")))


async def _bounded(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """The body, as long as it is not too large and does not stand still."""
    left = most + FORM_ROOM
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(STALL_S):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise BadUpload(f"nothing came for {STALL_S:g} s", 408) from None
        left -= len(chunk)
        if left < 0:
            raise _too_large(most)
        yield chunk


def _too_large(most: int) -> BadUpload:
    return BadUpload(f"one upload has {most:,} bytes at most (BATON_UPLOAD_MAX_BYTES)", 413)


def safe_name(name: str) -> str:
    """A file's name with its folders, in Unicode's composed form.

    Raises:
        BadUpload: it could lead out of its folder, or could not be shown.
    """
    name = unicodedata.normalize("NFC", name.replace("%22", '"')).removeprefix("./")
    shown = repr(name[:80])
    if not name:
        raise BadUpload("a file in the form has no name")
    if len(name) > MAX_NAME_CHARS:
        raise BadUpload(f"the name {shown}… is longer than {MAX_NAME_CHARS:,} characters")
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in name):
        raise BadUpload(f"the name {shown} has control characters in it")
    if "\\" in name or name.startswith("/") or _DRIVE.match(name):
        raise BadUpload(f"the name {shown} must be relative, with / between folders")
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise BadUpload(f"the name {shown} must not have empty parts, . or .. in it")
    return name


def is_archive(name: str) -> bool:
    """Whether a file is taken as the folder that it holds."""
    return name.lower().endswith(".zip")


def _readers(text: object) -> list[str] | None:
    if text is None:
        return None
    readers = _json(text, "readers", 'a JSON list, as in ["everybody"]')
    if not isinstance(readers, list) or not all(isinstance(one, str) for one in readers):
        raise BadUpload('`readers` must be a JSON list of texts, as in ["everybody"]')
    return readers


def _metadata(text: object) -> dict[str, Any]:
    if text is None:
        return {}
    example = 'a JSON object, as in {"department": "hr"}'
    metadata = _json(text, "metadata", example)
    if not isinstance(metadata, dict) or len(metadata) > MAX_METADATA:
        raise BadUpload(f"`metadata` must be {example}, with {MAX_METADATA} keys at most")
    for key, value in metadata.items():
        if not _KEY.fullmatch(key):
            raise BadUpload(f"a key of `metadata` has letters, digits and underscores, 64 at most; not {key[:80]!r}")
        if not _is_plain(value):
            raise BadUpload(f"`metadata` has texts, numbers of 64 bits, true and false; not what is under {key!r}")
    return metadata


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return not _SURROGATE.search(value)
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and -(2**63) <= value < 2**63


def _json(text: object, name: str, example: str) -> Any:
    try:
        return json.loads(str(text), parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise BadUpload(f"`{name}` must be {example}") from None


def _no_number(text: str) -> float:
    raise ValueError(text)
