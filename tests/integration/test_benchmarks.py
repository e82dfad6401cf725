"""The benchmarks beside NATS, in small: they run, both sides get everything, and what is missing is noticed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from bench import dispatch, idle
from bench.delivery import GATEWAY, LISTENER, Load, Measured, delivery_us, servers
from bench.token_readers import Answer
from bench.token_writer import token
from tests.servers.nats import nats_server


def test_every_token_is_read_over_both_ways_and_idle_connections_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(idle, "SETTLE_S", 0.0)
    load = Load(streams=2, tokens=3, rate=0.0)
    with servers("memory") as measured:
        for who in (LISTENER, GATEWAY):
            run = measured.run(load, who)
            assert (run.tokens, run.appends) == (6, 6)
            assert 0 < run.p50_s <= run.p99_s <= run.took_s
        for pid, port, open_one in (
            (measured.process.pid, measured.port, idle.of_gateway),
            (measured.nats.process.pid, measured.nats.websocket_port, idle.of_nats),
        ):
            asyncio.run(idle.growth(pid, port, open_one, 10))  # fails by itself where one is closed


def test_items_are_dispatched_by_both_queues(tmp_path: Path) -> None:
    with nats_server(tmp_path) as nats:
        slower, rate = asyncio.run(dispatch.measure(nats.url, one_by_one=3, items=5, rounds=1))
    assert slower > 0
    assert rate > 0


def test_a_delivery_costs_what_storing_does_not() -> None:
    unread = Measured(tokens=100, appends=100, took_s=1, nats_s=0.010, gateway_s=0.001)
    read = Measured(tokens=100, appends=50, took_s=1, nats_s=0.006, gateway_s=0.004)
    assert delivery_us(read, unread) == pytest.approx(40.0)  # 1 ms more at nats-server, 3 ms at the gateway


def test_a_token_that_is_missing_or_comes_twice_ends_the_benchmark() -> None:
    def frame(number: int) -> bytes:
        return json.dumps({"type": "answer_chunk", "content": token(number)}).encode()

    for wrong in (0, 2):
        answer = Answer(tokens=3)
        answer.receive(frame(0), 1.0)
        with pytest.raises(SystemExit, match=f"token 1 was expected, {wrong} came"):
            answer.receive(frame(wrong), 1.0)
