"""What a declared tool asks: made once from YAML, filled in for each call. No argument can change where it goes."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, unquote

import httpx

from services.common.wording import choose
from services.tools.port import ToolError

from .template import Placeholder, Template, Values

MAX_URL_BYTES = 8 * 1024
MAX_BODY_BYTES = 1024 * 1024
_PATH_LITERAL = "%:@!$&'()*+,;=~-._"


@dataclass(frozen=True, slots=True)
class Secret:
    """A header's value that is never shown: `prefix` and what the environment or a file holds."""

    value: str
    prefix: str = ""

    def __repr__(self) -> str:
        return "Secret(***)"


@dataclass(frozen=True, slots=True)
class Body:
    """`content` is JSON in which texts may be templates, or for a form its fields."""

    kind: Literal["json", "form"]
    content: Any


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it is sent. `secret_headers` and `headers` belong to the declared host and to no other one."""

    method: str
    url: httpx.URL
    headers: tuple[tuple[str, str], ...]
    content: bytes | None = None
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class RequestTemplate:
    """`origin` is literal. Each of `segments` is one segment of the path."""

    method: str
    origin: httpx.URL
    segments: tuple[Template, ...]
    query: tuple[tuple[str, Template], ...] = ()
    headers: tuple[tuple[str, Template | Secret], ...] = ()
    body: Body | None = None

    def fill(self, values: Values) -> Asked:
        """Raises ToolError where a value cannot stand where it belongs, or the token lacks one."""
        target = "/" + "/".join(_segment(template, values) for template in self.segments)
        if query := "&".join(self._query(values)):
            target += "?" + query
        if len(target) > MAX_URL_BYTES:
            raise _too_long(values)
        headers = tuple((name, _header(name, value, values)) for name, value in self.headers)
        content, content_type = self._content(values)
        url = self.origin.copy_with(raw_path=target.encode("ascii"))
        return Asked(self.method, url, headers, content, content_type)

    def _query(self, values: Values) -> list[str]:
        """`name=value` for each that has a value; a list gives one for each of its items."""
        found: list[str] = []
        for name, template in self.query:
            value = values.value(template.only) if template.only else values.fill(template)
            present = [one for one in (value if isinstance(value, list) else [value]) if one is not None]
            found += (f"{quote(name, safe='')}={quote(values.as_text(name, one), safe='')}" for one in present)
        return found

    def _content(self, values: Values) -> tuple[bytes | None, str | None]:
        if self.body is None:
            return None, None
        if self.body.kind == "form":
            fields = ((name, values.fill(template)) for name, template in self.body.content.items())
            pairs = (f"{quote(name, safe='')}={quote(text, safe='')}" for name, text in fields if text is not None)
            content, content_type = "&".join(pairs).encode(), "application/x-www-form-urlencoded"
        else:
            filled = _filled(self.body.content, values)
            content, content_type = json.dumps(filled, ensure_ascii=True, allow_nan=False).encode(), "application/json"
        if len(content) > MAX_BODY_BYTES:
            raise _too_long(values)
        return content, content_type


class _Absent:
    """In place of a JSON value whose argument is absent."""


def _filled(content: Any, values: Values) -> Any:
    """JSON with its templates filled in; members and items that have no value are left out."""
    if isinstance(content, Template):
        value = values.value(content.only) if content.only else values.fill(content)
        return _Absent if value is None else value
    if isinstance(content, Mapping):
        members = ((key, _filled(value, values)) for key, value in content.items())
        return {key: value for key, value in members if value is not _Absent}
    if isinstance(content, list):
        return [value for value in (_filled(one, values) for one in content) if value is not _Absent]
    return content


def _segment(template: Template, values: Values) -> str:
    """One segment of the path, percent-encoded. What a server could take for more than one, or for a step up, is
    refused, also where it would decode twice."""
    encoded, plain = "", ""
    for part in template.parts:
        if isinstance(part, Placeholder):
            text = values.text(part.name)
            if not text or _climbs(text):
                raise values.unusable(part.name)
            encoded, plain = encoded + quote(text, safe=""), plain + text
        else:
            encoded, plain = encoded + quote(part, safe=_PATH_LITERAL), plain + part
    if template.names and _decoded(plain) in (".", ".."):
        raise values.unusable(template.names[0])
    return encoded


def _climbs(text: str) -> bool:
    decoded = _decoded(text)
    return decoded in (".", "..") or any(char in "/\\" or unicodedata.category(char) == "Cc" for char in decoded)


def _decoded(text: str) -> str:
    """`text` without percent-encoding, however often it was encoded."""
    for _ in range(5):
        once = unquote(text)
        if once == text:
            break
        text = once
    return text


def _header(name: str, value: Template | Secret, values: Values) -> str:
    if isinstance(value, Secret):
        return value.prefix + value.value
    text = values.fill(value) or ""
    if not is_header_value(text):
        raise values.unusable(value.names[0] if value.names else name)
    return text


def is_header_value(text: str) -> bool:
    return text.isascii() and text.isprintable() and text == text.strip()


def _too_long(values: Values) -> ToolError:
    return ToolError(choose(values.language, zh="参数过长。", en="The arguments are too long."))
