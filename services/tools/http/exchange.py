"""One call's way over the network: the request, redirects that stay on the listed hosts, and a bounded body."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import httpx

from .connecting import Connector, port_of
from .request import Asked

MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ENCODINGS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class Astray(Exception):
    """A redirect leads where the tool may not go, or there are too many of them."""


class TooLarge(Exception):
    """The body is larger than may be read; the rest was not."""


class Undecodable(Exception):
    """The body's encoding is unknown or broken."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: httpx.Headers
    body: bytes


def listed(hosts: frozenset[str], url: httpx.URL) -> bool:
    """Whether `hosts`, each with its port, has that of `url`."""
    return url.scheme in ("http", "https") and f"{url.raw_host.decode('ascii')}:{port_of(url)}" in hosts


async def exchange(connector: Connector, asked: Asked, hosts: frozenset[str], max_bytes: int) -> Answer:
    """The answer to `asked`, redirects followed.

    Raises:
        Astray, TooLarge, Undecodable, Forbidden, Unreachable, httpx.HTTPError
    """
    method, url, content = asked.method, asked.url, asked.content
    for _ in range(MAX_REDIRECTS + 1):
        response = await connector.send(method, url, _headers(asked, url, content), content)
        try:
            location = response.headers.get("location") if response.status_code in _REDIRECTS else None
            if location is None:
                return Answer(response.status_code, response.headers, await _read(response, max_bytes))
        finally:
            await response.aclose()
        url = _followed(url, location, hosts)
        if response.status_code == 303 or (response.status_code in (301, 302) and method == "POST"):
            method, content = "GET", None
    raise Astray(f"more than {MAX_REDIRECTS} redirects")


def _headers(asked: Asked, url: httpx.URL, content: bytes | None) -> list[tuple[str, str]]:
    """Those that are declared go to the declared origin only: there may be secrets in them, or who asks."""
    headers = {
        "user-agent": "baton",
        "accept": "application/json, text/plain;q=0.9, text/html;q=0.8",
        "accept-encoding": "identity",
        "connection": "close",
    }
    if content is not None and asked.content_type is not None:
        headers["content-type"] = asked.content_type
    if _origin(url) == _origin(asked.url):
        own = {name.lower(): value for name, value in asked.headers}
        if content is None:
            own.pop("content-type", None)
        headers.update(own)
    return list(headers.items())


def _followed(url: httpx.URL, location: str, hosts: frozenset[str]) -> httpx.URL:
    try:
        target = url.join(location)
        allowed = listed(hosts, target)
    except (httpx.InvalidURL, ValueError):
        raise Astray("a redirect to no address") from None
    if not allowed or target.userinfo:
        raise Astray(f"a redirect to {target.scheme}://{target.host}, which is not listed")
    if url.scheme == "https" and target.scheme != "https":
        raise Astray("a redirect from https to http")
    return target.copy_with(fragment=None)


def _origin(url: httpx.URL) -> tuple[str, bytes, int]:
    return url.scheme, url.raw_host, port_of(url)


async def _read(response: httpx.Response, max_bytes: int) -> bytes:
    """The body, decoded. Reading stops as soon as there is too much of it, and so does decoding."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > max_bytes:
                raise TooLarge
        return bytes(body)
    if encoding not in _ENCODINGS:
        raise Undecodable(f"the encoding {encoding[:40]!r}")
    return await _decoded(response, zlib.decompressobj(_ENCODINGS[encoding]), max_bytes)


async def _decoded(response: httpx.Response, decoder: zlib._Decompress, max_bytes: int) -> bytes:
    body, read = bytearray(), 0
    try:
        async for piece in response.aiter_raw():
            read += len(piece)
            body += decoder.decompress(piece, max_bytes + 1 - len(body))
            if len(body) > max_bytes or read > max_bytes:
                raise TooLarge
            if decoder.eof:
                break
    except zlib.error:
        raise Undecodable("a broken encoding") from None
    if not decoder.eof:
        raise Undecodable("an encoding that is cut off")
    return bytes(body)
