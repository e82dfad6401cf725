from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib

import httpx
import pytest

from services.tools.http.exchange import TooLarge, Undecodable, _read, listed

LIMIT = 100_000


def response(body: bytes, encoding: str) -> httpx.Response:
    return httpx.Response(200, headers={"content-encoding": encoding}, stream=httpx.ByteStream(body))


def read(body: bytes, encoding: str) -> bytes:
    return asyncio.run(_read(response(body, encoding), LIMIT))


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_small_body_cannot_unfold_in_memory(encoding: str) -> None:
    pack = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding]
    body = pack(b" " * 50_000_000)
    assert len(body) < LIMIT
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            read(body, encoding)
        assert tracemalloc.get_traced_memory()[1] < 10 * LIMIT
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("size", "fits"), [(0, True), (LIMIT, True), (LIMIT + 1, False)])
@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
def test_the_limit_is_exact(size: int, fits: bool, encoding: str) -> None:
    pack = {"identity": bytes, "gzip": gzip.compress, "deflate": zlib.compress}[encoding]
    if fits:
        assert read(pack(b"x" * size), encoding) == b"x" * size
        return
    with pytest.raises(TooLarge):
        read(pack(b"x" * size), encoding)


@pytest.mark.parametrize(("body", "encoding"), [(b"", "gzip"), (b"plain", "gzip"), (b"x", "br"), (b"x", "gzip, gzip")])
def test_what_cannot_be_decoded_is_told(body: bytes, encoding: str) -> None:
    with pytest.raises(Undecodable):
        read(body, encoding)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.example/x", True),
        ("http://api.example:80/x", True),
        ("https://API.example:443", True),
        ("https://api.example:8443/", False),
        ("http://api.example:443/", True),
        ("https://api.example./", False),
        ("https://xapi.example/", False),
        ("https://api.example.evil.example/", False),
        ("https://api.example@evil.example/", False),
        ("ftp://api.example/", False),
        ("//api.example/", False),
        ("/x", False),
        ("https://\u0430pi.example/", False),  # a Cyrillic letter
    ],
)
def test_a_host_is_listed_or_it_is_not(url: str, expected: bool) -> None:
    assert listed(frozenset({"api.example:80", "api.example:443"}), httpx.URL(url)) is expected
