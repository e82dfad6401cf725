"""The embedded store's index of vectors: FAISS's HNSW in memory, and exact where few passages are allowed."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import faiss
import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 16
BUILD_WIDTH = 80
SEARCH_WIDTH = 64
EXACT = 4_000
"""So many allowed passages are compared one by one: exact, and quicker than a graph whose nodes mostly do not count."""
REBUILD_SHARE = 0.3
"""Removed passages stay in the graph as steps on the way; beyond this share it is built anew."""

Vectors = NDArray[np.float32]


class Selection:
    """The slots among which to look, made ready once for many searches. Good until the index changes."""

    def __init__(self, mask: NDArray[np.bool_] | None) -> None:
        self._selector = None
        self.exact = False
        if mask is not None:
            self._selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))  # type: ignore[call-arg, arg-type]
            self.exact = bool(np.count_nonzero(mask) <= EXACT)
        self._parameters: dict[int, Any] = {}

    def parameters(self, width: int) -> Any:
        """FAISS' parameters of a search that looks so far around in the graph; a width makes no difference to an exact
        one."""
        known = self._parameters.get(width)
        if known is None:
            if self.exact:
                known = faiss.SearchParameters(sel=self._selector)  # type: ignore[call-arg]
            elif self._selector is None:
                known = faiss.SearchParametersHNSW(efSearch=width)  # type: ignore[attr-defined]
            else:
                known = faiss.SearchParametersHNSW(efSearch=width, sel=self._selector)  # type: ignore[attr-defined]
            self._parameters[width] = known
        return known


class VectorIndex:
    """Passages by their vectors, which are normalised: nearness is the cosine. Not safe for threads.

    Passages have slots, numbered in the order in which they came; `seqs` tells the `seq` of each.
    """

    def __init__(self, dimension: int) -> None:
        faiss.omp_set_num_threads(1)
        self._dimension = dimension
        self._index: Any = faiss.IndexHNSWFlat(dimension, NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = BUILD_WIDTH
        self._seqs = np.zeros(1024, np.int64)
        self._alive = np.zeros(1024, np.bool_)
        self._count = 0
        self._slots: dict[int, int] = {}

    @property
    def seqs(self) -> NDArray[np.int64]:
        return self._seqs[: self._count]

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Which slots hold a passage that is still there."""
        return self._alive[: self._count]

    @property
    def wasteful(self) -> bool:
        """Whether so much was removed that it should be built anew."""
        return self._count > EXACT and len(self._slots) < (1 - REBUILD_SHARE) * self._count

    def add(self, seqs: list[int], vectors: Vectors) -> None:
        """Add passages with vectors of shape (n, dimension)."""
        normal = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        self._index.add(np.ascontiguousarray(normal, np.float32))
        needed = self._count + len(seqs)
        if needed > len(self._seqs):
            self._seqs = np.resize(self._seqs, 2 * needed)
            self._alive = np.resize(self._alive, 2 * needed)
        self._seqs[self._count : needed] = seqs
        self._alive[self._count : needed] = True
        self._slots |= {seq: self._count + n for n, seq in enumerate(seqs)}
        self._count = needed

    def remove(self, seq: int) -> None:
        slot = self._slots.pop(seq, None)
        if slot is not None:
            self._alive[slot] = False

    def selection(self, allowed: NDArray[np.bool_] | None) -> Selection:
        """What is still there of the `allowed` slots: a mask of all slots; None: all."""
        if allowed is not None:
            return Selection(self.alive & allowed)
        return Selection(None if len(self._slots) == self._count else self.alive)

    def search(self, vector: Vectors, most: int, among: Selection) -> list[tuple[int, float]]:
        """The `seq` and cosine of the nearest passages, nearest first."""
        norm = math.sqrt(vector @ vector)
        if norm == 0 or not self._count:
            return []
        asked = np.ascontiguousarray(vector / norm, np.float32)[None, :]
        searched: Any = faiss.downcast_index(self._index.storage) if among.exact else self._index
        parameters = among.parameters(max(SEARCH_WIDTH, 2 * most))
        return self._found(*searched.search(asked, most, params=parameters))

    def _found(self, near: Vectors, slots: NDArray[np.int64]) -> list[tuple[int, float]]:
        found = slots[0]
        if found[-1] < 0:  # fewer are there than were wanted
            found = found[found >= 0]
        return list(zip(self._seqs[found].tolist(), near[0].tolist(), strict=False))

    def save(self, folder: Path, mark: tuple[int, int]) -> None:
        """Write it, with what it knows of the file, so that the next start need not build it."""
        unfinished = folder / f"vectors.{os.getpid()}.tmp"
        graph = faiss.serialize_index(self._index)
        with unfinished.open("wb") as file:
            np.savez(file, graph=graph, seqs=self.seqs, alive=self.alive, mark=np.asarray(mark, np.int64))
        unfinished.replace(folder / "vectors.npz")

    @classmethod
    def load(
        cls, folder: Path, dimension: int, present: NDArray[np.int64]
    ) -> tuple[VectorIndex, tuple[int, int]] | None:
        """What was saved last and its mark; None where there is nothing that can be used.

        Args:
            present: the `seq` of all passages that are there now.
        """
        try:
            with np.load(folder / "vectors.npz", allow_pickle=False) as saved:
                graph, seqs, alive = saved["graph"], saved["seqs"], saved["alive"]
                mark = (int(saved["mark"][0]), int(saved["mark"][1]))
            index = faiss.deserialize_index(graph)
        except (OSError, EOFError, ValueError, KeyError, RuntimeError, BadZipFile):
            return None
        if index.d != dimension or index.ntotal != len(seqs):
            return None
        alive = alive & np.isin(seqs, present)
        one = cls(dimension)
        one._index, one._seqs, one._alive, one._count = index, seqs, alive, len(seqs)
        one._slots = {int(seq): slot for slot, seq in enumerate(seqs) if alive[slot]}
        return one, mark
