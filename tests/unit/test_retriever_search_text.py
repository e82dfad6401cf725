"""What is indexed and looked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retriever.search_text import search_text


@pytest.mark.parametrize(
    ("asked", "written"),
    [
        ("expenses", "expense"),
        ("EXPENSE", "expenses"),
        ("reimbursed", "reimbursing"),
        ("policies", "policy"),
        ("ＡＢＣ１２３", "abc123"),
        ("résumé", "resume"),
        ("employee's", "employees"),
        ("1,000", "1000"),
        ("don't travel", "travel"),
        ("work-from-home", "work from home"),
    ],
)
def test_forms_of_one_word_are_the_same(asked: str, written: str) -> None:
    assert search_text(asked) == search_text(written)


def test_a_question_keeps_only_the_words_that_say_something() -> None:
    assert search_text("How do I get my travel expenses back?") == "travel expens back"


def test_an_acronym_in_capitals_is_no_function_word() -> None:
    assert search_text("Is it the IT department?") == "it depart"


def test_chinese_and_latin_words_are_parted_and_punctuation_is_dropped() -> None:
    assert search_text("如何使用API接口（VPN）？") == "如何使用 api 接口 vpn"


def test_a_line_break_inside_a_chinese_word_is_closed() -> None:
    assert search_text("年\n  假制度") == "年假制度"


def test_parts_stay_in_their_order() -> None:
    assert search_text("年假政策", "", "Carry over") == "年假政策 carri"


@given(st.text(max_size=200))
def test_any_text_can_be_normalised_and_leaves_no_punctuation(text: str) -> None:
    words = search_text(text).split(" ")
    assert all(word.isalnum() or not word.isascii() for word in words if word)
