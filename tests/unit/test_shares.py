"""Which conversations try a variant."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.config import ALL_SETTINGS, GatewaySettings, ProcessSettings
from services.common.settings import SettingsError, load
from services.common.shares import MAX_VARIANTS, Share, chosen, read_shares

owners = st.text(max_size=8)
percents = st.floats(0, 100, allow_nan=False)


def test_shares_are_read_in_their_order() -> None:
    assert read_shares(" b=10, c = 2.5,") == (Share("b", 10.0), Share("c", 2.5))
    assert read_shares("") == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("b", "variant=percent"),
        ("=5", "variant=percent"),
        ("b=ten", "not a number"),
        ("b=-1", "between 0 and 100"),
        ("b=nan", "between 0 and 100"),
        ("b=101", "between 0 and 100"),
        ("b=60,c=60", "120 percent together"),
        ("b=1,b=2", "twice"),
        ("B=1", "a-z, 0-9"),
        ("b.c=1", "a-z, 0-9"),
        ("none=1", "no variant"),
        (",".join(f"v{number}=1" for number in range(MAX_VARIANTS + 1)), "more than 8"),
    ],
)
def test_wrong_shares_are_refused_by_name(text: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told) as refused:
        load([GatewaySettings], ALL_SETTINGS, {"BATON_VARIANTS": text})
    assert refused.value.problems[0].startswith("BATON_VARIANTS=")


@pytest.mark.parametrize("name", ["B", "a.b", "-b", "x" * 17, "none", "b\n", "*"])
def test_a_process_cannot_be_a_variant_that_no_subject_can_name(name: str) -> None:
    with pytest.raises(SettingsError, match="BATON_VARIANT="):
        load([ProcessSettings], ALL_SETTINGS, {"BATON_VARIANT": name})


def test_a_share_is_about_as_large_as_it_says() -> None:
    shares = [Share("b", 10.0), Share("c", 30.0)]
    counts = Counter(chosen(shares, "ann", f"conv_{number}") for number in range(20_000))
    assert counts["b"] == pytest.approx(2_000, rel=0.1)
    assert counts["c"] == pytest.approx(6_000, rel=0.1)


@given(owners, owners, percents, percents)
def test_who_tries_the_first_variant_still_does_when_its_share_grows(
    owner: str, conversation: str, one: float, other: float
) -> None:
    small, large = ([Share("b", percent)] for percent in sorted((one, other)))
    assert chosen(small, owner, conversation) in ("", chosen(large, owner, conversation))


@given(owners, owners)
def test_nobody_tries_what_has_no_share_and_all_what_has_the_whole(owner: str, conversation: str) -> None:
    assert chosen([Share("b", 0.0)], owner, conversation) == ""
    assert chosen([Share("b", 100.0)], owner, conversation) == "b"
