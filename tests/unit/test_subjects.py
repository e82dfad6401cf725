"""Subjects are built and parsed in one place, and nothing that a stranger sends can name another's."""

from __future__ import annotations

import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton_proto import subjects

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
ids = st.text("abcXYZ019_-", min_size=1, max_size=64)
KEY = subjects.request_key("owner", "r1")


def test_a_key_is_the_start_of_a_sha256_over_owner_and_request() -> None:
    assert hashlib.sha256("张三\0r1".encode()).hexdigest()[:32] == subjects.request_key("张三", "r1")


@given(texts, ids, texts, ids)
def test_different_requests_have_different_keys(owner: str, request: str, other_owner: str, other_request: str) -> None:
    same = (owner, request) == (other_owner, other_request)
    assert (subjects.request_key(owner, request) == subjects.request_key(other_owner, other_request)) is same


@given(texts, ids, st.integers(1, 256))
def test_an_address_survives_the_way_through_its_subjects(owner: str, request: str, shards: int) -> None:
    at = subjects.address(subjects.request_key(owner, request), shards)
    assert at.shard == zlib.crc32(at.key.encode()) % shards
    assert subjects.parse_live(subjects.live_subject(at)) == at
    assert subjects.parse_live(subjects.log_subject(at)) == at


@pytest.mark.parametrize(
    "subject",
    [
        "",
        f"baton.v1.live.3.{KEY}.more",
        f"baton.v2.live.3.{KEY}",
        f"baton.v1.work.3.{KEY}",
        f"baton.v1.live.03.{KEY}",
        f"baton.v1.live.３.{KEY}",
        f"baton.v1.live.-1.{KEY}",
        f"baton.v1.live.*.{KEY}",
        "baton.v1.live.3.*",
        f"baton.v1.live.3.{KEY.upper()}",
        f"baton.v1.live.3.{KEY}\n",
        f"baton.v1.live.3.{KEY[:-1]}",
    ],
)
def test_what_is_no_log_subject_is_refused(subject: str) -> None:
    with pytest.raises(ValueError, match="log or live subject"):
        subjects.parse_live(subject)


@pytest.mark.parametrize("key", ["", "*", ">", KEY.upper(), KEY + "0", KEY + "\n", "x" * 32])
def test_a_wrong_key_becomes_no_subject(key: str) -> None:
    for build in (subjects.address, subjects.cancel_subject):
        with pytest.raises(ValueError, match="request key"):
            build(key)


@pytest.mark.parametrize("stage", ["", "retrieve.>", "generate\n", "tools", "tools.", "tools.a.b", "tools.*", "audit"])
def test_a_wrong_stage_becomes_no_subject(stage: str) -> None:
    for build in (subjects.work_subject, subjects.work_consumer, subjects.dead_subject, subjects.presence_subject):
        with pytest.raises(ValueError, match="a stage is"):
            build(stage)


@given(ids)
def test_every_stage_has_a_consumer_name_that_nats_accepts(tool_set: str) -> None:
    stage = subjects.tools_stage(tool_set)
    assert subjects.work_subject(stage) == f"baton.v1.work.tools.{tool_set}"
    assert subjects.work_consumer(stage) == f"tools_{tool_set}"
    assert not set(subjects.work_consumer(stage)) & set(".*> /\\")
