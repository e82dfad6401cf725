"""The store while documents change: one change for all files that are worked on, tidied up when there is a pause.

Files come by the thousand; a change and a tidying for each would take longer than the files themselves.
"""

from __future__ import annotations

import asyncio
import logging

from services.common.errors import ServiceError
from services.retriever.corpus import Change
from services.retriever.stores.port import Store
from services.retriever.writer import persistently

log = logging.getLogger(__name__)

SETTLE_EVERY = 500
"""Files after which a store is tidied up, where there is no pause."""


class Busy:
    """Says that documents change from the first file until `rest`."""

    def __init__(self, store: Store, settle_every: int = SETTLE_EVERY) -> None:
        self._store = store
        self._settle_every = settle_every
        self._change: Change | None = None
        self._lock = asyncio.Lock()
        self._unsettled = 0

    @property
    def changing(self) -> bool:
        return self._change is not None

    async def begin(self) -> None:
        """Documents are about to change. Safe to repeat, also at once.

        Raises:
            ServiceError: the store did not take it; nothing must be changed then.
        """
        async with self._lock:
            change = self._change or Change(self._store)
            await change.begin()
            self._change = change

    async def ensure_known(self) -> None:
        """Let the corpus version be known of a store that was filled before there were versions.

        Raises:
            ServiceError
        """
        async with self._lock:
            if self._change is None:
                change = Change(self._store)
                await change.ensure_known()
                await change.end()

    async def written(self) -> None:
        """Another file's documents have changed."""
        self._unsettled += 1
        if self._unsettled >= self._settle_every:
            await self._settle()

    async def rest(self) -> None:
        """Nothing is worked on: tidy up, and let the corpus version be known again.

        Raises:
            ServiceError: the store is away; to be tried again.
        """
        async with self._lock:
            if self._change is None:
                return
            await self._settle()
            change, self._change = self._change, None
            await change.end()

    async def close(self) -> None:
        """`rest` at the end of the process; where the store is away, the change is taken for dead in a while."""
        try:
            await self.rest()
        except ServiceError as error:
            log.warning("the documents were not tidied up: %s", error)
            if self._change is not None:
                await self._change.abandon()

    async def _settle(self) -> None:
        self._unsettled = 0
        await persistently(self._store.settle)
