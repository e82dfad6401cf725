"""The embedded store's index of words: tantivy's BM25, in memory, over words that are cut here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tantivy

HEAP_BYTES = 64 * 1024 * 1024
FEW_KEYS = 32
"""So many keys are looked up as passages are found; for a set of keys all passages are gone through first, which takes
longer than the search."""


class WordIndex:
    """Passages by their words. One thread at a time may change it; searches may run beside each other."""

    def __init__(self) -> None:
        builder = tantivy.SchemaBuilder()
        builder.add_unsigned_field("seq", stored=False, indexed=True, fast=True)
        builder.add_text_field("words", tokenizer_name="whitespace", index_option="freq")
        builder.add_text_field("keys", tokenizer_name="raw", index_option="basic")
        self._schema = builder.build()
        self._index = tantivy.Index(self._schema)
        # One thread: it writes little at a time, and searches need the processor.
        self._writer = self._index.writer(HEAP_BYTES, 1)
        self._searcher = self._index.searcher()

    def add(self, seq: int, words: str, keys: Sequence[str]) -> None:
        document = tantivy.Document()
        document.add_unsigned("seq", seq)
        document.add_text("words", words)
        for key in keys:
            document.add_text("keys", key)
        self._writer.add_document(document)

    def remove(self, seq: int) -> None:
        self._writer.delete_documents_by_term("seq", seq)

    def commit(self) -> None:
        """Let searches see what has changed."""
        self._writer.commit()
        self._index.reload()
        self._searcher = self._index.searcher()

    def search(
        self, words: Sequence[str], most: int, one_of: Sequence[str] | None, all_of: Sequence[str]
    ) -> list[tuple[int, float]]:
        """The `seq` and score of the best passages, best first.

        Args:
            one_of: keys of which a passage must have one; None: it need not.
            all_of: keys that it must have.
        """
        query = self._query(words, one_of, all_of)
        searcher = self._searcher
        hits = searcher.search(query, most, count=False).hits
        seqs: list[Any] = searcher.fast_field_values("seq", [address for _, address in hits])
        return [(int(seq), float(score)) for seq, (score, _) in zip(seqs, hits, strict=True)]

    def _query(self, words: Sequence[str], one_of: Sequence[str] | None, all_of: Sequence[str]) -> tantivy.Query:
        query, schema = tantivy.Query, self._schema
        asked = [(tantivy.Occur.Should, query.term_query(schema, "words", word)) for word in dict.fromkeys(words)]
        conditions = [query.term_query(schema, "keys", key, "basic") for key in all_of]
        if one_of is not None:
            conditions.append(self._any_of(one_of))
        found = query.boolean_query(asked)
        if not conditions:
            return found
        # A condition must not count: a rare reader would lift what it may read.
        musts = [(tantivy.Occur.Must, query.const_score_query(condition, 0.0)) for condition in conditions]
        return query.boolean_query([(tantivy.Occur.Must, found), *musts])

    def _any_of(self, keys: Sequence[str]) -> tantivy.Query:
        query, schema = tantivy.Query, self._schema
        if len(keys) > FEW_KEYS:
            return query.term_set_query(schema, "keys", list(keys))
        terms = [query.term_query(schema, "keys", key, "basic") for key in keys]
        return terms[0] if len(terms) == 1 else query.boolean_query([(tantivy.Occur.Should, term) for term in terms])
