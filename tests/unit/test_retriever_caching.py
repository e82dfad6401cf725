"""Searches from the cache: only for the same search in the same state of the documents."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import msgspec
import pytest

from baton_proto.messages import Passage, WorkItem
from services.common.config import CacheSettings, RetrieverSettings
from services.retriever import caching
from services.retriever.caching import Found, Searches
from services.retriever.port import SearchRequest
from services.retriever.service import retrieve_handler
from tests.answer_job import MemoryJob, passage, work_item
from tests.memory_cache import MemoryCache

ITEM = work_item(stage="retrieve")
REQUEST = SearchRequest("How many days?", "en", 6, {"year": 2026})
PASSAGES = [passage(1, "Ten days."), passage(2, "Five days.", page=3, heading="Leave")]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "LOOK_AGAIN_S", 0)


class Store:
    """A retriever that finds the same at every search. `versions` are told one after the other, the last for ever."""

    def __init__(self, *versions: str | None, **identity: str) -> None:
        self.versions = list(versions)
        self.searches = 0
        self._identity = identity

    async def retrieve(self, request: SearchRequest) -> Sequence[Passage]:
        self.searches += 1
        return PASSAGES

    async def version(self, who: Collection[str]) -> str | None:
        return self.versions.pop(0) if len(self.versions) > 1 else self.versions[0]

    def identity(self) -> dict[str, str]:
        return self._identity


class TrackedStore(Store):
    """One that also tells generations; `states` are pairs of version and generation, told like the versions."""

    def __init__(self, *states: tuple[str, str | None]) -> None:
        super().__init__("")
        self.states = list(states)

    async def generation(self) -> str | None:
        self.versions[0], generation = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return generation


class Silent:
    """A retriever that says nothing of itself."""

    def __init__(self) -> None:
        self.searches = 0

    async def retrieve(self, request: SearchRequest) -> Sequence[Passage]:
        self.searches += 1
        return PASSAGES


def find(
    store: Any, cache: MemoryCache | None, item: WorkItem = ITEM, request: SearchRequest = REQUEST, scope: str = "user"
) -> Found:
    async def run() -> Found:
        searches = Searches(store, "store", cache, CacheSettings(cache_scope=scope))
        found = await searches.find(item, request, lambda: store.retrieve(request))
        if cache is not None:
            await cache.settled()
        return found

    return asyncio.run(run())


def test_the_same_search_in_the_same_documents_is_made_once() -> None:
    store, cache = Store("v1"), MemoryCache()
    first, second = find(store, cache), find(store, cache)
    assert store.searches == 1
    assert first == second == Found(PASSAGES, "v1", second.retriever)


@pytest.mark.parametrize(
    "request_",
    [
        SearchRequest("How many days", "en", 6, {"year": 2026}),
        SearchRequest("How many days?", "zh", 6, {"year": 2026}),
        SearchRequest("How many days?", "en", 7, {"year": 2026}),
        SearchRequest("How many days?", "en", 6, {"year": 2025}),
        SearchRequest("How many days?", "en", 6),
    ],
)
def test_another_search_is_made(request_: SearchRequest) -> None:
    store, cache = Store("v1"), MemoryCache()
    find(store, cache)
    find(store, cache, request=request_)
    assert store.searches == 2


def test_filters_in_another_order_are_the_same_and_empty_ones_are_none() -> None:
    store, cache = Store("v1"), MemoryCache()
    find(store, cache, request=SearchRequest("q", "en", 6, {"a": 1, "b": 2}))
    find(store, cache, request=SearchRequest("q", "en", 6, {"b": 2, "a": 1}))
    find(store, cache, request=SearchRequest("q", "en", 6, {}))
    find(store, cache, request=SearchRequest("q", "en", 6, None))
    assert store.searches == 2


def test_other_documents_another_retriever_or_another_user_are_searched() -> None:
    cache = MemoryCache()
    find(Store("v1", model="a"), cache)
    others = [
        (Store("v2", model="a"), ITEM),
        (Store("v1", model="b"), ITEM),
        (Store("v1", model="a"), work_item(stage="retrieve", owner="somebody else")),
    ]
    for store, item in others:
        find(store, cache, item)
        assert store.searches == 1


def test_users_share_where_all_see_every_document() -> None:
    store, cache = Store("v1"), MemoryCache()
    for owner in ("ann", "bob"):
        find(store, cache, work_item(stage="retrieve", owner=owner), scope="all")
    assert store.searches == 1


def test_ids_and_times_make_no_difference() -> None:
    store, cache = Store("v1"), MemoryCache()
    find(store, cache)
    later = msgspec.structs.replace(ITEM, key="1" * 32, request_id="r9", received_ms=9, queued_ms=10, deadline_ms=11)
    find(store, cache, later)
    assert store.searches == 1


@pytest.mark.parametrize(
    ("versions", "corpus"),
    [
        ((None,), "unknown"),  # they are changing
        (("v1", "v2"), "unknown"),  # they have changed during the search
        (("v1", None), "unknown"),
        (("v1", "v2", "v1"), "unknown"),  # and back again
        (("v1", "v1", "v2"), "v1"),  # noticed only afterwards: nothing is kept
    ],
)
def test_what_is_found_while_documents_change_is_not_kept(versions: tuple[str | None, ...], corpus: str) -> None:
    cache = MemoryCache()
    assert find(Store(*versions), cache).corpus == corpus
    assert not cache.values


@pytest.mark.parametrize(
    ("states", "corpus"),
    [
        ((("v1", None),), "unknown"),
        ((("v1", "g1"), ("v1", "g3")), "unknown"),  # they have changed and changed back during the search
        ((("v1", "g1"), ("v1", "g1"), ("v1", "g3")), "v1"),  # noticed only afterwards
        ((("v1", "g1"), ("v1", "g1"), ("v1", None)), "v1"),
    ],
)
def test_what_is_found_while_documents_change_and_change_back_is_not_kept(
    states: tuple[tuple[str, str | None], ...], corpus: str
) -> None:
    cache = MemoryCache()
    assert find(TrackedStore(*states), cache).corpus == corpus
    assert not cache.values


def test_the_same_version_in_another_generation_holds_what_was_kept() -> None:
    cache = MemoryCache()
    find(TrackedStore(("v1", "g1")), cache)
    later = TrackedStore(("v1", "g3"))
    assert find(later, cache).corpus == "v1"
    assert later.searches == 0


def test_a_retriever_that_does_not_know_its_version_is_not_cached() -> None:
    store, cache = Silent(), MemoryCache()
    found = [find(store, cache), find(store, cache)]
    assert store.searches == 2
    assert not cache.values
    assert not cache.asked
    assert {one.corpus for one in found} == {"unknown"}


def test_a_version_that_fails_costs_no_answer() -> None:
    class Broken(Silent):
        async def version(self, who: Collection[str]) -> str:
            raise RuntimeError("no")

    assert find(Broken(), MemoryCache()).corpus == "unknown"


def test_a_query_can_do_without_the_cache() -> None:
    store, cache = Store("v1"), MemoryCache()
    find(store, cache)
    asked = len(cache.asked)
    found = find(store, cache, work_item(stage="retrieve", cache=False))
    assert (store.searches, len(cache.asked), found.corpus) == (2, asked, "v1")


def test_the_handler_tells_the_generator_what_was_searched_and_how() -> None:
    store = Store("v1", model="a")
    job = MemoryJob(ITEM)
    asyncio.run(retrieve_handler(store, RetrieverSettings(retriever="my.module:open"))(job))
    assert job.next_item is not None
    assert job.next_item.corpus == "v1"
    assert job.next_item.retriever.startswith("my.module:open#")


def test_a_hit_has_the_frames_of_the_search() -> None:
    store, cache = Store("v1"), MemoryCache()

    async def ask() -> MemoryJob:
        job = MemoryJob(ITEM)
        await retrieve_handler(store, RetrieverSettings(), searches=Searches(store, "store", cache))(job)
        await cache.settled()
        return job

    jobs = [asyncio.run(ask()) for _ in range(2)]
    assert store.searches == 1
    first, second = ([msgspec.to_builtins(frame) for frame in job.frames] for job in jobs)
    for frame in first + second:
        frame.pop("elapsed_ms", None)
    assert first == second
    assert jobs[0].next_item is not None
    assert jobs[1].next_item is not None
    assert jobs[0].next_item.passages == jobs[1].next_item.passages == PASSAGES


def test_a_search_that_fails_is_not_kept() -> None:
    cache = MemoryCache()

    async def failing() -> Sequence[Passage]:
        raise RuntimeError("down")

    search: Callable[[], Awaitable[Sequence[Passage]]] = failing
    with pytest.raises(RuntimeError):
        asyncio.run(Searches(Store("v1"), "store", cache).find(ITEM, REQUEST, search))
    assert not cache.values
