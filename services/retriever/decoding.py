"""Bytes of unknown encoding to text, and the cleaning that all extracted text goes through."""

from __future__ import annotations

import codecs
import re

from .bad_document import BadDocument

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f]")
_UNWANTED = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f\ufeff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_CJK = re.compile(r"[\u3400-\u9fff]")
_MAX_CONTROL_SHARE = 0.005
_DECLARED = re.compile(
    rb"<(?:meta|\?xml)\b[^>]{0,200}?(?:charset|encoding)\s{0,9}=\s{0,9}[\"']?\s{0,9}"
    rb"(iso-8859-\d{1,2}|windows-125\d|big5|euc-jp|euc-kr|shift_jis|koi8-[ru]|gb2312|gbk|gb18030)\b",
    re.IGNORECASE,
)
_DECLARED_WITHIN = 2_048
_WIDER = {"iso-8859-1": "windows-1252", "gb2312": "gb18030", "gbk": "gb18030", "big5": "big5-hkscs"}
"""What browsers read instead, for that is what pages have that say so."""


def decode(data: bytes) -> str:
    """The text in `data`: by its byte order mark, else as UTF-8, else as GB18030 where that gives everyday Chinese.

    Raises:
        BadDocument: it is not text, or in another encoding.
    """
    text = _decoded(data)
    if len(_CONTROL.findall(text)) > _MAX_CONTROL_SHARE * len(text):
        raise BadDocument("this is a binary file, not a text file")
    return text


def decode_page(data: bytes) -> str:
    """As `decode`, for HTML: a page may say which encoding it has, and is believed where it is not UTF-8."""
    found = _DECLARED.search(data[:_DECLARED_WITHIN])
    if found and not data.startswith(tuple(bom for bom, _ in _BOMS)) and not _is_utf8(data):
        name = found.group(1).decode("ascii").lower()
        try:
            return data.decode(_WIDER.get(name, name))
        except (UnicodeDecodeError, LookupError):
            pass
    return decode(data)


def clean(text: str) -> str:
    """Newlines as `\\n`, without control characters and half surrogates (PDFs have them), which no store accepts."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n")
    return _SURROGATE.sub("\ufffd", _UNWANTED.sub("", text))


def _decoded(data: bytes) -> str:
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            try:
                return data[len(bom) :].decode(encoding)
            except UnicodeDecodeError:
                raise BadDocument(f"it starts as {encoding.upper()} and contains other bytes") from None
    if b"\0" in data:
        raise BadDocument("this is a binary file, not a text file")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = f"byte {error.start} is not UTF-8"
    try:
        text = data.decode("gb18030")
    except UnicodeDecodeError:
        text = ""
    if not _everyday_chinese(text):
        raise BadDocument(f"unknown encoding ({problem}, and it is not GB18030 either); save it as UTF-8")
    return text


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _everyday_chinese(text: str) -> bool:
    """GB18030 can read nearly all bytes as something. In real Chinese most characters are among the 3,755 common ones
    (GB 2312 level 1: lead bytes B0 to D7); Western text that was misread gives rare ones."""
    chinese = _CJK.findall(text)
    common = 0
    for char in chinese:
        code = char.encode("gb18030")
        common += len(code) == 2 and 0xB0 <= code[0] <= 0xD7 and code[1] >= 0xA1
    return bool(chinese) and common >= 0.7 * len(chinese)
