"""What NATS has done is not undone, nor taken for a worker's doing, where its answer to the kit is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from baton_proto import subjects
from baton_proto.messages import Status
from conformance.kit import Kit, Options
from conformance.witness import Witness
from services.common import streams
from services.common.bus import Bus, Unconfirmed
from services.common.config import NatsSettings
from services.common.connection import connect
from tests.servers.nats import Nats


@asynccontextmanager
async def kit_at(nats: Nats) -> AsyncIterator[Kit]:
    async with connect(NatsSettings(url=nats.url), "kit") as bus:
        await streams.ensure(bus)
        witness = Witness(bus, subjects.GENERATE)
        await witness.watch()
        yield Kit(bus, "generator", subjects.GENERATE, witness, Options(), alone=True)


def test_an_append_of_the_kit_that_was_stored_is_made_once(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with kit_at(nats) as kit:
            one = await kit.request()
            append = kit.bus.append

            async def unheard(*args: Any) -> int:
                monkeypatch.setattr(kit.bus, "append", append)
                await append(*args)
                raise Unconfirmed("nobody answered")

            monkeypatch.setattr(kit.bus, "append", unheard)
            await one.append(Status(stage="generating", content="Another holder goes on"))
            await one.append(Status(stage="generating", content="and on"))
            said = [getattr(frame, "content", None) for frame in await one.written()]
            assert said == ["Another holder goes on", "and on"]

    asyncio.run(main())


def test_a_stream_takes_messages_again_when_it_is_not_blocked_any_more(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def size(bus: Bus, stream: str) -> int:
        return int((await bus.api(f"STREAM.INFO.{stream}"))["config"]["max_msg_size"])

    async def main() -> None:
        async with kit_at(nats) as kit:
            one = await kit.request()
            stream = subjects.log_stream(one.at.shard)
            before = await size(kit.bus, stream)
            async with kit.blocked(one):
                assert await size(kit.bus, stream) == 1
                ask = kit.bus._ask

                async def away(*args: Any, **kwargs: Any) -> Any:
                    monkeypatch.setattr(kit.bus, "_ask", ask)
                    raise Unconfirmed("nobody answered")

                monkeypatch.setattr(kit.bus, "_ask", away)
            assert await size(kit.bus, stream) == before

    asyncio.run(main())
