"""What somebody may see of files, remove and share, by what their token says."""

from __future__ import annotations

from typing import Any

import pytest

from baton_proto.messages import FileRecord
from services.common.config import GatewaySettings
from services.gateway.auth import ANONYMOUS, Identity
from services.gateway.catalogue import Viewer, shown

SETTINGS = GatewaySettings(share_groups=("editors",))


def record(owner: str, *readers: str) -> FileRecord:
    return FileRecord(
        file="0" * 32, owner=owner, name="a.md", upload="1" * 32, state="ready", updated_ms=1, readers=list(readers)
    )


def viewer(user: str, *groups: str) -> Viewer:
    claims: dict[str, Any] = {"sub": user, "groups": list(groups)}
    return Viewer(Identity(user, claims, expires=2e9), SETTINGS)


def test_without_a_token_nobody_is_the_operator() -> None:
    """The operator's documents belong to nobody, and so does whoever has no token."""
    nobody = Viewer(Identity(ANONYMOUS), SETTINGS)
    for readers in (["group:hr"], ["user:anonymous"], ["user:ann"], ["user:"]):
        assert not nobody.sees(record("", *readers)), readers
        assert not nobody.may_remove(record("", *readers)), readers
        assert not nobody.sees(record(ANONYMOUS, *readers)), readers
    assert nobody.sees(record("", "everybody"))
    assert nobody.may_remove(record("", "everybody"))


@pytest.mark.parametrize("groups", [(), ("HR",), ("user:ann",), ("everybody",), ("editor",)])
def test_a_strangers_file_is_neither_seen_nor_removed(groups: tuple[str, ...]) -> None:
    mallory = viewer("mallory", *groups)
    for readers in (["user:ann"], ["group:hr"], ["user:ann", "group:hr"]):
        assert not mallory.sees(record("ann", *readers))
        assert not mallory.may_remove(record("ann", *readers))
    assert mallory.sees(record("ann", "everybody"))
    assert not mallory.may_remove(record("ann", "everybody"))


def test_who_may_share_removes_what_they_may_read_and_no_more() -> None:
    editor = viewer("ed", "editors", "hr")
    assert editor.may_remove(record("ann", "group:hr"))
    assert not editor.may_remove(record("ann", "user:ann"))
    assert [editor.may_name(one) for one in ("everybody", "user:ann", "group:hr", "group:sales")] == [True] * 3 + [
        False
    ]
    assert [viewer("ann", "hr").may_name(one) for one in ("user:ann", "everybody", "group:hr", "user:bob")] == [
        True,
        False,
        False,
        False,
    ]


def test_of_a_shared_file_only_its_owner_is_told_who_else_reads_it() -> None:
    file = record("ann", "group:hr", "user:ann", "user:bob")
    assert shown(file, viewer("ann"))["readers"] == ["group:hr", "user:ann", "user:bob"]
    assert shown(file, viewer("bob"))["readers"] == ["user:bob"]
