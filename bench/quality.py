"""How well passages are found: recall@10 and MRR@10 on question sets in SQuAD's format, beside bm25s on the same.

    python bench/quality.py [--questions N] FILE…

Each distinct paragraph is one document of one passage, without a title; a question that has an answer should find its
paragraph. The store and the embedder are those of the settings (BATON_RETRIEVER, BATON_EMBEDDER, …); where Milvus is to
be searched and BATON_MILVUS_URI is not set, a Milvus Lite server of its own is started. bm25s gets the words in lower
case, Chinese cut by jieba, at its own defaults. With an embedder the same passages are searched without it too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import bm25s
import jieba

sys.path.insert(0, str(Path(__file__).parent.parent))

from services.common.config import RetrieverSettings
from services.common.settings import load
from services.retriever.embedding import Embedding, open_embedder
from services.retriever.port import SearchRequest
from services.retriever.store_retriever import StoreRetriever
from services.retriever.stored import DocumentInfo, StoredPassage
from services.retriever.stores.opening import open_store
from tests.servers.milvus import milvus_lite

TOP_K = 10
BATCH = 128
SEED = 5


@dataclass(frozen=True)
class Questions:
    name: str
    paragraphs: list[str]
    asked: list[tuple[str, int]]
    """A question, and the place of the paragraph that answers it."""


def read_squad(path: Path, most: int) -> Questions:
    places: dict[str, int] = {}
    asked = []
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            place = places.setdefault(paragraph["context"], len(places))
            asked += [(entry["question"], place) for entry in paragraph["qas"] if entry.get("answers")]
    random.Random(SEED).shuffle(asked)
    return Questions(path.stem, list(places), asked[:most])


def by_bm25s(questions: Questions) -> list[list[int]]:
    def words(text: str) -> list[str]:
        return re.findall(r"\w+", " ".join(jieba.cut(text.lower())))

    index = bm25s.BM25()
    index.index([words(paragraph) for paragraph in questions.paragraphs], show_progress=False)
    found, _ = index.retrieve([words(question) for question, _ in questions.asked], k=TOP_K, show_progress=False)
    return [[int(place) for place in row] for row in found]


async def by_store(
    questions: Questions, settings: RetrieverSettings, embedder: Embedding | None
) -> list[tuple[str, list[list[int]]]]:
    settings = replace(settings, collection=f"quality_{secrets.token_hex(4)}", timeout_s=60.0)
    async with open_store(settings) as store:
        passages = [_passage(place, text) for place, text in enumerate(questions.paragraphs)]
        dimension = None if embedder is None else len((await embedder.embed(["dimension"]))[0])
        await store.ensure(dimension)
        for first in range(0, len(passages), BATCH):
            batch = passages[first : first + BATCH]
            if embedder is not None:
                vectors = await embedder.embed([passage.text for passage in batch])
                batch = [replace(passage, vector=vector) for passage, vector in zip(batch, vectors, strict=True)]
            await store.upsert(batch, 1)
        await store.settle()
        rows = [("words", await _found(StoreRetriever(store, None, settings), questions))]
        if embedder is not None:
            rows.append(("words and embedding", await _found(StoreRetriever(store, embedder, settings), questions)))
        return rows


async def _found(retriever: StoreRetriever, questions: Questions) -> list[list[int]]:
    found = []
    for question, _ in questions.asked:
        passages = await retriever.retrieve(SearchRequest(question, "en", TOP_K))
        found.append([int(passage.document_id, 16) for passage in passages])
    await retriever.close()
    return found


def _passage(place: int, text: str) -> StoredPassage:
    info = DocumentInfo(f"{place:032x}", f"{place}.txt", "", "", "text/plain", f"{place:064x}", 1, len(text), 0)
    return StoredPassage(info, 0, text, "", 0, len(text))


def line(questions: Questions, name: str, found: Sequence[Sequence[int]], took_s: float) -> str:
    places = [
        row.index(place) + 1 if place in row else None for row, (_, place) in zip(found, questions.asked, strict=True)
    ]
    cells = []
    # Whoever tunes by the first half reads the second.
    for part in (places, places[::2], places[1::2]):
        recall = sum(place is not None for place in part) / len(part)
        mrr = sum(1 / place for place in part if place is not None) / len(part)
        cells += [f"{recall:.3f}", f"{mrr:.3f}"]
    return f"| {questions.name} | {name} | " + " | ".join(cells) + f" | {took_s:.0f} s |"


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--questions", type=int, default=1000)
    arguments = parser.parse_args()
    (settings,) = load([RetrieverSettings], [RetrieverSettings])
    with ExitStack() as stack:
        if settings.retriever == "milvus" and "BATON_MILVUS_URI" not in os.environ:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            settings = replace(settings, milvus_uri=stack.enter_context(milvus_lite(folder)).uri)
        print("| set | system | recall@10 | MRR@10 | even: recall | MRR | odd: recall | MRR | took |", flush=True)
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
        async with open_embedder(settings) as embedder:
            for path in arguments.files:
                questions = read_squad(path, arguments.questions)
                started = time.monotonic()
                print(line(questions, "bm25s", by_bm25s(questions), time.monotonic() - started), flush=True)
                started = time.monotonic()
                for name, found in await by_store(questions, settings, embedder):
                    name = f"{settings.retriever}: {name}"
                    print(line(questions, name, found, time.monotonic() - started), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
