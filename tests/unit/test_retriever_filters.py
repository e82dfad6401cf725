"""Filters become equalities, and nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton_proto.readers import is_principal
from services.common.errors import ServiceError
from services.retriever.filters import MAX_FILTERS, checked_filters
from services.retriever.stores.milvus_filters import FEW_READERS, expression
from services.retriever.stores.milvus_schema import reader_mark
from services.retriever.stores.port import Where


def filter_expression(filters: dict[str, Any] | None) -> str:
    return expression(Where(None, checked_filters(filters)))


@pytest.mark.parametrize("none", [None, {}])
def test_no_filters_are_an_empty_expression(none: Any) -> None:
    assert filter_expression(none) == ""


def test_each_kind_of_value_is_written_as_milvus_reads_it() -> None:
    filters = {"department": "hr", "year": 2026, "public": True, "share": 0.5, "language": "zh"}
    assert filter_expression(filters) == (
        'metadata["department"] == "hr" and metadata["year"] == 2026 and metadata["public"] == true '
        'and metadata["share"] == 0.5 and language == "zh"'
    )


@pytest.mark.parametrize(
    ("filters", "about"),
    [
        ({'a"] == 1 or metadata["b': 1}, "key"),
        ({"": 1}, "key"),
        ({"a" * 65: 1}, "key"),
        ({"键": 1}, "key"),
        ({"a": None}, "'a'"),
        ({"a": ["x"]}, "'a'"),
        ({"a": {"x": 1}}, "'a'"),
        ({"a": float("nan")}, "'a'"),
        ({"a": float("inf")}, "'a'"),
        ({"a": 2**63}, "'a'"),
        ({"a": "x" * 513}, "'a'"),
        ({"a": "line\nbreak"}, "control"),
        ({"language": 1}, "'language'"),
        ({f"k{n}": n for n in range(MAX_FILTERS + 1)}, "filters"),
    ],
)
def test_a_bad_filter_is_refused_by_name(filters: dict[str, Any], about: str) -> None:
    with pytest.raises(ServiceError) as raised:
        filter_expression(filters)
    assert raised.value.code == "bad_message"
    assert not raised.value.retryable
    assert about in raised.value.message


def test_readers_are_asked_for_before_anything_else() -> None:
    where = Where(frozenset({"user:ann", "everybody", 'group:a"b'}), {"year": 2026})
    readers = r'array_contains_any(readers, ["everybody", "group:a\"b", "user:ann"])'
    assert expression(where) == readers + ' and metadata["year"] == 2026'


def test_who_is_nobody_sees_nothing() -> None:
    for lite in (False, True):
        assert expression(Where(frozenset()), lite) == "array_contains_any(readers, [])"


@given(st.sets(st.text(min_size=1, max_size=20).map("user:".__add__), min_size=1, max_size=5))
def test_for_lite_a_reader_is_a_pattern_in_which_no_name_means_anything(readers: set[str]) -> None:
    named = [reader for reader in sorted(readers) if is_principal(reader)]
    said = expression(Where(frozenset(readers)), lite=True)
    if named:
        digest = r"\|[0-9a-f]{32}"
        assert re.fullmatch(rf'\(reader_marks like "%{digest}%"( or reader_marks like "%{digest}%")*\)', said)
        assert all(reader_mark(reader) in said for reader in named)
        assert said.count(" like ") == len(named)


def test_for_lite_very_many_readers_are_looked_for_in_the_array() -> None:
    many = frozenset(f"group:{n}" for n in range(FEW_READERS + 1))
    assert expression(Where(many), lite=True) == expression(Where(many))


@given(st.text(max_size=50))
def test_no_text_can_leave_its_quotes(value: str) -> None:
    try:
        expression = filter_expression({"a": value})
    except ServiceError:
        return
    assert expression.startswith('metadata["a"] == ')
    assert json.loads(expression.removeprefix('metadata["a"] == ')) == value
