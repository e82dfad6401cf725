"""Which conversations try a variant of the workers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from baton_proto import subjects

MAX_VARIANTS = 8


class Share(NamedTuple):
    """`percent` of the conversations try `variant`."""

    variant: str
    percent: float


def named(variant: str) -> str:
    """`variant` itself if a variant may be called so; otherwise ValueError."""
    if variant == "none":
        raise ValueError("`none` means those of no variant; leave it empty for them")
    return subjects.checked_variant(variant)


def read_shares(text: str) -> tuple[Share, ...]:
    """The shares in a text like `b=10, c=2.5`.

    Raises:
        ValueError: it says what is wrong.
    """
    shares: dict[str, float] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        variant, equals, percent = map(str.strip, part.partition("="))
        if not equals or not variant:
            raise ValueError(f"{part!r} is not of the form variant=percent, as in b=10")
        if named(variant) in shares:
            raise ValueError(f"{variant} is there twice")
        try:
            shares[variant] = float(percent)
        except ValueError:
            raise ValueError(f"{percent!r} is not a number of percent") from None
        if not 0 <= shares[variant] <= 100:
            raise ValueError(f"{percent} percent are not between 0 and 100")
    if len(shares) > MAX_VARIANTS:
        raise ValueError(f"there are more than {MAX_VARIANTS} variants")
    if (total := sum(shares.values())) > 100:
        raise ValueError(f"the shares are {total:g} percent together")
    return tuple(Share(variant, percent) for variant, percent in shares.items())


def chosen(shares: Sequence[Share], owner: str, conversation_id: str) -> str:
    """The variant that a conversation tries; empty for none. The same for all its questions on every gateway with the
    same shares, and whoever tries a variant still does when a larger share is given to it, if it is the first."""
    digest = hashlib.sha256(f"{owner}\0{conversation_id}".encode()).digest()
    point = int.from_bytes(digest[:8]) / 2**64 * 100
    for share in shares:
        if point < share.percent:
            return share.variant
        point -= share.percent
    return ""
