"""The Milvus collection of passages: its fields, and the rows that go in and come out.

Every passage carries what is known of its document, so one collection is all there is. A document's first passage
(`ordinal` 0) stands for the document: its `passages` is the number of passages, or 0 while they are still being
written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pymilvus import DataType, Function, FunctionType, MilvusClient

from baton_proto.messages import MAX_READERS
from baton_proto.readers import MAX_PRINCIPAL_CHARS
from services.retriever.search_text import passage_words
from services.retriever.stop_words import CHINESE_STOP_WORDS
from services.retriever.stored import DocumentInfo, Hit, StoredPassage

SPARSE, DENSE, READERS, MARKS = "sparse", "dense", "readers", "reader_marks"
BLANK_ID = "blank"
_TEXT_BYTES = 65_535  # a VARCHAR's most bytes
_VARCHARS = {
    "document_id": 64,
    "name": 4_096,
    "title": 2_048,
    "heading": 4_096,
    "text": _TEXT_BYTES,
    "language": 8,
    "media_type": 128,
    "content_hash": 64,
    "owner": 1_024,
    MARKS: 4_096,
}
_INTEGERS = ("page", "start", "end", "ordinal", "passages", "bytes", "ingested_ms")
PASSAGE_FIELDS = ["document_id", "ordinal", "title", "heading", "text", "page", "start", "end"]
DOCUMENT_FIELDS = [
    "document_id",
    "name",
    "title",
    "language",
    "media_type",
    "content_hash",
    "passages",
    "bytes",
    "ingested_ms",
    "metadata",
    "owner",
    READERS,
]
ANALYZER = {"tokenizer": "jieba", "filter": [{"type": "stop", "stop_words": list(CHINESE_STOP_WORDS)}]}


def collection_schema(dimension: int | None) -> Any:
    """The schema; with a dense vector of `dimension` numbers where there is an embedder."""
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=128)
    for name, size in _VARCHARS.items():
        schema.add_field(name, DataType.VARCHAR, max_length=size)
    for name in _INTEGERS:
        schema.add_field(name, DataType.INT64)
    schema.add_field("metadata", DataType.JSON)
    schema.add_field(
        READERS,
        DataType.ARRAY,
        element_type=DataType.VARCHAR,
        max_capacity=MAX_READERS,
        max_length=4 * MAX_PRINCIPAL_CHARS,
    )
    schema.add_field(
        "search_text", DataType.VARCHAR, max_length=_TEXT_BYTES, enable_analyzer=True, analyzer_params=ANALYZER
    )
    schema.add_field(SPARSE, DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(
        Function(
            name="bm25",
            function_type=FunctionType.BM25,
            input_field_names=["search_text"],
            output_field_names=[SPARSE],
        )
    )
    if dimension is not None:
        schema.add_field(DENSE, DataType.FLOAT_VECTOR, dim=dimension)
    return schema


def index_params(dimension: int | None) -> Any:
    params = MilvusClient.prepare_index_params()
    params.add_index(
        SPARSE, index_type="SPARSE_INVERTED_INDEX", metric_type="BM25", params={"bm25_k1": 1.2, "bm25_b": 0.75}
    )
    if dimension is not None:
        params.add_index(DENSE, index_type="AUTOINDEX", metric_type="COSINE")
    return params


def to_row(passage: StoredPassage, *, passages: int) -> dict[str, Any]:
    """The row of a passage; `passages` is the document's number of them, 0 while more are to come."""
    document = passage.document
    row: dict[str, Any] = {
        "id": passage.id,
        "document_id": document.document_id,
        "name": document.name,
        "title": document.title,
        "heading": passage.heading,
        "text": passage.text,
        "language": document.language,
        "media_type": document.media_type,
        "content_hash": document.content_hash,
        "page": passage.page or 0,
        "start": passage.start,
        "end": passage.end,
        "ordinal": passage.ordinal,
        "passages": passages,
        "bytes": document.bytes,
        "ingested_ms": document.ingested_ms,
        "metadata": dict(document.metadata),
        "owner": document.owner,
        READERS: list(document.readers),
        MARKS: "".join(map(reader_mark, document.readers)),
        "search_text": passage_words(passage),
    }
    if passage.vector is not None:
        row[DENSE] = passage.vector
    return {key: _fitted(value, _VARCHARS.get(key, _TEXT_BYTES)) for key, value in row.items()}


def reader_mark(reader: str) -> str:
    """A reader as part of the field `reader_marks`: without any character that means something in a pattern."""
    return f"|{hashlib.sha256(reader.encode()).hexdigest()[:32]}"


def blank_row(dimension: int | None) -> dict[str, Any]:
    """A row that no search by words and no listing finds."""
    row: dict[str, Any] = {"id": BLANK_ID, "metadata": {}, READERS: [], "search_text": ""}
    row |= dict.fromkeys(_VARCHARS, "") | dict.fromkeys(_INTEGERS, -1)
    return row if dimension is None else {**row, DENSE: [1.0] * dimension}


def to_document(row: Mapping[str, Any]) -> DocumentInfo:
    fields = {name: row[name] for name in DOCUMENT_FIELDS}
    return DocumentInfo(**{**fields, READERS: tuple(row[READERS])})


def to_hit(id: str, score: float, row: Mapping[str, Any]) -> Hit:
    fields: dict[str, Any] = {name: row[name] for name in PASSAGE_FIELDS}
    return Hit(id=id, score=score, **{**fields, "page": row["page"] or None})


def _fitted(value: Any, size: int) -> Any:
    # VARCHAR lengths are bytes; a cut must not leave half a character.
    if isinstance(value, str) and len(value) * 4 > size:
        return value.encode()[:size].decode(errors="ignore")
    return value
