"""Who may read a document: its readers, and the principals that a request stands for."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from .messages import MAX_READERS

EVERYBODY = "everybody"
USER, GROUP = "user:", "group:"
MAX_PRINCIPALS = 200
"""Most principals of one request: everybody, the user, and the first groups in the order of their code points."""
MAX_PRINCIPAL_CHARS = 256
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029\ud800-\udfff]")


def principals(owner: str, claims: Mapping[str, Any]) -> frozenset[str]:
    """Whom a request stands for: `everybody`, `user:<owner>` and a `group:<name>` for each name in the claim `groups`
    (a list of names, or one name).

    Without a token's claims nobody is known, so it is `everybody` alone. A name that is no principal (see
    `is_principal`) is left out.
    """
    if not claims:
        return frozenset({EVERYBODY})
    named = [USER + owner, *(GROUP + name for name in sorted(groups_of(claims)))]
    return frozenset([EVERYBODY, *filter(is_principal, named)][:MAX_PRINCIPALS])


def groups_of(claims: Mapping[str, Any]) -> frozenset[str]:
    """The names in the claim `groups`, which is a list of names or one name; anything else names no group."""
    claimed = claims.get("groups")
    groups = [claimed] if isinstance(claimed, str) else claimed if isinstance(claimed, list | tuple) else []
    return frozenset(name for name in groups if isinstance(name, str))


def may_read(readers: Collection[str], who: Collection[str]) -> bool:
    """Whether one of `who` is among a document's `readers`. No readers: nobody may."""
    return not frozenset(who).isdisjoint(readers)


def is_principal(text: object) -> bool:
    """Whether a text is `everybody`, or `user:` or `group:` with a name behind it, at most `MAX_PRINCIPAL_CHARS`
    characters without control characters."""
    if not isinstance(text, str) or len(text) > MAX_PRINCIPAL_CHARS or _CONTROL.search(text):
        return False
    return text == EVERYBODY or any(text.startswith(kind) and len(text) > len(kind) for kind in (USER, GROUP))


def checked_readers(readers: Collection[str]) -> tuple[str, ...]:
    """`readers` without repetitions, in order.

    Raises:
        ValueError: there are none, too many, or one is no principal; the text says which.
    """
    found = tuple(sorted(set(readers)))
    if not found:
        raise ValueError(f"a document needs a reader: {EVERYBODY!r}, 'user:<name>' or 'group:<name>'")
    if len(found) > MAX_READERS:
        raise ValueError(f"a document has at most {MAX_READERS} readers; there are {len(found)}")
    for reader in found:
        if not is_principal(reader):
            raise ValueError(f"a reader is {EVERYBODY!r}, 'user:<name>' or 'group:<name>', not {reader[:80]!r}")
    return found
