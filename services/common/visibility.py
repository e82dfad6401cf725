"""Who may see the same documents, as one name: what was found for one of them may be shown to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EVERYBODY = "everybody"


def visibility(owner: str, claims: Mapping[str, Any], scope: str) -> str:
    """The name of those who see the same documents as this user. Two users with the same name share what is cached,
    so a name must never be the same for users of whom one may see a document that the other may not.

    There are no permissions for single documents yet, hence it is the operator who says (BATON_CACHE_SCOPE) whether
    all users see all documents. `claims` are those of the user's token: permissions will be read from there.

    Args:
        scope: `user`: everybody is alone; `all`: all users see every document.
    """
    return EVERYBODY if scope == "all" else f"user {owner}"
