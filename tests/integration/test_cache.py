"""The cache on a real nats-server: what is kept is found; whatever goes wrong is a miss, and soon."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY

from baton_proto.subjects import CACHE_BUCKET, cached
from services.common import cache as module
from services.common.cache import BucketCache, digest, open_cache
from tests.rig import Rig, run_rig
from tests.servers.nats import Nats
from tests.servers.processes import eventually, freeze

KEY = digest("key")
SOON_S = module.GET_TIMEOUT_S


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache is given a moment only; here it may take longer, for the machine is busy with other tests."""
    monkeypatch.setattr(module, "GET_TIMEOUT_S", 30.0)
    monkeypatch.setattr(module, "CLOSE_S", 30.0)


class Note(msgspec.Struct, frozen=True, tag="note.1", tag_field="form"):
    text: str


class NewerNote(msgspec.Struct, frozen=True, tag="note.2", tag_field="form"):
    text: str


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("baton_cache_total", {"kind": "note", "outcome": outcome}) or 0.0


async def found(cache: BucketCache, form: type[Any] = Note) -> Any:
    return await cache.get("note", KEY, form)


async def kept(cache: Any, note: msgspec.Struct) -> None:
    before = counted("stored")
    cache.put("note", KEY, note)

    async def stored() -> bool:
        return counted("stored") > before

    await eventually(stored, "it is kept")


def test_what_is_kept_is_found_by_every_worker(nats: Nats) -> None:
    async def scenario(rig: Rig) -> None:
        async with open_cache(rig.bus) as cache:
            assert await cache.get("note", KEY, Note) is None
            await kept(cache, Note("年假"))
            assert await BucketCache(rig.bus).get("note", KEY, Note) == Note("年假")
            assert await cache.get("other", KEY, Note) is None
            assert await cache.get("note", digest("another"), Note) is None
            await kept(cache, Note("newer"))
            assert await cache.get("note", KEY, Note) == Note("newer")

    run_rig(nats, scenario)


def test_leaving_waits_for_what_is_being_kept(nats: Nats) -> None:
    async def scenario(rig: Rig) -> None:
        async with open_cache(rig.bus) as cache:
            cache.put("note", KEY, Note("a"))
        assert await found(BucketCache(rig.bus)) == Note("a")

    run_rig(nats, scenario)


def test_what_cannot_be_read_or_is_of_another_version_is_a_miss(nats: Nats) -> None:
    async def scenario(rig: Rig) -> None:
        cache = BucketCache(rig.bus)
        before = counted("unreadable")
        for data in (b"", b"\xc1", msgspec.msgpack.encode({"form": "note.1"}), msgspec.msgpack.encode(NewerNote("b"))):
            await rig.bus.store(cached("note", KEY), data)
            assert await found(cache) is None
        assert counted("unreadable") == before + 4
        assert await found(cache, NewerNote) == NewerNote("b")
        await rig.bus.store(cached("note", KEY), b"", {"KV-Operation": "DEL"})
        assert await found(cache) is None
        assert counted("unreadable") == before + 4

    run_rig(nats, scenario)


def test_what_is_too_large_or_no_longer_true_is_not_kept(nats: Nats) -> None:
    async def untrue() -> bool:
        return False

    async def broken() -> bool:
        raise RuntimeError("no")

    async def scenario(rig: Rig) -> None:
        async with open_cache(rig.bus) as cache:
            before = [counted(outcome) for outcome in ("too_large", "outdated", "not_stored")]
            cache.put("note", KEY, Note("x" * module.MAX_VALUE_BYTES))
            cache.put("note", KEY, Note("a"), untrue)
            cache.put("note", KEY, Note("a"), broken)
        assert [counted(outcome) for outcome in ("too_large", "outdated", "not_stored")] == [n + 1 for n in before]
        assert await found(BucketCache(rig.bus)) is None

    run_rig(nats, scenario)


def test_only_so_many_values_are_on_their_way_at_once(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PUTS", 2)

    async def scenario(rig: Rig) -> None:
        before = counted("too_many")
        async with open_cache(rig.bus) as cache:
            for number in range(5):
                cache.put("note", digest(number), Note("a"))
        assert counted("too_many") == before + 3

    run_rig(nats, scenario)


def test_without_its_bucket_everything_is_a_miss(nats: Nats) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.bus.client.jetstream().delete_key_value(CACHE_BUCKET)
        async with open_cache(rig.bus) as cache:
            cache.put("note", KEY, Note("a"))
            started = time.monotonic()
            assert await cache.get("note", KEY, Note) is None
            assert time.monotonic() - started < module.GET_TIMEOUT_S / 2  # it does not wait for an answer

    run_rig(nats, scenario)


def test_a_server_that_does_not_answer_costs_a_moment(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GET_TIMEOUT_S", SOON_S)

    async def scenario(rig: Rig) -> None:
        cache = BucketCache(rig.bus)
        freeze(nats.process.pid)
        try:

            async def gives_up_soon() -> bool:
                """The server may still answer what came before it stopped; and we may stand still ourselves."""
                before, started = counted("failed"), time.monotonic()
                assert await found(cache) is None
                return counted("failed") > before and time.monotonic() - started < 10 * SOON_S

            await eventually(gives_up_soon, "the cache gives up soon")
        finally:
            os.kill(nats.process.pid, signal.SIGCONT)

    run_rig(nats, scenario)
