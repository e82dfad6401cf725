"""The way of a query into the system, before its log is made: a place among its user's requests, and one in its
conversation. Both are asked for at once; whoever gets only one gives it back."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from baton_proto import codec
from baton_proto.messages import Query, WorkItem
from services.common.bus import Bus, Full, Unconfirmed
from services.common.claims import Claim, claim, release, settled

from .admission import Admission
from .auth import Identity

log = logging.getLogger(__name__)


class Entrance:
    """Lets queries in.

    Args:
        spawn: runs what is given back beside everything else.
    """

    def __init__(self, bus: Bus, admission: Admission, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._bus = bus
        self._admission = admission
        self._spawn = spawn

    async def enter(self, item: WorkItem, query: Query, who: Identity) -> Claim:
        """The item with its lane, its place, and its conversation's history or the request that it waits for. It counts
        as on its way into the queues until `load.settle` is called.

        Raises:
            ServiceError: not now; nothing was taken.
            Unconfirmed, Full, codec.WireError
        """
        item = msgspec.structs.replace(item, lane=self._admission.decide(item, who))
        placing = asyncio.create_task(self._admission.take_place(item, who))
        claiming = asyncio.create_task(
            claim(self._bus, item, query.if_busy or "reject", fresh=query.conversation_id is None)
        )
        try:
            await asyncio.wait([placing, claiming])
            place, claimed = placing.result(), claiming.result()
        except BaseException:
            self._admission.load.settle(stored=False)
            self._spawn(self._undo(item, placing, claiming))
            raise
        return dataclasses.replace(claimed, item=msgspec.structs.replace(claimed.item, place=place))

    async def _undo(self, item: WorkItem, placing: asyncio.Task[int | None], claiming: asyncio.Task[Claim]) -> None:
        place, claimed = await asyncio.gather(placing, claiming, return_exceptions=True)
        if isinstance(place, int):
            await self._admission.free(place)
        if isinstance(claimed, Claim) and claimed.made:
            await self._quietly(release(self._bus, item))

    def was_known(self, claimed: Claim) -> None:
        """The request is there already: its place is its own, and so is its conversation, which may be another one."""
        self._spawn(self._admission.free(claimed.item.place))
        if claimed.made:
            assert claimed.item.conversation_id is not None
            self._spawn(self._quietly(settled(self._bus, claimed.item.owner, claimed.item.conversation_id)))

    def refused(self, claimed: Claim) -> None:
        """Its log was surely not made."""
        self._spawn(self._admission.free(claimed.item.place))
        if claimed.made:
            self._spawn(self._quietly(release(self._bus, claimed.item)))

    def failed(self, claimed: Claim) -> None:
        """Whether its log was made is not known. Whoever looks at the conversation next finds out."""
        self._spawn(self._admission.free(claimed.item.place))

    async def _quietly(self, mending: Coroutine[Any, Any, object]) -> None:
        """What the next one to look at the conversation does otherwise."""
        try:
            await mending
        except (Unconfirmed, Full, codec.WireError) as error:
            log.warning("a conversation is not tidied up yet: %s", error)
