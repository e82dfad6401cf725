"""Headers and messages mean the same to our client as to nats-py's."""

from __future__ import annotations

import asyncio

from hypothesis import example, given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.protocol.parser import Parser

from services.common.lean_client import AtOnce, LeanClient, stream_sequence

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


@given(st.lists(st.sampled_from([b"Nats-Sequence: 12", b"Nats-Sequence:7 ", b"Nats-Last-Sequence: 3", b"A: b", b"x"])))
def test_a_stream_sequence_is_found_where_nats_py_finds_it(lines: list[bytes]) -> None:
    raw = b"\r\n".join([b"NATS/1.0", *lines, b"", b""])
    assert stream_sequence(raw) == int(Client._parse_header_lines(raw).get("Nats-Sequence", "0"))


def test_what_is_taken_at_once_passes_no_queue_and_an_error_of_its_taker_ends_nothing() -> None:
    taken: list[tuple[bytes, int]] = []
    errors: list[str] = []

    def take(data: bytes, stream_seq: int) -> None:
        taken.append((data, stream_seq))
        if data == b"bad":
            raise ValueError("bad data")

    async def on_error(error: Exception) -> None:
        errors.append(str(error))

    async def scenario() -> None:
        client = LeanClient()
        client._error_cb = on_error
        client._subs[1] = Subscription(client, 1, "live", cb=AtOnce.of(take))
        headers = b"NATS/1.0\r\nNats-Sequence: 7\r\n\r\n"
        size = len(headers)
        with_headers = b"HMSG live 1 %d %d\r\n%bbad\r\n" % (size, size + 3, headers)
        await Parser(client).parse(with_headers + b"MSG live 1 4\r\ngood\r\n")
        assert client.stats["in_msgs"] == 2

    asyncio.run(scenario())
    assert taken == [(b"bad", 7), (b"good", 0)]
    assert errors == ["bad data"]
