"""Digests of cached values, and who shares them."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from baton_proto.messages import Sampling
from baton_proto.subjects import cached
from services.common.cache import digest
from services.common.visibility import visibility

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(values, max_size=3), st.lists(values, max_size=3))
def test_only_the_same_parts_have_the_same_digest(one: list[object], other: list[object]) -> None:
    same = msgspec.json.encode(one, order="deterministic") == msgspec.json.encode(other, order="deterministic")
    assert (digest(*one) == digest(*other)) == same


def test_a_digest_is_the_same_on_every_machine_and_fits_into_a_key() -> None:
    value = digest({"b": 1, "a": [Sampling(seed=7)]}, "年假", None)
    assert value == digest({"a": [Sampling(seed=7)], "b": 1}, "年假", None) == "40b83d35ca9d22780cca463f1d921981"
    assert cached("answer", value) == f"$KV.baton_cache.answer.{value}"


@given(st.text(max_size=20), st.text(max_size=20))
def test_users_are_alone_unless_all_see_every_document(ann: str, bob: str) -> None:
    assert (visibility(ann, "user") == visibility(bob, "user")) == (ann == bob)
    assert visibility(ann, "all") == visibility(bob, "all")
    assert visibility(ann, "user") != visibility(ann, "all")
