"""Searches that were made before, and what a retriever says of itself for the fingerprint of an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from baton_proto.messages import Passage, WorkItem
from baton_proto.subjects import RETRIEVE, variant_at
from services.common.cache import Cache, digest
from services.common.config import CacheSettings
from services.common.visibility import visibility

from .port import Identified, Retriever, SearchRequest, Tracked, Versioned

log = logging.getLogger(__name__)

UNKNOWN = "unknown"
KIND = "retrieval"
FORMAT = 1
"""Raised when a search is looked for, or kept, in another way."""
LOOK_AGAIN_S = 0.6
"""A version may be half a second old; after so long it is known what it was during the search."""

Search = Callable[[], Awaitable[Sequence[Passage]]]


class _State(NamedTuple):
    """The documents at one time. The version alone does not tell that they have changed and changed back."""

    version: str
    generation: str


class KeptSearch(msgspec.Struct, frozen=True, tag="search.1", tag_field="form"):
    """What a search has found."""

    passages: list[Passage]


@dataclass(frozen=True, slots=True)
class Found:
    """`corpus` is the version of the documents that were searched, or `unknown`; `retriever` says how."""

    passages: Sequence[Passage]
    corpus: str
    retriever: str


Find = Callable[[WorkItem, SearchRequest], Awaitable[Found]]
"""A search for an item, made or known. Raises ServiceError."""


class Searches:
    """Finds what was found before, or searches and keeps it.

    A search is kept only if the documents have not changed from before it until after it. So what is found under a
    version is what that version holds.

    Args:
        name: how the implementation is called in the settings.
        cache: None: nothing is looked for or kept.
        release: what names the code that searches; another release starts with nothing.
    """

    def __init__(
        self,
        retriever: Retriever,
        name: str = "retriever",
        cache: Cache | None = None,
        settings: CacheSettings | None = None,
        release: str = "",
    ) -> None:
        self._versioned = retriever if isinstance(retriever, Versioned) else None
        self._cache = cache
        self._scope = (settings or CacheSettings()).cache_scope
        self._release = release
        identity = retriever.identity() if isinstance(retriever, Identified) else {}
        self.retriever = f"{'_'.join(name.split())}#{digest(name, dict(identity))[:12]}"

    async def find(self, item: WorkItem, request: SearchRequest, search: Search) -> Found:
        """What `search` finds for `request`; it is not called where that is known."""
        state = await self._state(request.readers)
        if self._cache is None or not item.cache or state is None:
            return await self._searched(search, state, request.readers)
        key = self._key(item, request, state.version)
        kept = await self._cache.get(KIND, key, KeptSearch)
        if kept is not None:
            return Found(kept.passages, state.version, self.retriever)
        found = await self._searched(search, state, request.readers)
        if found.corpus == state.version:
            kept = KeptSearch(passages=list(found.passages))
            self._cache.put(KIND, key, kept, lambda: self._still(state, request.readers))
        return found

    async def _searched(self, search: Search, state: _State | None, who: Collection[str]) -> Found:
        passages = await search()
        # Documents that have changed in between, or an embedding that has failed, make it nobody's version.
        same = state is not None and await self._state(who) == state
        return Found(passages, state.version if same and state else UNKNOWN, self.retriever)

    async def _still(self, state: _State, who: Collection[str]) -> bool:
        await asyncio.sleep(LOOK_AGAIN_S)
        return await self._state(who) == state

    async def _state(self, who: Collection[str]) -> _State | None:
        """None: the documents are changing, or nobody can know."""
        retriever = self._versioned
        if retriever is None:
            return None
        try:
            # The generation first: where it is the same later on, the version has not been another one in between.
            generation = await retriever.generation() if isinstance(retriever, Tracked) else ""
            version = await retriever.version(who) if generation is not None else None
        except Exception:
            log.exception("the retriever cannot tell its version")
            return None
        return None if version is None or generation is None else _State(version, generation)

    def _key(self, item: WorkItem, request: SearchRequest, corpus: str) -> str:
        return digest(
            FORMAT,
            self._release,
            visibility(item.owner, self._scope),
            self.retriever,
            variant_at(item, RETRIEVE),
            corpus,
            request.query,
            request.language,
            request.top_k,
            request.filters or None,
        )
