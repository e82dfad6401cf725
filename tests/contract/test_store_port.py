"""What every store promises, asked of each on its real engine."""

from __future__ import annotations

import asyncio
import math
import random
import secrets
import string
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from baton_proto.readers import EVERYBODY
from services.common.config import RetrieverSettings
from services.common.errors import ServiceError
from services.retriever.stored import DocumentInfo, StoredPassage
from services.retriever.stores.opening import open_store
from services.retriever.stores.port import NoProperties, Store, StoreQuery, Where
from tests.servers.milvus import Milvus
from tests.servers.pinecone import KEY, pinecone_index
from tests.servers.processes import eventually
from tests.shelf import settings_for

T = TypeVar("T")
ALL = Where(frozenset({EVERYBODY}))
SIZE = 8


KEEPS_NO_PROPERTIES = ("pinecone",)
"""Stores that may show what was there before, for how long nobody knows. No corpus version is told of them."""


@pytest.fixture(scope="module")
def pinecone() -> Iterator[dict[str, str]]:
    """Settings for a stand-in of its HTTP; the others run as they are."""
    with pinecone_index() as words, pinecone_index(SIZE) as dense:
        yield {"pinecone_api_key": KEY, "pinecone_host": words.host, "pinecone_dense_host": dense.host}


@pytest.fixture(params=["milvus", "local", "pinecone"])
def settings(
    request: pytest.FixtureRequest, milvus: Milvus, pinecone: dict[str, str], tmp_path: Path
) -> RetrieverSettings:
    there = {"store_dir": str(tmp_path / "store"), "pinecone_namespace": f"n_{secrets.token_hex(6)}", **pinecone}
    return settings_for(milvus, retriever=request.param, timeout_s=60.0, **there)


def run(settings: RetrieverSettings, *uses: Callable[..., Awaitable[T]], count: int = 1) -> T:
    """Use `count` stores that are open at once on the same data."""

    async def opened() -> T:
        async with AsyncExitStack() as stack:
            opening: list[AbstractAsyncContextManager[Store]] = [open_store(settings) for _ in range(count)]
            stores = [await stack.enter_async_context(one) for one in opening]
            return await uses[0](*stores)

    return asyncio.run(opened())


def document(number: int, **fields: object) -> DocumentInfo:
    info = DocumentInfo(
        document_id=f"{number:032x}",
        name=f"{number}.md",
        title=f"Title {number}",
        language="en",
        media_type="text/markdown",
        content_hash="ab" * 32,
        passages=0,
        bytes=10,
        ingested_ms=1_700_000_000_000 + number,
    )
    return replace(info, **fields)  # type: ignore[arg-type]


def passages(info: DocumentInfo, *texts: str, vectors: Sequence[list[float]] = ()) -> list[StoredPassage]:
    return [
        StoredPassage(info, n, text, "Heading", 10 * n, 10 * n + 5, n + 1, vectors[n] if vectors else None)
        for n, text in enumerate(texts)
    ]


async def put(store: Store, info: DocumentInfo, *texts: str, vectors: Sequence[list[float]] = ()) -> None:
    await store.upsert(passages(info, *texts, vectors=vectors), len(texts))


async def found(
    store: Store, text: str, where: Where = ALL, top_k: int = 10, vector: list[float] | None = None
) -> list[str]:
    return [hit.id for hit in await store.search(StoreQuery(text, top_k, where, vector))]


def towards(axis: int, other: float = 0.0) -> list[float]:
    vector = [0.0] * SIZE
    vector[axis], vector[(axis + 1) % SIZE] = math.sqrt(1 - other**2), other
    return vector


def test_before_the_first_document_it_is_an_empty_one(settings: RetrieverSettings) -> None:
    async def use(store: Store) -> None:
        assert await found(store, "leave") == []
        assert await store.documents() == []
        assert await store.ordinals("0" * 32) == set()
        assert await store.dimension() is None
        assert await store.properties() is None
        await store.delete("0" * 32)

    run(settings, use)


def test_words_of_both_languages_find_their_passage_first(settings: RetrieverSettings) -> None:
    async def use(store: Store) -> None:
        await store.ensure(None)
        await put(store, document(1), "员工每年有十五天年假。", "没有休完的年假可以结转五天。")
        await put(store, document(2), "Hotels are reimbursed up to 180 euros.", "Hand in receipts within 30 days.")
        await put(store, document(3), "安装 VPN 客户端之后再连接。")
        assert (await found(store, "年假怎么结转?"))[0] == f"{1:032x}-1"
        assert (await found(store, "reimbursing a HOTEL"))[0] == f"{2:032x}-0"
        assert (await found(store, "how do I install the vpn"))[0] == f"{3:032x}-0"
        assert await found(store, "football cup") == []
        assert await found(store, "？！") == []

    run(settings, use)


def test_how_a_document_begins_finds_its_later_passages_and_is_not_shown(settings: RetrieverSettings) -> None:
    async def use(store: Store) -> None:
        await store.ensure(None)
        first, second = passages(document(1), "黄昆岩是台湾的医学家。", "他在美国获得微生物学博士学位。")
        other = passages(document(2), "博士学位由研究生院授予。", "微生物学是生物学的分支。")
        await store.upsert([first, replace(second, lead=first.text)], 2)
        await store.upsert(other, 2)
        (hit, *_) = await store.search(StoreQuery("黄昆岩的博士学位", 10, ALL))
        assert (hit.id, hit.text) == (second.id, second.text)

    run(settings, use)


def test_words_of_a_late_document_are_as_rare_as_among_all(settings: RetrieverSettings) -> None:
    """Milvus Lite counts by segment, and merges them behind a flush: the late document must not stay in one alone."""
    random.seed(1)
    large = ["".join(random.choices(string.punctuation, k=35_000)) for _ in range(40)]

    async def use(store: Store) -> None:
        await store.ensure(None)
        await put(store, document(1), *large)
        await put(store, document(2), "The habitat has rules.", *(f"Rules number {n}" for n in range(10)))
        await store.settle()
        await put(store, document(3), "The quokka lives in this habitat.", *(f"Quokka number {n}" for n in range(5)))
        await store.settle()

        async def ranked() -> bool:
            return (await found(store, "quokka habitat rules"))[0] == f"{3:032x}-0"

        await eventually(ranked, "the late document's words count as rare", within_s=60)

    run(settings, use)


def test_a_hit_is_the_passage_as_it_was_written(settings: RetrieverSettings) -> None:
    async def use(store: Store) -> None:
        await store.ensure(None)
        await put(store, document(1), "A quokka.", "A wombat \"quoted\" \\ 'so'\nand 袋熊 🐨.")
        (hit,) = await store.search(StoreQuery("wombat", 5, ALL))
        assert hit.score > 0
        kept = (hit.document_id, hit.ordinal, hit.title, hit.heading, hit.text, hit.start, hit.end, hit.page)
        assert kept == (f"{1:032x}", 1, "Title 1", "Heading", "A wombat \"quoted\" \\ 'so'\nand 袋熊 🐨.", 10, 15, 2)

    run(settings, use)


def test_scores_fall_and_no_more_are_found_than_wanted(settings: RetrieverSettings) -> None:
    async def use(store: Store) -> None:
        await store.ensure(None)
        for number in range(12):
            await put(store, document(number), "quokka " * (number + 1) + "filler " * 20)
        hits = await store.search(StoreQuery("quokka", 5, ALL))
        assert len(hits) == 5
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)

    run(settings, use)


def test_vectors_and_words_are_fused(settings: RetrieverSettings) -> None:
    async def use(store: Store) -> None:
        await store.ensure(SIZE)
        assert await store.dimension() == SIZE
        await put(store, document(1), "quokka", vectors=[towards(0)])
        await put(store, document(2), "wombat", vectors=[towards(1)])
        await put(store, document(3), "quokka and others", vectors=[towards(1, 0.1)])
        for number in range(4, 9):
            await put(store, document(number), "numbat", vectors=[towards(1, 0.2 + number / 100)])
        assert (await found(store, "", vector=towards(0)))[0] == f"{1:032x}-0"
        # Second by both routes is before what is first by one and far behind by the other.
        assert (await found(store, "quokka", vector=towards(1)))[0] == f"{3:032x}-0"
        assert set(await found(store, "quokka")) == {f"{1:032x}-0", f"{3:032x}-0"}

    run(settings, use)


def test_what_is_hidden_takes_no_place_by_either_route(settings: RetrieverSettings) -> None:
    async def use(store: Store) -> None:
        await store.ensure(SIZE)
        for number in range(30):
            info = document(number, readers=("user:ann",), owner="ann")
            await put(store, info, "quokka quokka quokka", vectors=[towards(0)])
        for number in range(30, 33):
            await put(store, document(number), "a quokka among other words here", vectors=[towards(0, 0.5)])
        await put(store, document(40, readers=("group:hr", "user:bob")), "one quokka", vectors=[towards(0, 0.4)])
        open_ids = {f"{number:032x}-0" for number in range(30, 33)}
        for vector in (None, towards(0)):
            assert set(await found(store, "quokka", top_k=3, vector=vector)) == open_ids
            hr = Where(frozenset({EVERYBODY, "group:hr"}))
            assert set(await found(store, "quokka", hr, 10, vector)) == open_ids | {f"{40:032x}-0"}
            ann = Where(frozenset({EVERYBODY, "user:ann"}))
            assert len(await found(store, "quokka", ann, 50, vector)) == 33
            assert len(await found(store, "quokka", Where(None), 50, vector)) == 34
            for nobody in (frozenset[str](), frozenset({"user:mallory"}), frozenset({'user:ann", "everybody'})):
                assert await found(store, "quokka", Where(nobody), 50, vector) == []

    run(settings, use)


def test_filters_are_equalities_of_the_right_type(settings: RetrieverSettings) -> None:
    async def use(store: Store) -> None:
        await store.ensure(None)
        first = {"site": "Berlin", "year": 2026, "public": True, "share": 0.5}
        await put(store, document(1, metadata=first), "quokka")
        await put(store, document(2, metadata={"site": "2026", "year": 2025}, language="zh"), "quokka")
        await put(store, document(3, metadata={"year": "2026", "public": False}), "quokka")

        async def numbers(**equals: str | int | float | bool) -> set[int]:
            ids = await found(store, "quokka", Where(frozenset({EVERYBODY}), equals))
            return {int(id.partition("-")[0], 16) for id in ids}

        assert await numbers(site="Berlin") == {1}
        assert await numbers(year=2026) == {1}
        assert await numbers(year="2026") == {3}
        assert await numbers(public=True) == {1}
        assert await numbers(public=False) == {3}
        assert await numbers(share=0.5) == {1}
        assert await numbers(language="zh") == {2}
        assert await numbers(name="3.md") == {3}
        assert await numbers(document_id=f"{1:032x}", site="Berlin") == {1}
        assert await numbers(document_id=f"{1:032x}", site="Paris") == set()
        assert await numbers(nothing="x") == set()
        assert await numbers(site='Berlin" or "1" == "1') == set()

    run(settings, use)


def test_a_new_version_replaces_and_a_deletion_removes_everything(settings: RetrieverSettings) -> None:
    async def use(store: Store) -> None:
        await store.ensure(SIZE)
        await put(store, document(1), "quokka", "wombat", vectors=[towards(0), towards(1)])
        await put(store, document(1), "numbat", vectors=[towards(2)])  # the first passage again, with another text
        assert await found(store, "quokka") == []
        assert await found(store, "numbat") == [f"{1:032x}-0"]
        assert await store.ordinals(f"{1:032x}") == {0, 1}
        await store.delete(f"{1:032x}")
        assert await found(store, "numbat wombat", vector=towards(1)) == []
        assert await store.documents() == []
        assert await store.ordinals(f"{1:032x}") == set()

    run(settings, use)


def test_documents_are_told_with_all_that_is_known_of_them(settings: RetrieverSettings) -> None:
    async def use(store: Store) -> None:
        await store.ensure(None)
        info = document(2, name="b/年假.md", owner="ann", readers=("group:hr", "user:ann"), metadata={"year": 2026})
        await put(store, info, "one", "two")
        await store.upsert(passages(document(1), "unfinished"), 0)
        assert await store.documents() == [document(1), replace(info, passages=2)]
        assert await store.find("ann", "b/年假.md") == [replace(info, passages=2)]
        assert await store.find("", "1.md") == [document(1)]
        assert await store.find("", "b/年假.md") == []

    run(settings, use)


def test_properties_are_set_one_by_one_and_dropped(settings: RetrieverSettings) -> None:
    async def use(store: Store) -> None:
        await store.ensure(None)
        if settings.retriever in KEEPS_NO_PROPERTIES:
            with pytest.raises(NoProperties):
                await store.set_properties({"baton.a": "1"})
            assert await store.properties() == {}
            assert math.isinf(await store.shows_after_s())
            return
        await store.set_properties({"baton.a": "1", "baton.b": "2"})
        await store.set_properties({"baton.b": "3"})
        kept = await store.properties() or {}
        assert (kept["baton.a"], kept["baton.b"]) == ("1", "3")
        await store.drop_properties(["baton.a"])
        assert "baton.a" not in (await store.properties() or {})

    run(settings, use)


def test_vectors_of_another_length_are_refused_with_what_to_do(settings: RetrieverSettings) -> None:
    async def use(store: Store) -> None:
        await store.ensure(None)
        await store.ensure(None)
        with pytest.raises(ServiceError, match=r"without embeddings.*embeddings of 8"):
            await store.ensure(SIZE)

    run(settings, use)


def test_what_one_process_writes_another_one_finds(settings: RetrieverSettings) -> None:
    async def use(writer: Store, reader: Store) -> None:
        await writer.ensure(SIZE)
        await put(writer, document(1), "quokka", vectors=[towards(0)])
        assert await found(reader, "quokka", vector=towards(0)) == [f"{1:032x}-0"]
        await put(writer, document(2), "quokka too", vectors=[towards(0)])
        assert len(await found(reader, "quokka", vector=towards(0))) == 2
        await reader.delete(f"{1:032x}")
        assert await found(writer, "quokka", vector=towards(0)) == [f"{2:032x}-0"]

    run(settings, use, count=2)


def test_many_writers_and_searches_at_once_lose_nothing(settings: RetrieverSettings) -> None:
    async def use(*stores: Store) -> None:
        await stores[0].ensure(None)

        async def write(number: int) -> None:
            info = document(number)
            while await stores[number % 2].ordinals(info.document_id) != {0, 1}:  # as PassageWriter does
                await put(stores[number % 2], info, f"quokka number{number}", "second")

        async def search() -> None:
            await found(stores[2], "quokka")

        await asyncio.gather(*(write(number) for number in range(24)), *(search() for _ in range(24)))
        assert len(await found(stores[2], "quokka", top_k=50)) == 24
        assert len(await stores[2].documents()) == 24

    run(settings, use, count=3)
