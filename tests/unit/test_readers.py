"""Whatever a token claims, it stands for no more than its user and the groups that it names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton_proto.messages import MAX_READERS
from baton_proto.readers import (
    EVERYBODY,
    MAX_PRINCIPAL_CHARS,
    MAX_PRINCIPALS,
    checked_readers,
    is_principal,
    may_read,
    principals,
)

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)
NAMES = st.text() | st.sampled_from(["", "everybody", "user:ann", "group:hr", "hr", "hr\n", "HR", "ｈｒ", "h\u200br"])
CLAIMS = st.dictionaries(st.sampled_from(["groups", "group", "roles", "readers", "sub"]) | st.text(), ANYTHING)


@given(owner=st.text())
def test_nobody_is_known_without_claims(owner: str) -> None:
    assert principals(owner, {}) == {EVERYBODY}


@given(owner=NAMES, claims=CLAIMS)
def test_whatever_is_claimed_everybody_is_one_and_no_other_user_or_kind_is(owner: str, claims: dict[str, Any]) -> None:
    who = principals(owner, claims)
    assert EVERYBODY in who
    assert all(map(is_principal, who))
    assert {one for one in who if one.startswith("user:")} <= {f"user:{owner}"}
    assert who == {one for one in who if one == EVERYBODY or one.startswith(("user:", "group:"))}


@given(owner=NAMES, groups=st.lists(NAMES, max_size=20))
def test_a_group_is_exactly_one_that_is_named(owner: str, groups: list[str]) -> None:
    who = principals(owner, {"groups": groups})
    assert {one.removeprefix("group:") for one in who if one.startswith("group:")} <= set(groups)
    assert who - {f"group:{name}" for name in groups} <= {EVERYBODY, f"user:{owner}"}
    for name in groups:
        assert (f"group:{name}" in who) is is_principal(f"group:{name}")


@given(claims=CLAIMS, groups=st.lists(NAMES, max_size=20))
def test_only_the_claim_groups_names_groups(claims: dict[str, Any], groups: list[str]) -> None:
    assert principals("ann", {**claims, "groups": groups}) == principals("ann", {"groups": groups})


@given(order=st.permutations([f"g{number}" for number in range(MAX_PRINCIPALS + 20)]))
def test_of_too_many_groups_the_same_count_in_whatever_order_they_stand(order: list[str]) -> None:
    who = principals("ann", {"groups": order})
    assert len(who) == MAX_PRINCIPALS
    assert {EVERYBODY, "user:ann"} < who
    assert who - {EVERYBODY, "user:ann"} == {f"group:{name}" for name in sorted(order)[: MAX_PRINCIPALS - 2]}


def test_names_that_are_none_take_no_place_among_the_two_hundred() -> None:
    bad = [f"\x00{number}" for number in range(1_000)] + ["a" * (MAX_PRINCIPAL_CHARS + 1)]
    assert principals("ann", {"groups": [*bad, "hr"]}) == {EVERYBODY, "user:ann", "group:hr"}


@pytest.mark.parametrize(
    "like", ["HR", "hr ", " hr", "ｈｒ", "h\u200br", "hr\u0301", "һr", "hr,sales", "group:hr", "user:ann", "everybody"]
)
def test_a_name_that_only_looks_like_another_reads_nothing_of_it(like: str) -> None:
    who = principals(like, {"groups": [like]})
    assert not may_read(["group:hr", "user:ann"], who)


@given(readers=st.lists(NAMES), who=st.frozensets(NAMES))
def test_reading_takes_a_reader_that_the_request_stands_for(readers: list[str], who: frozenset[str]) -> None:
    assert may_read(readers, who) is bool(set(readers) & who)
    assert not may_read([], who)
    assert not may_read(readers, frozenset())


@given(readers=st.lists(NAMES | NAMES.map("group:".__add__) | NAMES.map("user:".__add__), max_size=10))
def test_readers_are_kept_only_if_each_of_them_can_ever_read(readers: list[str]) -> None:
    if readers and all(map(is_principal, readers)):
        assert checked_readers(readers) == tuple(sorted(set(readers)))
    else:
        with pytest.raises(ValueError, match="a reader"):
            checked_readers(readers)


def test_a_document_has_a_bounded_number_of_readers() -> None:
    readers = [f"user:{number}" for number in range(MAX_READERS)]
    assert len(checked_readers([*readers, readers[0]])) == MAX_READERS
    with pytest.raises(ValueError, match="at most 64 readers; there are 65"):
        checked_readers([*readers, EVERYBODY])
