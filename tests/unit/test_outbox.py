"""What waits for a slow client: bounded, in order, joined, nothing lost."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.outbox import JOIN_ABOVE_BYTES, Outbox


def chunk(request_id: str, seq: int, content: str) -> dict[str, Any]:
    return {"type": "answer_chunk", "request_id": request_id, "seq": seq, "timestamp": f"t{seq}", "content": content}


def drain(outbox: Outbox) -> list[dict[str, Any]]:
    async def take_all() -> list[dict[str, Any]]:
        taken = []
        while not outbox.empty:
            taken.append(json.loads(await outbox.take()))
        return taken

    return asyncio.run(take_all())


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(["chunk", "chunk", "chunk", "reset"]), st.text(max_size=20)),
        max_size=60,
    ),
    st.booleans(),
)
def test_every_frame_arrives_once_and_in_order_however_they_are_joined(
    script: list[tuple[str, str, str]], slow: bool
) -> None:
    async def scenario() -> None:
        outbox = Outbox(binary=False, limit=10_000_000)
        if slow:
            outbox.put({"type": "status", "request_id": "z", "content": "x" * (JOIN_ABOVE_BYTES + 1)})
        expected: dict[str, str] = {"a": "", "b": ""}
        seqs = {"a": 0, "b": 0}
        for request_id, kind, text in script:
            if kind == "reset":
                outbox.put({"type": "answer_reset", "request_id": request_id, "seq": seqs[request_id], "timestamp": ""})
                expected[request_id] += "|"
            else:
                outbox.put(chunk(request_id, seqs[request_id], text))
                expected[request_id] += text
            seqs[request_id] += 1
        seen: dict[str, str] = {"a": "", "b": ""}
        following = {"a": 0, "b": 0}
        while not outbox.empty:
            frame = json.loads(await outbox.take())
            if frame["type"] == "status":
                continue
            name = frame["request_id"]
            assert frame.get("from_seq", frame["seq"]) == following[name]
            following[name] = frame["seq"] + 1
            seen[name] += "|" if frame["type"] == "answer_reset" else frame["content"]
        assert seen == expected
        assert following == seqs
        assert outbox.bytes == 0

    asyncio.run(scenario())


def test_a_client_that_keeps_up_sees_every_frame_by_itself() -> None:
    outbox = Outbox(binary=False, limit=1_000_000)
    for seq in range(100):
        outbox.put(chunk("r", seq, "word "))
    assert [frame["seq"] for frame in drain(outbox)] == list(range(100))


def test_chunks_that_wait_for_a_slow_client_are_joined_and_keep_the_last_timestamp() -> None:
    outbox = Outbox(binary=False, limit=10_000_000)
    outbox.put({"type": "sources", "request_id": "r", "seq": 0, "sources": ["x" * JOIN_ABOVE_BYTES]})
    for seq in range(1, 1001):
        outbox.put(chunk("r", seq, "word "))
    last = drain(outbox)[-1]
    assert (last["from_seq"], last["seq"], last["timestamp"]) == (1, 1000, "t1000")
    assert last["content"] == "word " * 1000


def test_more_than_the_limit_is_an_overrun_and_takes_no_more_memory() -> None:
    outbox = Outbox(binary=False, limit=100_000)
    for seq in range(10_000):
        outbox.put({"type": "status", "request_id": "r", "seq": seq, "content": "x" * 100})
    assert outbox.overrun.is_set()
    assert outbox.bytes <= 100_000
