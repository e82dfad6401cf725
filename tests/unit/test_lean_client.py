"""Headers mean the same to our client as to nats-py's."""

from __future__ import annotations

import asyncio

from hypothesis import example, given
from hypothesis import strategies as st
from nats.aio.client import Client

from services.common.lean_client import LeanClient

ASCII = st.text(st.characters(codec="ascii"), min_size=1, max_size=8)
BLOCK = st.lists(st.tuples(ASCII, st.text(max_size=8)), max_size=5).map(
    lambda lines: "".join(f"{name}:{value}\r\n" for name, value in lines).encode()
)


@given(BLOCK | st.binary(max_size=40))
@example(b"Nats-Sequence: 12\r\nNats-Subject:a.b\r\nbad name: x\r\n\r\n")
def test_headers_are_read_as_nats_py_reads_them(raw: bytes) -> None:
    expected = {name: value for name, value in Client._parse_header_lines(raw).items() if name}
    assert LeanClient._parse_header_lines(raw) == expected


def test_our_parser_is_the_one_that_is_used() -> None:
    class Spy(LeanClient):
        @staticmethod
        def _parse_header_lines(raw: bytes) -> dict[str, str]:
            return {"spied": "yes"}

    headers = asyncio.run(Spy()._process_headers(b"NATS/1.0\r\nA: b\r\n\r\n"))
    assert headers == {"spied": "yes"}
