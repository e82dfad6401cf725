"""Who shares what is cached, as one name: what was found for one of them may be shown to another."""

from __future__ import annotations

EVERYBODY = "everybody"


def visibility(owner: str, scope: str) -> str:
    """The name of those who share with this user what is cached.

    Which documents somebody may see has no part in it: the corpus version, which is in every key, stands for exactly
    the documents that the request's principals may read, so users who see different documents never share an entry.

    Args:
        scope: `user`: everybody is alone; `all`: users who see the same documents share (BATON_CACHE_SCOPE).
    """
    return EVERYBODY if scope == "all" else f"user {owner}"
