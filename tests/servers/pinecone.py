"""A stand-in for one Pinecone index: the data plane's HTTP as its documentation says, kept in memory.

It refuses what Pinecone refuses (dimensions, sizes, unknown keys), and can show writes late: Pinecone is not here to be
tested against.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.servers.local_http import JsonHandler, serving

KEY = "pcsk_stand_in"
MAX_REQUEST_BYTES, MAX_RESULT_BYTES = 2 * 1024 * 1024, 4 * 1024 * 1024
MAX_RECORDS, MAX_METADATA_BYTES, MAX_SPARSE_VALUES, MAX_TOP_K = 1_000, 40 * 1024, 2_048, 10_000
Record = dict[str, Any]


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class PineconeIndex:
    """An index of dense vectors of `dimension` numbers, or of sparse ones where that is None.

    Attributes:
        late: how many requests that read do not see a write yet; 0: all do.
        failures: statuses that are answered first, one a request, with `retry_after_s` where that is set.
        delay_s: how long every answer takes.
        requests: the path and body of each request.
    """

    dimension: int | None
    metric: str = "dotproduct"
    host: str = ""
    late: int = 0
    delay_s: float = 0.0
    retry_after_s: int | None = None
    failures: list[int] = field(default_factory=list)
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _spaces: dict[str, dict[str, Record]] = field(default_factory=dict)
    _pending: list[list[Any]] = field(default_factory=list)
    _lsn: int = 0

    def answer(self, path: str, body: dict[str, Any], key: str | None) -> tuple[Any, dict[str, str]]:
        if key != KEY:
            raise Refused(401, "Invalid API Key")
        with self._lock:
            self.requests.append((path, body))
            if self.failures:
                raise Refused(self.failures.pop(0), "as the test wants it")
            operation: Callable[[str, dict[str, Any]], Any] | None = {
                "/vectors/upsert": self._upsert,
                "/vectors/delete": self._delete,
                "/vectors/fetch": self._fetch,
                "/vectors/fetch_by_metadata": self._fetch_by_metadata,
                "/query": self._query,
                "/describe_index_stats": self._stats,
            }.get(path)
            if operation is None:
                raise Refused(404, "Not Found")
            if path not in ("/vectors/upsert", "/vectors/delete"):
                self._show()
            answer = operation(body.get("namespace", ""), body)
            return answer, {"x-pinecone-request-lsn": str(self._lsn)}

    def _write(self, space: str, write: Callable[[dict[str, Record]], None]) -> None:
        self._lsn += 1
        self._pending.append([self.late, space, write])
        if not self.late:
            self._show()

    def _show(self) -> None:
        """Let a reader see what is old enough, in the order in which it was written."""
        while self._pending and self._pending[0][0] <= 0:
            _, space, write = self._pending.pop(0)
            write(self._spaces.setdefault(space, {}))
        for waiting in self._pending:
            waiting[0] -= 1

    def _upsert(self, space: str, body: dict[str, Any]) -> Any:
        records = [self._checked(record) for record in body["vectors"]]
        if not 0 < len(records) <= MAX_RECORDS:
            raise Refused(400, f"a request has 1 to {MAX_RECORDS} records, not {len(records)}")
        self._write(space, lambda kept: kept.update({record["id"]: record for record in records}))
        return {"upsertedCount": len(records)}

    def _checked(self, record: Record) -> Record:
        id, metadata = record["id"], record.get("metadata", {})
        if not id.isascii() or not 0 < len(id) <= 512:
            raise Refused(400, f"not an id: {id!r}")
        if len(json.dumps(metadata, ensure_ascii=False).encode()) > MAX_METADATA_BYTES:
            raise Refused(400, f"the metadata of {id} is larger than 40960 bytes")
        for name, value in metadata.items():
            texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
            if name.startswith("$") or not (texts or isinstance(value, str | int | float | bool)):
                raise Refused(400, f"the metadata {name!r} is of no kind that can be kept")
        self._check_vector(record.get("values"), record.get("sparse_values") or record.get("sparseValues"))
        return json.loads(json.dumps(record))

    def _check_vector(self, dense: list[float] | None, sparse: Mapping[str, list[Any]] | None) -> None:
        if self.dimension is not None:
            if sparse or len(dense or []) != self.dimension:
                raise Refused(400, f"a vector of {len(dense or [])} numbers in an index of {self.dimension}")
            if not any(dense or []):
                raise Refused(400, "a dense vector must have a number other than zero")
            return
        if dense or not sparse or not sparse["values"]:
            raise Refused(400, "an index of sparse vectors takes sparse values, and at least one")
        indices, values = sparse["indices"], sparse["values"]
        if len(indices) != len(set(indices)) or len(indices) != len(values) or len(indices) > MAX_SPARSE_VALUES:
            raise Refused(400, "not a sparse vector, or one of too many values")
        if not all(isinstance(index, int) and 0 <= index < 2**32 for index in indices):
            raise Refused(400, "a dimension is an unsigned number of 32 bits")
        if not all(math.isfinite(value) for value in values):
            raise Refused(400, "a value is a number")

    def _delete(self, space: str, body: dict[str, Any]) -> Any:
        if space not in self._spaces and not self._pending:
            raise Refused(404, "Namespace not found")
        wanted = body["filter"]
        holds(wanted, {})

        def write(kept: dict[str, Record]) -> None:
            for id in [id for id, record in kept.items() if holds(wanted, record.get("metadata", {}))]:
                del kept[id]

        self._write(space, write)
        return {}

    def _fetch(self, space: str, body: dict[str, Any]) -> Any:
        kept = self._spaces.get(space, {})
        return {"vectors": {id: _shown(kept[id]) for id in body["ids"] if id in kept}, "namespace": space}

    def _fetch_by_metadata(self, space: str, body: dict[str, Any]) -> Any:
        if not body["filter"]:
            raise Refused(400, "Empty filter provided for fetch by metadata request")
        start, limit = int(body.get("paginationToken") or 0), body.get("limit", 100)
        found = [
            record
            for record in self._spaces.get(space, {}).values()
            if holds(body["filter"], record.get("metadata", {}))
        ]
        page = {record["id"]: _shown(record) for record in found[start : start + limit]}
        answer: dict[str, Any] = {"vectors": page, "namespace": space}
        if start + limit < len(found):
            answer["pagination"] = {"next": str(start + limit)}
        return answer

    def _query(self, space: str, body: dict[str, Any]) -> Any:
        if not 0 < body["topK"] <= MAX_TOP_K:
            raise Refused(400, f"topK is 1 to {MAX_TOP_K}")
        dense, sparse = body.get("vector"), body.get("sparseVector")
        self._check_vector(dense, sparse)
        asked = dict(zip(sparse["indices"], sparse["values"], strict=True)) if sparse else {}
        matches = []
        for record in self._spaces.get(space, {}).values():
            if body.get("filter") is not None and not holds(body["filter"], record.get("metadata", {})):
                continue
            score = self._score(dense, asked, record)
            if score is not None:
                match = {"id": record["id"], "score": score, "values": []}
                matches.append(match | ({"metadata": record["metadata"]} if body.get("includeMetadata") else {}))
        matches.sort(key=lambda match: -match["score"])
        answer = {"matches": matches[: body["topK"]], "namespace": space}
        if len(json.dumps(answer)) > MAX_RESULT_BYTES:
            raise Refused(400, "the result is larger than 4 MB")
        return answer

    def _score(self, dense: list[float] | None, asked: Mapping[int, float], record: Record) -> float | None:
        """None: nothing in common, so an index of sparse vectors does not find it."""
        if dense is None:
            sparse = record["sparseValues"]
            parts = [
                asked[n] * value for n, value in zip(sparse["indices"], sparse["values"], strict=True) if n in asked
            ]
            return math.fsum(parts) if parts else None
        product = math.fsum(a * b for a, b in zip(dense, record["values"], strict=True))
        return product / (math.hypot(*dense) * math.hypot(*record["values"])) if self.metric == "cosine" else product

    def _stats(self, _: str, body: dict[str, Any]) -> Any:
        counts = {name: {"vectorCount": len(kept)} for name, kept in self._spaces.items()}
        total = sum(len(kept) for kept in self._spaces.values())
        kind = (
            {"vectorType": "sparse"} if self.dimension is None else {"vectorType": "dense", "dimension": self.dimension}
        )
        return {"namespaces": counts, "totalVectorCount": total, "metric": self.metric, **kind}


def holds(filter: Any, metadata: Mapping[str, Any]) -> bool:
    """Whether a metadata filter holds; a list holds what one of its texts does."""
    if not isinstance(filter, dict) or not filter:
        raise Refused(400, "a filter is an object with conditions")
    results = []
    for name, asked in filter.items():
        if name in ("$and", "$or"):
            if not isinstance(asked, list) or not asked:
                raise Refused(400, f"{name} takes a list of conditions")
            parts = [holds(part, metadata) for part in asked]
            results.append(all(parts) if name == "$and" else any(parts))
        elif name.startswith("$"):
            raise Refused(400, f"unknown operator {name}")
        else:
            results.append(_compares(asked, metadata.get(name)))
    return all(results)


def _compares(asked: Any, value: Any) -> bool:
    ((operator, wanted),) = (asked if isinstance(asked, dict) else {"$eq": asked}).items()
    if operator == "$eq":
        wanted = [wanted]
    elif operator != "$in":
        raise Refused(400, f"unknown operator {operator}")
    if not isinstance(wanted, list) or not wanted:
        raise Refused(400, "$in takes a list that is not empty")
    values = value if isinstance(value, list) else [value]
    return any(type(one) is type(other) and one == other for one in wanted for other in values)


def _shown(record: Record) -> Record:
    return {**record, "values": record.get("values", [])}


@contextlib.contextmanager
def pinecone_index(dimension: int | None = None, metric: str = "dotproduct") -> Iterator[PineconeIndex]:
    index = PineconeIndex(dimension, metric)

    class Handler(JsonHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            data = self.body()
            self._answer(self.path, json.loads(data), len(data))

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            query = parse_qs(address.query)
            self._answer(address.path, {"ids": query.get("ids", []), "namespace": query.get("namespace", [""])[0]}, 0)

        def _answer(self, path: str, body: dict[str, Any], size: int) -> None:
            time.sleep(index.delay_s)
            try:
                if size > MAX_REQUEST_BYTES:
                    raise Refused(413, "a request is at most 2 MB")
                self.reply(200, *index.answer(path, body, self.headers.get("api-key")))
            except Refused as error:
                later = {} if index.retry_after_s is None else {"retry-after": str(index.retry_after_s)}
                self.reply(error.status, {"code": 3, "message": str(error), "details": []}, later)

    with serving(Handler) as address:
        index.host = address
        yield index
