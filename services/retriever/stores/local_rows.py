"""What the embedded store knows for certain: documents and passages in one SQLite file that several processes share."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from services.retriever.stored import DocumentInfo, Hit, StoredPassage

REMOVALS_KEPT = 100_000
MAPPED_BYTES = 1 << 40
"""So much of the file is read without a copy: as much of it as there is."""
BUSY_S = 10.0
"""Longest wait for another process that is writing."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    document_id TEXT PRIMARY KEY, name TEXT NOT NULL, owner TEXT NOT NULL, title TEXT NOT NULL, info TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS documents_named ON documents (owner, name);
CREATE TABLE IF NOT EXISTS passages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, document_id TEXT NOT NULL, ordinal INTEGER NOT NULL,
    heading TEXT NOT NULL, text TEXT NOT NULL, start INTEGER NOT NULL, "end" INTEGER NOT NULL, page INTEGER,
    total INTEGER NOT NULL, words TEXT NOT NULL, vector BLOB
);
CREATE INDEX IF NOT EXISTS passages_of ON passages (document_id, ordinal);
CREATE TABLE IF NOT EXISTS removed (n INTEGER PRIMARY KEY AUTOINCREMENT, seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS properties (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_KIND = "kind"
"""The property that is there once the collection has been made: what its vectors are."""
_HIT = (
    'SELECT p.seq, p.id, p.document_id, p.ordinal, d.title, p.heading, p.text, p.start, p."end", p.page '
    "FROM passages p JOIN documents d USING (document_id) WHERE p.seq IN ({})"
)


class Forgotten(Exception):
    """So much has happened since that an index must be built anew."""


class Change(NamedTuple):
    """A passage that has come. `words` are ready to be indexed."""

    seq: int
    document_id: str
    words: str
    vector: NDArray[np.float32] | None


class Changes(NamedTuple):
    """What has happened since a mark: passages that came, and the `seq` of those that went; and the mark after it."""

    came: list[Change]
    went: list[int]
    mark: Mark


class Mark(NamedTuple):
    """How much of the file an index knows."""

    seq: int = 0
    removal: int = 0


class Rows:
    """The file, with a connection for each thread. All methods block, and raise sqlite3.Error."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "passages.sqlite"
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open: list[sqlite3.Connection] = []
        self.writes = 0
        """How often this process has written: what `version` does not tell on the thread that wrote."""

    def close(self) -> None:
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()

    def version(self) -> int:
        """Another number whenever somebody else has written; our own writes on this thread do not count."""
        return int(self._db().execute("PRAGMA data_version").fetchone()[0])

    def kind(self) -> str | None:
        """What was said when the collection was made; None where it has not been."""
        return self.properties_with(_KIND).get(_KIND)

    def make(self, kind: str) -> str:
        """Make the collection, unless it is there; returns of which kind it is."""
        with self._writing() as db:
            db.execute("INSERT OR IGNORE INTO properties VALUES (?, ?)", (_KIND, kind))
        return self.kind() or kind

    def upsert(self, passages: Sequence[StoredPassage], total: int, words: Sequence[str]) -> None:
        with self._writing() as db:
            info = passages[0].document
            described = msgspec.json.encode(info).decode()
            db.execute(
                "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?)",
                (info.document_id, info.name, info.owner, info.title, described),
            )
            ids = [(passage.id,) for passage in passages]
            db.executemany("INSERT INTO removed (seq) SELECT seq FROM passages WHERE id = ?", ids)
            db.executemany("DELETE FROM passages WHERE id = ?", ids)
            db.executemany(
                "INSERT INTO passages "
                '(id, document_id, ordinal, heading, text, start, "end", page, total, words, vector) '
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        one.id,
                        info.document_id,
                        one.ordinal,
                        one.heading,
                        one.text,
                        one.start,
                        one.end,
                        one.page,
                        total,
                        said,
                        None if one.vector is None else np.asarray(one.vector, np.float32).tobytes(),
                    )
                    for one, said in zip(passages, words, strict=True)
                ],
            )

    def delete(self, document_id: str) -> None:
        with self._writing() as db:
            of = (document_id,)
            db.execute("INSERT INTO removed (seq) SELECT seq FROM passages WHERE document_id = ?", of)
            db.execute("DELETE FROM passages WHERE document_id = ?", of)
            db.execute("DELETE FROM documents WHERE document_id = ?", of)

    def documents(self) -> list[DocumentInfo]:
        found = self._db().execute(
            "SELECT d.info, p.total FROM documents d JOIN passages p ON p.document_id = d.document_id AND p.ordinal = 0"
        )
        infos = [_info(described, total) for described, total in found]
        return sorted(infos, key=lambda info: (info.name, info.ingested_ms))

    def find(self, owner: str, name: str) -> list[DocumentInfo]:
        found = self._db().execute(
            "SELECT d.info, coalesce(p.total, 0) FROM documents d "
            "LEFT JOIN passages p ON p.document_id = d.document_id AND p.ordinal = 0 WHERE d.owner = ? AND d.name = ?",
            (owner, name),
        )
        return [_info(described, total) for described, total in found]

    def described(self, document_ids: Sequence[str]) -> dict[str, DocumentInfo]:
        """What is known of these documents, without the numbers of their passages."""
        found: dict[str, DocumentInfo] = {}
        for part in _parts(document_ids):
            query = f"SELECT document_id, info FROM documents WHERE document_id IN ({_marks(part)})"
            found |= {document_id: _info(described, 0) for document_id, described in self._db().execute(query, part)}
        return found

    def ordinals(self, document_id: str) -> set[int]:
        found = self._db().execute("SELECT ordinal FROM passages WHERE document_id = ?", (document_id,))
        return {int(ordinal) for (ordinal,) in found}

    def hits(self, scores: Mapping[int, float]) -> list[Hit]:
        """The passages of these `seq`, in the order of `scores`, without those that have gone."""
        found = self._db().execute(_HIT.format(_marks(scores)), tuple(scores))
        hits = {seq: Hit(id, scores[seq], *fields) for seq, id, *fields in found}
        return [hits[seq] for seq in scores if seq in hits]

    def changes(self, since: Mark, most: int) -> Changes:
        """What has happened since a mark, of passages that came at most `most`. One moment's view.

        Raises:
            Forgotten: the mark is so old that some of it is not known any more.
        """
        with closing(self._db().cursor()) as cursor:
            cursor.execute("BEGIN")
            try:
                came = cursor.execute(
                    "SELECT seq, document_id, words, vector FROM passages WHERE seq > ? ORDER BY seq LIMIT ?",
                    (since.seq, most),
                ).fetchall()
                (oldest,) = cursor.execute("SELECT min(n) FROM removed").fetchone()
                if oldest is not None and 0 < since.removal < oldest - 1:
                    raise Forgotten
                went = cursor.execute("SELECT n, seq FROM removed WHERE n > ? ORDER BY n", (since.removal,)).fetchall()
            finally:
                cursor.execute("COMMIT")
        mark = Mark(came[-1][0] if came else since.seq, went[-1][0] if went else since.removal)
        return Changes([_change(*row) for row in came], [seq for _, seq in went], mark)

    def seqs(self) -> NDArray[np.int64]:
        """Those of all passages."""
        return np.asarray([seq for (seq,) in self._db().execute("SELECT seq FROM passages")], np.int64)

    def properties_with(self, *names: str) -> dict[str, str]:
        query = f"SELECT name, value FROM properties WHERE name IN ({_marks(names)})"
        return dict(self._db().execute(query, names).fetchall())

    def properties(self) -> dict[str, str] | None:
        found = dict(self._db().execute("SELECT name, value FROM properties").fetchall())
        return None if found.pop(_KIND, None) is None else found

    def set_properties(self, properties: Mapping[str, str]) -> None:
        with self._writing() as db:
            db.executemany("INSERT OR REPLACE INTO properties VALUES (?, ?)", list(properties.items()))

    def drop_properties(self, names: Sequence[str]) -> None:
        with self._writing() as db:
            db.executemany("DELETE FROM properties WHERE name = ?", [(name,) for name in names])

    def tidy(self) -> None:
        """Forget removals that everybody knows by now, and move what was written from the log into the file."""
        with self._writing() as db:
            db.execute("DELETE FROM removed WHERE n < (SELECT max(n) FROM removed) - ?", (REMOVALS_KEPT,))
        self._db().execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _db(self) -> sqlite3.Connection:
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = self._local.db = self._connected()
            with self._lock:
                self._open.append(db)
        return db

    def _connected(self) -> sqlite3.Connection:
        """A connection to the file as it should be. Where several make it so at once, SQLite refuses some of them
        without waiting, so they ask again."""
        ends = time.monotonic() + BUSY_S
        while True:
            db = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
                db.execute(f"PRAGMA mmap_size = {MAPPED_BYTES}")
                db.executescript(_SCHEMA)
            except sqlite3.OperationalError as error:
                db.close()
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > ends:
                    raise
                time.sleep(random.uniform(0.005, 0.02))
            else:
                return db

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction; it waits for another process that writes, at most `BUSY_S`."""
        db = self._db()
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")
        with self._lock:
            self.writes += 1


def _info(described: str, total: int) -> DocumentInfo:
    return replace(msgspec.json.decode(described, type=DocumentInfo), passages=total)


def _change(seq: int, document_id: str, words: str, vector: bytes | None) -> Change:
    return Change(seq, document_id, words, None if vector is None else np.frombuffer(vector, np.float32))


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))


def _parts(values: Sequence[str], size: int = 500) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
