"""Words as sparse vectors: the product of a passage's and a question's is BM25."""

from __future__ import annotations

import math

import pytest

from services.retriever.stores.pinecone_words import (
    MARK,
    USUAL_WORDS,
    dimension_of,
    passage_weights,
    sparse,
)


def test_a_words_dimension_is_the_same_for_ever() -> None:
    assert (dimension_of("quokka"), dimension_of("年假")) == (4027016050, 2152730802)


@pytest.mark.parametrize(("times", "others"), [(1, 10), (3, USUAL_WORDS - 3), (2, 400)])
def test_a_passage_weighs_what_bm25_says_of_how_often_a_word_stands_there(times: int, others: int) -> None:
    weights = passage_weights(["quokka"] * times + ["filler"] * others)
    expected = times * 2.2 / (times + 1.2 * (0.25 + 0.75 * (times + others) / USUAL_WORDS))
    assert math.isclose(weights[dimension_of("quokka")], expected)


def test_a_passage_without_words_is_a_vector_that_no_question_finds() -> None:
    assert sparse(passage_weights([])) == {"indices": [MARK], "values": [1.0]}
