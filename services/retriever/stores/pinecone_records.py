"""What is stored on Pinecone: a record for each passage, and one that says that the collection was made.

A document's first passage (`ordinal` 0) stands for the document. What can be asked for are keys (keys.py), a list of
texts: so Pinecone's own notion of numbers and types has no part in who finds what.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from services.retriever.bad_document import BadDocument
from services.retriever.filters import MAX_VALUE_CHARS
from services.retriever.stored import DocumentInfo, Hit, StoredPassage

from .cutting import words_of
from .keys import equality_key, keys_of, reader_key
from .pinecone_index import Record
from .pinecone_words import MARK, passage_weights, sparse
from .port import Where

COLLECTION = "collection"
"""The id of the record that is there once the collection has been made."""
MAX_METADATA_BYTES = 40_000
MAX_RECORDS, MAX_BYTES = 100, 1_800_000
"""Of one request; Pinecone takes 2 MB."""
_MAX_KEY_CHARS = 2 * MAX_VALUE_CHARS
FIRST = {"ordinal": {"$eq": 0}}


def of_document(document_id: str) -> dict[str, Any]:
    return {"document_id": {"$eq": document_id}}


def of_file(owner: str, name: str) -> dict[str, Any]:
    """The first passages of a file's documents."""
    return {"file": {"$eq": _file(owner, name)}}


def written(token: str) -> dict[str, Any]:
    """The last record that was written with `token`."""
    return {"written": {"$eq": token}}


def condition(where: Where) -> dict[str, Any] | None:
    """The metadata filter that `where` is. Its readers must not be empty."""
    parts = [] if where.readers is None else [sorted(map(reader_key, where.readers))]
    parts += [[equality_key(name, value)] for name, value in where.equals.items()]
    return {"$and": [{"keys": {"$in": part}} for part in parts]} if parts else None


def collection_record(dimension: int | None) -> Record:
    return {"id": COLLECTION, "sparse_values": sparse({MARK: 1.0}), "metadata": {"dimension": dimension or 0}}


def to_records(passages: Sequence[StoredPassage], total: int, token: str) -> list[Record]:
    """What a search by words goes over. `total` is the document's number of passages, 0 while more are to come.

    Raises:
        BadDocument: there is more to a passage than Pinecone keeps.
    """
    records: list[Record] = [
        {"id": one.id, "sparse_values": sparse(passage_weights(words_of(one))), "metadata": _metadata(one, total)}
        for one in passages
    ]
    for record in records[-1:]:
        record["metadata"]["written"] = token
    for passage, record in zip(passages, records, strict=True):
        size = _size(record["metadata"])
        if size > MAX_METADATA_BYTES:
            raise BadDocument(
                f"passage {passage.ordinal} takes {size:,} bytes with what is known of the document (title, metadata, "
                f"readers); Pinecone keeps {MAX_METADATA_BYTES:,}. Shorten those, or lower BATON_CHUNK_TOKENS"
            )
    return records


def with_vectors(records: Sequence[Record], passages: Sequence[StoredPassage]) -> list[Record]:
    """What a search by nearness goes over: the same with vectors, where there are vectors."""
    return [
        {"id": record["id"], "values": passage.vector, "metadata": record["metadata"]}
        for record, passage in zip(records, passages, strict=True)
        if passage.vector is not None
    ]


def requests(records: Iterable[Record]) -> Iterator[list[Record]]:
    """The records of each request, as many as one may have."""
    batch: list[Record] = []
    size = 0
    for record in records:
        needs = _size(record)
        if batch and (len(batch) == MAX_RECORDS or size + needs > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += needs
    if batch:
        yield batch


def to_hit(id: str, score: float, kept: Mapping[str, Any]) -> Hit:
    ordinal, start, end = (int(kept[name]) for name in ("ordinal", "start", "end"))
    page = int(kept["page"]) if "page" in kept else None
    return Hit(id, score, kept["document_id"], ordinal, kept["title"], kept["heading"], kept["text"], start, end, page)


def to_document(kept: Mapping[str, Any]) -> DocumentInfo:
    info = msgspec.json.decode(kept["info"], type=DocumentInfo)
    return replace(info, passages=int(kept["total"]))


def _metadata(passage: StoredPassage, total: int) -> Record:
    info = passage.document
    kept: Record = {
        "document_id": info.document_id,
        "ordinal": passage.ordinal,
        "title": info.title,
        "heading": passage.heading,
        "text": passage.text,
        "start": passage.start,
        "end": passage.end,
        # Longer ones cannot be asked for.
        "keys": [key for key in keys_of(info) if len(key) <= _MAX_KEY_CHARS],
    }
    if passage.page is not None:
        kept["page"] = passage.page
    if passage.ordinal == 0:
        kept |= {"info": msgspec.json.encode(info).decode(), "file": _file(info.owner, info.name), "total": total}
    return kept


def _file(owner: str, name: str) -> str:
    return hashlib.sha256(json.dumps([owner, name]).encode()).hexdigest()


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())
