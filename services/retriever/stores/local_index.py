"""The embedded store's indexes together: they live in memory, and follow the file that all processes share."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.retriever.fusion import candidates, fuse
from services.retriever.search_text import search_text

from .cutting import cut
from .keys import equality_key, keys_of, reader_key
from .local_rows import Change, Forgotten, Mark, Rows
from .local_vectors import Selection, VectorIndex
from .local_words import WordIndex
from .port import StoreQuery, Where

log = logging.getLogger(__name__)

AT_ONCE = 2_000
SAVE_EVERY = 5_000
"""Vectors that have come since the index was last saved before it is saved again: about two seconds' work to build."""
MASKS = 64
Mask = NDArray[np.bool_]


class LocalIndex:
    """Searches what is in the file, up to the last thing that anybody has written. Safe for threads; methods block."""

    def __init__(self, rows: Rows, folder: Path) -> None:
        self._rows = rows
        self._folder = folder
        self._lock = threading.Lock()
        self._seen = threading.local()
        self._words = WordIndex()
        self._words_mark = Mark()
        self._vectors: VectorIndex | None = None
        self._vectors_mark = Mark()
        self._unsaved = 0
        self._document_of: dict[int, int] = {}
        self._numbers: dict[str, int] = {}
        self._keys: dict[str, list[int]] = {}
        self._masks: dict[Where, Mask | None] = {}
        self._selections: dict[Where, Selection] = {}
        self._slot_documents: NDArray[np.int64] = np.zeros(0, np.int64)

    def search(self, query: StoreQuery, dimension: int | None) -> dict[int, float]:
        """The `seq` of the best passages with their scores, best first.

        Args:
            dimension: of the file's vectors.
        """
        wanted = candidates(query.top_k)
        words = cut(search_text(query.text))
        vector = None if query.vector is None or dimension is None else np.asarray(query.vector, np.float32)
        with self._lock:
            self._follow(dimension)
            asked = Where(query.where.readers, _Frozen(query.where.equals))
            mask = self._mask(asked)
            one_of, all_of = (None, []) if mask is None else _conditions(query.where)
            if one_of is not None:
                one_of = [key for key in one_of if key in self._keys]
            by_words = self._by_words(words, query.top_k if vector is None else wanted, mask, one_of, all_of)
            near = self._near(vector, wanted, asked)
        if vector is None:
            return dict(by_words)
        if not words:
            return {seq: cosine for seq, cosine in near[: query.top_k] if cosine > 0}
        fused = fuse(by_words, near, wanted)[: query.top_k]
        return {seq: score for seq, score in fused if score > 0}

    def _by_words(
        self, words: Sequence[str], most: int, mask: Mask | None, one_of: Sequence[str] | None, all_of: Sequence[str]
    ) -> list[tuple[int, float]]:
        if not words or (mask is not None and not mask.any()):
            return []
        return self._words.search(words, most, one_of, all_of)

    def _near(self, vector: NDArray[np.float32] | None, most: int, where: Where) -> list[tuple[int, float]]:
        if vector is None or self._vectors is None:
            return []
        if where not in self._selections:
            self._selections[where] = self._selection(self._vectors, self._mask(where))
        return self._vectors.search(vector, most, self._selections[where])

    def _selection(self, index: VectorIndex, mask: Mask | None) -> Selection:
        if mask is None:
            return index.selection(None)
        if len(self._slot_documents) < len(index.seqs):
            new = index.seqs[len(self._slot_documents) :]
            numbers = [self._document_of.get(int(seq), 0) for seq in new]
            self._slot_documents = np.concatenate([self._slot_documents, np.asarray(numbers, np.int64)])
        return index.selection(mask[self._slot_documents])

    # --- what may be found --------------------------------------------------------------------------------------------

    def _mask(self, where: Where) -> Mask | None:
        """Which documents are allowed, by their numbers; None where all are."""
        if where not in self._masks:
            if len(self._masks) >= MASKS:
                self._forget()
            self._masks[where] = self._worked_out(where)
        return self._masks[where]

    def _forget(self) -> None:
        """What was worked out for the documents and vectors that there were."""
        self._masks.clear()
        self._selections.clear()

    def _worked_out(self, where: Where) -> Mask | None:
        one_of, all_of = _conditions(where)
        allowed = np.ones(len(self._numbers), np.bool_)
        if one_of is not None:
            allowed[:] = False
            for key in one_of:
                allowed[self._keys.get(key, [])] = True
        for key in all_of:
            having = np.zeros(len(self._numbers), np.bool_)
            having[self._keys.get(key, [])] = True
            allowed &= having
        return None if allowed.all() else allowed

    # --- following the file -------------------------------------------------------------------------------------------

    def _follow(self, dimension: int | None) -> None:
        version = self._rows.version()
        if getattr(self._seen, "version", None) == version and self._seen.writes == self._rows.writes:
            return
        writes = self._rows.writes
        if dimension is not None and self._vectors is None:
            self._load(dimension)
        try:
            while self._follow_some():
                pass
        except Forgotten:
            log.warning("the indexes are so far behind that they are built anew")
            self._start_anew()
            self._follow(dimension)
            return
        self._seen.version, self._seen.writes = version, writes
        self._save()

    def _load(self, dimension: int) -> None:
        loaded = VectorIndex.load(self._folder, dimension, self._rows.seqs())
        if loaded is None or loaded[0].wasteful:
            self._vectors, self._vectors_mark = VectorIndex(dimension), Mark()
        else:
            self._vectors, self._vectors_mark = loaded[0], Mark(*loaded[1])

    def _start_anew(self) -> None:
        self._words, self._words_mark = WordIndex(), Mark()
        self._vectors, self._vectors_mark = None, Mark()
        self._slot_documents = np.zeros(0, np.int64)
        self._seen = threading.local()
        self._forget()

    def _follow_some(self) -> bool:
        """Take in the next changes; False where there were none."""
        changes = self._rows.changes(self._words_mark, AT_ONCE)
        if not changes.came and not changes.went:
            return False
        keys = self._known({change.document_id for change in changes.came})
        for change in changes.came:
            self._document_of[change.seq] = self._numbers[change.document_id]
            self._words.add(change.seq, change.words, keys[change.document_id])
        self._take_vectors(changes.came)
        for seq in changes.went:
            self._words.remove(seq)
            self._document_of.pop(seq, None)
            if self._vectors is not None:
                self._vectors.remove(seq)
        self._words.commit()
        self._words_mark = changes.mark
        self._forget()
        return True

    def _known(self, document_ids: set[str]) -> dict[str, list[str]]:
        """The keys of these documents, each of which gets a number if it has none yet."""
        found: dict[str, list[str]] = {}
        for document_id, info in self._rows.described(sorted(document_ids)).items():
            keys = found[document_id] = list(keys_of(info))
            if document_id not in self._numbers:
                number = self._numbers[document_id] = len(self._numbers)
                for key in keys:
                    self._keys.setdefault(key, []).append(number)
        for document_id in document_ids - found.keys():  # deleted in between: the next changes say so
            self._numbers.setdefault(document_id, len(self._numbers))
            found[document_id] = []
        return found

    def _take_vectors(self, came: Sequence[Change]) -> None:
        if self._vectors is None:
            return
        new = [change for change in came if change.vector is not None and change.seq > self._vectors_mark.seq]
        if new:
            vectors = [change.vector for change in new if change.vector is not None]
            self._vectors.add([change.seq for change in new], np.stack(vectors))
            self._unsaved += len(new)

    def _save(self) -> None:
        """Only after all changes were taken in: what is saved knows exactly what its mark says."""
        if self._vectors is None or self._unsaved < SAVE_EVERY:
            return
        try:
            self._vectors.save(self._folder, self._words_mark)
        except OSError as error:
            log.warning("the index of vectors cannot be saved, so the next start builds it anew: %s", error)
        self._unsaved = 0


class _Frozen(dict):  # type: ignore[type-arg]
    """A map that can be a part of a key."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(sorted((name, repr(value)) for name, value in self.items())))


def _conditions(where: Where) -> tuple[list[str] | None, list[str]]:
    """Keys of which one is needed (None: none), and keys that are all needed."""
    one_of = None if where.readers is None else [reader_key(reader) for reader in sorted(where.readers)]
    return one_of, [equality_key(name, value) for name, value in where.equals.items()]
