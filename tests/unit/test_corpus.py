"""What the marks on a collection and its documents say about its version."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.retriever.corpus import DEAD_S, GENERATION, Marks, corpus_digest
from services.retriever.stored import DocumentInfo

MARK = "baton.changing.abc"
OTHER = "baton.changing.def"


def document(document_id: str, content_hash: str = "h", passages: int = 3, ingested_ms: int = 1) -> DocumentInfo:
    return DocumentInfo(
        document_id=document_id,
        name=document_id,
        title="",
        language="en",
        media_type="text/plain",
        content_hash=content_hash,
        passages=passages,
        bytes=1,
        ingested_ms=ingested_ms,
    )


documents = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.text("01", max_size=3), max_size=6)


@given(st.permutations([document("a"), document("b"), document("c", "other")]), st.integers(2, 99))
def test_neither_order_nor_time_of_ingestion_matters(shelf: list[DocumentInfo], ingested_ms: int) -> None:
    later = [document(info.document_id, info.content_hash, ingested_ms=ingested_ms) for info in shelf]
    assert corpus_digest(later) == corpus_digest([document("a"), document("b"), document("c", "other")])


@given(documents, documents)
def test_other_documents_are_another_version(one: dict[str, str], other: dict[str, str]) -> None:
    digests = [corpus_digest(document(*pair) for pair in shelf.items()) for shelf in (one, other)]
    assert (digests[0] == digests[1]) == (one == other)


def test_an_unfinished_document_leaves_the_version_unknown() -> None:
    assert corpus_digest([document("a"), document("b", passages=0)]) is None


def test_nobody_knows_without_a_generation() -> None:
    assert Marks().settled({}, 0.0) is None
    assert Marks().settled({"collection.ttl.seconds": "0"}, 1e9) is None


def test_a_generation_is_settled_when_nobody_changes_documents() -> None:
    assert Marks().settled({GENERATION: "g"}, 0.0) == "g"


def test_a_mark_holds_as_long_as_it_is_renewed() -> None:
    marks = Marks()
    for tick in range(100):
        assert marks.settled({GENERATION: "g", MARK: str(tick)}, tick * (DEAD_S - 1)) is None


def test_a_mark_that_is_not_renewed_belongs_to_somebody_dead() -> None:
    marks = Marks()
    assert marks.settled({GENERATION: "g", MARK: "1"}, 1000.0) is None
    assert marks.settled({GENERATION: "g", MARK: "1"}, 1000.0 + DEAD_S - 0.1) is None
    assert marks.settled({GENERATION: "g", MARK: "1"}, 1000.0 + DEAD_S) == "g"
    # It was only frozen: from its next sign of life on it counts again.
    assert marks.settled({GENERATION: "h", MARK: "2"}, 1000.0 + 2 * DEAD_S) is None
    assert marks.settled({GENERATION: "i"}, 1001.0 + 2 * DEAD_S) == "i"


def test_everybody_who_changes_documents_must_have_ended() -> None:
    marks = Marks()
    assert marks.settled({GENERATION: "g", MARK: "1", OTHER: "1"}, 0.0) is None
    assert marks.settled({GENERATION: "h", OTHER: "1"}, 1.0) is None
    assert marks.settled({GENERATION: "i"}, 2.0) == "i"
