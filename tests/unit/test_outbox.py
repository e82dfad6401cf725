"""What waits for a slow client: bounded, in order, joined, nothing lost."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway import outbox as outbox_module
from services.gateway.outbox import JOIN_ABOVE_BYTES, Outbox
from tests.measured import measured


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
    before = measured("baton_joined_frames_total")
    outbox.put({"type": "sources", "request_id": "r", "seq": 0, "sources": ["x" * JOIN_ABOVE_BYTES]})
    for seq in range(1, 1001):
        outbox.put(chunk("r", seq, "word "))
    assert outbox.behind
    assert measured("baton_joined_frames_total") == before + 999
    last = drain(outbox)[-1]
    assert not outbox.behind
    assert (last["from_seq"], last["seq"], last["timestamp"]) == (1, 1000, "t1000")
    assert last["content"] == "word " * 1000


def test_more_than_the_limit_is_an_overrun_and_takes_no_more_memory() -> None:
    outbox = Outbox(binary=False, limit=100_000)
    for seq in range(10_000):
        outbox.put({"type": "status", "request_id": "r", "seq": seq, "content": "x" * 100})
    assert outbox.overrun.is_set()
    assert outbox.bytes <= 100_000


def test_a_message_larger_than_the_limit_is_taken_when_nothing_else_waits() -> None:
    outbox = Outbox(binary=False, limit=10_000)
    outbox.put(chunk("r", 0, "x" * 50_000))
    assert not outbox.overrun.is_set()
    assert [frame["seq"] for frame in drain(outbox)] == [0]


def test_a_terminal_frame_is_taken_beyond_the_limit_and_nothing_else_is() -> None:
    outbox = Outbox(binary=False, limit=10_000)
    outbox.put({"type": "status", "request_id": "r", "seq": 0, "content": "x" * 9_990})
    outbox.put({"type": "done", "request_id": "r", "seq": 1, "finish_reason": "stop"})
    assert not outbox.overrun.is_set()
    outbox.put({"type": "status", "request_id": "q", "seq": 0, "content": "x"})
    assert outbox.overrun.is_set()
    assert [frame["type"] for frame in drain(outbox)] == ["status", "done"]


def test_what_may_wait_for_its_turn_does_and_keeps_its_place() -> None:
    async def scenario() -> None:
        outbox = Outbox(binary=False, limit=10_000)
        taken: list[int] = []

        async def replay() -> None:
            for seq in range(100):
                if (waiting := outbox.put_in_turn(chunk("r", seq, "x" * 900), lambda: True)) is not None:
                    await waiting
                assert outbox.bytes <= 10_000

        replaying = asyncio.create_task(replay())
        while len(taken) < 100:
            taken.append(json.loads(await outbox.take())["seq"])
            await asyncio.sleep(0)
        await replaying
        assert taken == list(range(100))
        assert not outbox.overrun.is_set()

    asyncio.run(scenario())


@pytest.mark.parametrize("why", ["not wanted any more", "closed"])
def test_what_waits_for_its_turn_in_vain_is_let_go(why: str) -> None:
    async def scenario() -> None:
        outbox = Outbox(binary=False, limit=10_000)
        outbox.put(chunk("r", 0, "x" * 9_000))
        waiting = outbox.put_in_turn(chunk("r", 1, "y"), lambda: why == "closed")
        assert waiting is not None
        later = asyncio.ensure_future(waiting)
        await asyncio.sleep(0)
        if why == "closed":
            outbox.close()
        else:
            await outbox.take()
        await asyncio.wait_for(later, 60)
        assert outbox.empty

    asyncio.run(scenario())


def test_a_client_that_takes_nothing_while_something_waits_for_its_turn_is_too_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox_module, "STALLED_S", 0.01)

    async def scenario() -> None:
        outbox = Outbox(binary=False, limit=10_000)
        outbox.put(chunk("r", 0, "x" * 9_000))
        waiting = outbox.put_in_turn(chunk("r", 1, "y"), lambda: True)
        assert waiting is not None
        await asyncio.wait_for(asyncio.ensure_future(waiting), 60)
        assert outbox.overrun.is_set()

    asyncio.run(scenario())


def test_joined_text_is_held_once_however_small_its_pieces_are() -> None:
    outbox = Outbox(binary=False, limit=10_000_000)
    outbox.put({"type": "status", "request_id": "r", "seq": 0, "content": "x" * (JOIN_ABOVE_BYTES + 1)})
    tracemalloc.start()
    for seq in range(1, 100_001):
        outbox.put(chunk("r", seq, f"{seq % 10}word"))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 3 * 5 * 100_000
