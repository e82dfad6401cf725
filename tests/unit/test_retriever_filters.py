"""Filters become equalities, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import ServiceError
from services.retriever.filters import MAX_FILTERS, checked_filters
from services.retriever.stores.milvus_filters import expression
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
    assert expression(Where(frozenset())) == "array_contains_any(readers, [])"


@given(st.text(max_size=50))
def test_no_text_can_leave_its_quotes(value: str) -> None:
    try:
        expression = filter_expression({"a": value})
    except ServiceError:
        return
    assert expression.startswith('metadata["a"] == ')
    assert json.loads(expression.removeprefix('metadata["a"] == ')) == value
