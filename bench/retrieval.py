"""What a search takes at 10,000 and 100,000 passages, for each embedded store, beside that store's bare client.

    python -m bench.retrieval [--sizes 10000,100000] [--stores local,milvus] [--questions 200]

Both sides look for the same questions in the same passages in the same run, in turns, and neither has heard a question
before. Ours is the retriever as a worker calls it. The bare side is what one would write with the engine's own client
for the same: the best 6 passages with all that is kept of them, in a thread as any asyncio service must. Asked is once
by somebody who may read all, where the bare side has no filter at all, and once by somebody who may read nine of ten
documents, where it has one.

- `local`: tantivy's BM25 and FAISS's HNSW with the same parameters, fused by reciprocal rank, and the passages from a
  SQLite table, for neither engine keeps texts. The filter is tantivy's `term_set_query` and FAISS's `IDSelectorBitmap`,
  made ready once. On one core.
- `milvus`: one `search`, or one `hybrid_search` with `RRFRanker`; the filter is the expression that we use as well.

Both find 30 passages by each route for words and vectors. What ours does besides: it looks for some passages more, puts
them together by score, follows what others write, leaves repetitions out and joins neighbours. Words and vectors are
made up from a seed: words by Zipf's law, half of the documents Chinese; vectors of 384 numbers. Absolute times are this
machine's; the ratio is what counts.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import resource
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import tantivy
import uvloop
from numpy.typing import NDArray
from pymilvus import AnnSearchRequest, MilvusClient, RRFRanker

from baton_proto.readers import EVERYBODY
from services.common.config import RetrieverSettings
from services.retriever import search_text as words_of
from services.retriever.embedding import Embedding
from services.retriever.port import SearchRequest
from services.retriever.search_text import search_text
from services.retriever.store_retriever import StoreRetriever
from services.retriever.stored import DocumentInfo, StoredPassage
from services.retriever.stores import cutting
from services.retriever.stores.cutting import cut
from services.retriever.stores.milvus_filters import expression
from services.retriever.stores.milvus_schema import PASSAGE_FIELDS
from services.retriever.stores.opening import open_store
from services.retriever.stores.port import Where
from tests.servers.milvus import milvus_lite

DIMENSION, TOP_K, PER_DOCUMENT = 384, 6, 100
MILVUS_QUESTIONS = 40
"""Each takes some tenths of a second there."""
BOUND = 1.2
WANTED = 30
MOST, ALL = frozenset({EVERYBODY, "user:ann"}), frozenset({EVERYBODY, "group:board"})
HIDDEN = ("group:board",)
"""Readers of every tenth document."""
CHINESE = (
    "员工年假工资报销出差合同培训考勤绩效保险办公设备安全会议客户项目部门经理"
    "申请审批流程天数标准餐费酒店交通补贴试用转正离职交接奖金晋升"
)
Bare = Callable[[str, list[float] | None, bool], object]
"""Searches by a question, by its vector too where there is one, under a filter or without."""
Vectors = NDArray[np.float32]
Search = Callable[[str], Awaitable[object]]


class Words:
    """Texts made of words by Zipf's law, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        letters = "abcdefghijklmnopqrstuvwxyz"
        self._english = ["".join(self._random.choices(letters, k=self._random.randint(3, 9))) for _ in range(30_000)]
        self._chinese = ["".join(self._random.choices(CHINESE, k=2)) for _ in range(2_000)]

    def text(self, chinese: bool, count: int) -> str:
        words = self._chinese if chinese else self._english
        # The rank of a word by Zipf's law is about exp(u * log(n)) for u uniform in 0…1.
        ranks = [int(len(words) ** self._random.random()) - 1 for _ in range(count)]
        return ("" if chinese else " ").join(words[rank] for rank in ranks)


class Fixed:
    """An embedder that has the questions' vectors ready: its time is not ours to measure."""

    def __init__(self, vectors: dict[str, list[float]]) -> None:
        self._vectors = vectors

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return [self._vectors[text] for text in texts]


def corpus(size: int, vectors: Vectors) -> list[list[StoredPassage]]:
    words = Words(1)
    documents = []
    for number in range(size // PER_DOCUMENT):
        chinese = number % 2 == 1
        readers = HIDDEN if number % 10 == 9 else (EVERYBODY,)
        title = words.text(chinese, 4)
        info = DocumentInfo(
            f"{number:032x}", f"{number}.md", title, "en", "text/plain", "", 0, 1, number, readers=readers
        )
        documents.append(
            [
                StoredPassage(
                    info, n, words.text(chinese, 90), "", 0, 1, None, vectors[number * PER_DOCUMENT + n].tolist()
                )
                for n in range(PER_DOCUMENT)
            ]
        )
    return documents


async def measured(bare: Search, ours: Search, asked: Sequence[str]) -> dict[str, list[float]]:
    """Milliseconds of each search. The sides take turns, so what disturbs the machine disturbs both.

    Words that were cut once are known afterwards. So each side asks one half of the questions, then the other half,
    which the other side has asked before and which is forgotten in between.
    """
    times: dict[str, list[float]] = {"bare": [], "ours": []}
    for search in (bare, ours):
        await search(asked[0])
    for halves in ((asked[::2], asked[1::2]), (asked[1::2], asked[::2])):
        for known in (words_of.stem, words_of._normal, cutting._cut_chinese):
            known.cache_clear()
        for number, (one, other) in enumerate(zip(*halves, strict=True)):
            turns = [("bare", bare, one), ("ours", ours, other)]
            for name, search, question in turns if number % 2 else reversed(turns):
                started = time.perf_counter()
                await search(question)
                times[name].append((time.perf_counter() - started) * 1000)
    return times


def bare_local(documents: list[list[StoredPassage]], vectors: Vectors, folder: Path) -> Bare:
    """tantivy and FAISS, used as their examples do, with the passages in SQLite."""
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("place", fast=True)
    builder.add_text_field("words", tokenizer_name="whitespace", index_option="freq")
    builder.add_text_field("readers", tokenizer_name="raw", index_option="basic")
    schema = builder.build()
    index = tantivy.Index(schema)
    writer = index.writer(64 * 1024 * 1024, 1)
    passages = [passage for document in documents for passage in document]
    for place, passage in enumerate(passages):
        entry = tantivy.Document()
        entry.add_unsigned("place", place)
        entry.add_text("words", " ".join(cut(search_text(passage.document.title, passage.text))))
        for reader in passage.document.readers:
            entry.add_text("readers", reader)
        writer.add_document(entry)
    writer.commit()
    index.reload()
    searcher = index.searcher()
    faiss.omp_set_num_threads(1)
    graph = faiss.IndexHNSWFlat(DIMENSION, 16, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = 80
    graph.add(vectors)
    allowed = np.asarray([not MOST.isdisjoint(passage.document.readers) for passage in passages])
    selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))  # type: ignore[call-arg, arg-type]
    filtered = faiss.SearchParametersHNSW(efSearch=64, sel=selector)  # type: ignore[attr-defined]
    unfiltered = faiss.SearchParametersHNSW(efSearch=64)  # type: ignore[attr-defined]
    readable = tantivy.Query.const_score_query(tantivy.Query.term_set_query(schema, "readers", list(MOST)), 0.0)

    database = sqlite3.connect(folder / "bare.sqlite", check_same_thread=False)
    columns = "document_id TEXT, ordinal INTEGER, title TEXT, heading TEXT, text TEXT, page INTEGER, start, stop"
    database.execute(f"CREATE TABLE passages (place INTEGER PRIMARY KEY, {columns})")
    for n, one in enumerate(passages):
        of = one.document
        row = (n, of.document_id, one.ordinal, of.title, one.heading, one.text, one.page, one.start, one.end)
        database.execute("INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    database.commit()

    def texts(places: Sequence[object]) -> object:
        asked = [int(place) for place in places]  # type: ignore[call-overload]
        marks = ", ".join("?" * len(asked))
        found = {row[0]: row for row in database.execute(f"SELECT * FROM passages WHERE place IN ({marks})", asked)}
        return [found[place] for place in asked]

    def search(question: str, vector: list[float] | None, under_filter: bool) -> object:
        terms = [
            (tantivy.Occur.Should, tantivy.Query.term_query(schema, "words", word))
            for word in set(cut(search_text(question)))
        ]
        asked = tantivy.Query.boolean_query(terms)
        if under_filter:
            asked = tantivy.Query.boolean_query([(tantivy.Occur.Must, asked), (tantivy.Occur.Must, readable)])
        hits = searcher.search(asked, TOP_K if vector is None else WANTED, count=False).hits
        places = searcher.fast_field_values("place", [address for _, address in hits])
        if vector is None:
            return texts(places)
        parameters = filtered if under_filter else unfiltered
        _, near = graph.search(np.asarray([vector], np.float32), WANTED, params=parameters)
        scores: dict[int, float] = {}
        for ranking in (places, near[0]):
            for rank, place in enumerate(ranking):
                scores[int(place)] = scores.get(int(place), 0.0) + 1 / (61 + rank)
        return texts(sorted(scores, key=lambda place: -scores[place])[:TOP_K])

    return search


def bare_milvus(settings: RetrieverSettings) -> Bare:
    client = MilvusClient(settings.milvus_uri)
    readers = expression(Where(MOST), lite=True)

    def search(question: str, vector: list[float] | None, under_filter: bool) -> object:
        words, readable = search_text(question), readers if under_filter else ""
        if vector is None:
            return client.search(
                settings.collection,
                data=[words],
                anns_field="sparse",
                filter=readable,
                limit=TOP_K,
                output_fields=PASSAGE_FIELDS,
                search_params={"metric_type": "BM25"},
            )
        routes = [
            AnnSearchRequest([vector], "dense", {"metric_type": "COSINE"}, WANTED, readable),
            AnnSearchRequest([words], "sparse", {"metric_type": "BM25"}, WANTED, readable),
        ]
        return client.hybrid_search(
            settings.collection, routes, RRFRanker(60), limit=TOP_K, output_fields=PASSAGE_FIELDS
        )

    return search


async def one(name: str, size: int, questions: int) -> bool:
    """Measure one store at one size; whether ours adds no more than the bound."""
    generator = np.random.default_rng(2)
    vectors = generator.standard_normal((size, DIMENSION), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    documents = corpus(size, vectors)
    words = Words(3)
    asked = [words.text(number // 2 % 2 == 1, 8) for number in range(2 * (questions // 2))]
    near = {text: (vectors[n * 7] + generator.standard_normal(DIMENSION) / 30).tolist() for n, text in enumerate(asked)}
    well = True
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="baton-bench-")))
        settings = RetrieverSettings(retriever=name, store_dir=str(folder / "store"), collection="bench", timeout_s=60)
        if name == "milvus":
            settings = replace(settings, milvus_uri=stack.enter_context(milvus_lite(folder / "milvus")).uri)
        async with open_store(settings) as store:
            started = time.perf_counter()
            await store.ensure(DIMENSION)
            for document in documents:
                await store.upsert(document, len(document))
            await store.settle()
            built_s = time.perf_counter() - started
            bare = bare_local(documents, vectors, folder) if name == "local" else bare_milvus(settings)
            documents.clear()
            gc.collect()
            gc.freeze()
            by_words = StoreRetriever(store, None, settings)
            by_both = StoreRetriever(store, Embedding(Fixed(near)), settings)

            def ours(retriever: StoreRetriever, who: frozenset[str]) -> Search:
                return lambda question: retriever.retrieve(SearchRequest(question, "en", TOP_K, None, who))

            def plainly(hybrid: bool, who: frozenset[str]) -> Search:
                async def search(question: str) -> object:
                    return await asyncio.to_thread(bare, question, near[question] if hybrid else None, who is MOST)

                return search

            print(f"{name}, {size:,} passages, written in {built_s:.0f} s:")
            for may_read, who in (("all", ALL), ("9 of 10", MOST)):
                for kind, retriever, hybrid in (("words", by_words, False), ("words and vectors", by_both, True)):
                    times = await measured(plainly(hybrid, who), ours(retriever, who), asked)
                    well &= told(f"{kind}, {may_read}", times, alike=who is MOST)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(f"  most memory of this process, the bare side's included: {peak:,} MiB")
            for retriever in (by_words, by_both):
                await retriever.close()
    return well


def told(kind: str, times: dict[str, list[float]], *, alike: bool) -> bool:
    """Print a line; whether the bound holds. It is for the rows in which both sides do the same: without a filter the
    bare side finds what nobody has permitted."""
    p50 = {name: statistics.median(values) for name, values in times.items()}
    p95 = {name: sorted(values)[int(len(values) * 0.95)] for name, values in times.items()}
    ratio = p50["ours"] / p50["bare"]
    verdict = "within" if ratio <= BOUND else "OVER"
    judged = f"{verdict} {BOUND}" if alike else "bare without permissions"
    print(
        f"  {kind:<26} bare p50 {p50['bare']:8.2f} ms, p95 {p95['bare']:8.2f} ms; "
        f"ours p50 {p50['ours']:8.2f} ms, p95 {p95['ours']:8.2f} ms; ratio {ratio:.2f} ({judged})"
    )
    return ratio <= BOUND or not alike


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--sizes", default="10000,100000", help="numbers of passages, separated by commas")
    parser.add_argument("--stores", default="local,milvus", help="stores, separated by commas")
    parser.add_argument("--questions", type=int, default=200)
    arguments = parser.parse_args()
    well = True
    for size in (int(part) for part in arguments.sizes.split(",")):
        for name in arguments.stores.split(","):
            cores = os.sched_getaffinity(0)
            if name == "local":
                os.sched_setaffinity(0, {max(cores)})
            questions = arguments.questions if name == "local" else min(arguments.questions, MILVUS_QUESTIONS)
            well &= uvloop.run(one(name, size, questions))  # as the services do
            os.sched_setaffinity(0, cores)
    return 0 if well else 1


if __name__ == "__main__":
    raise SystemExit(main())
