"""The gateway's logic that needs no server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton_proto.language import guess_language
from baton_proto.messages import Announcement, Query, Sampling, ToolSpec
from services.common.config import GatewaySettings
from services.common.documents import DocumentMeta, Original
from services.common.presence import Presence
from services.gateway.auth import bearer, is_loopback, origin_allowed
from services.gateway.originals import original_response
from services.gateway.requests import sampling_of


@pytest.mark.parametrize(
    ("origin", "host", "listens_on", "allowed"),
    [
        (None, "baton.example", "0.0.0.0", True),
        ("https://baton.example", "baton.example", "0.0.0.0", True),
        ("https://evil.example", "baton.example", "0.0.0.0", False),
        ("http://localhost:5173", "127.0.0.1:8000", "127.0.0.1", True),
        ("http://localhost:5173", "baton.example", "0.0.0.0", False),
        # A name that somebody else's DNS points at 127.0.0.1 (DNS rebinding).
        ("http://evil.example:8000", "evil.example:8000", "127.0.0.1", False),
        ("null", "127.0.0.1:8000", "127.0.0.1", False),
        ("file://", "127.0.0.1:8000", "127.0.0.1", False),
        ("http://", "127.0.0.1:8000", "127.0.0.1", False),
    ],
)
def test_an_origin_is_let_in_only_where_no_stranger_could_use_it(
    origin: str | None, host: str, listens_on: str, allowed: bool
) -> None:
    assert origin_allowed(origin, host, GatewaySettings(host=listens_on)) is allowed


def test_named_origins_are_let_in_everywhere() -> None:
    assert origin_allowed("https://a.example", "b", GatewaySettings(host="0.0.0.0", origins=("https://a.example",)))
    assert origin_allowed("null", "b", GatewaySettings(host="0.0.0.0", origins=("*",)))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("a", False)],
)
def test_loopback_is_recognised(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("header", "token"), [(None, ""), ("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", ""), ("Bearer", "")]
)
def test_only_a_bearer_header_carries_a_token(header: str | None, token: str) -> None:
    assert bearer(header) == token


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("公司年假政策有哪些?", "zh"),
        ("How many days of leave?", "en"),
        ("VPN 怎么用?", "zh"),
        ("Kubernetes 和 NATS JetStream 的区别", "zh"),
        ("What does 年假 mean in our handbook?", "en"),
        ("12 * 35", "en"),
    ],
)
def test_the_language_of_a_question_is_guessed(text: str, language: str) -> None:
    assert guess_language(text, "en") == language


@given(st.text())
def test_any_text_has_one_of_the_two_languages(text: str) -> None:
    assert guess_language(text, "zh") in ("zh", "en")


def announcement(worker: str, stage: str = "retrieve", **fields: object) -> Announcement:
    return Announcement(worker=worker, stage=stage, slots=1, running=0, **fields)  # type: ignore[arg-type]


def test_a_worker_is_alive_until_it_has_been_silent_or_says_goodbye() -> None:
    now = [100.0]
    presence = Presence(clock=lambda: now[0])
    assert not presence.settled
    presence.hear(announcement("one"))
    presence.hear(announcement("two"))
    assert presence.counts() == {"retrieve": 2}
    presence.hear(announcement("two", draining=True))
    assert [one.worker for one in presence.live("retrieve")] == ["one"]
    now[0] += 5
    assert presence.settled
    assert presence.live("retrieve") == []
    assert presence.gone("retrieve")
    assert not presence.gone("generate"), "never heard of is not gone"


def test_while_nobody_could_be_heard_silence_is_no_absence() -> None:
    now = [100.0]
    presence = Presence(clock=lambda: now[0])
    presence.hear(announcement("one"))
    presence.hear(announcement("two"))
    for _ in range(20):
        now[0] += 1
        presence.deaf()
        assert len(presence.live("retrieve")) == 2
    assert not presence.settled
    now[0] += 3
    presence.hear(announcement("two"))
    assert len(presence.live("retrieve")) == 2
    now[0] += 1
    assert [one.worker for one in presence.live("retrieve")] == ["two"]


def test_the_tools_of_live_workers_are_known_by_stage_and_named_once() -> None:
    presence = Presence()
    spec = ToolSpec(name="clock", description="d", parameters={"type": "object"})
    for worker in ("one", "two"):
        presence.hear(announcement(worker, "tools.default", tools=[spec]))
    presence.hear(announcement("three", "generate"))
    assert presence.tools() == {"tools.default": [spec]}


def test_a_tools_worker_that_is_called_a_variant_offers_its_tools_to_everybody() -> None:
    presence = Presence()
    spec = ToolSpec(name="clock", description="d", parameters={"type": "object"})
    presence.hear(announcement("one", "tools.default", tools=[spec], variant="b"))
    assert presence.tools() == {"tools.default": [spec]}


HOSTILE = "# Hello <script>alert(1)</script>\n\n[x](javascript:alert(1)) <img src=x onerror=alert(1)>\n"


@pytest.mark.parametrize("media_type", ["text/markdown", "text/html", "text/plain", "application/x-unknown"])
def test_an_original_can_run_nothing(media_type: str) -> None:
    document = Original(HOSTILE.encode(), DocumentMeta(title="<b>t", media_type=media_type, name="n"))
    response = original_response(document)
    page = bytes(response.body).decode()
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "<script" not in page
    assert "<img" not in page or "onerror" not in page
    assert 'href="javascript' not in page
    assert "<title>&lt;b&gt;t</title>" in page


def test_a_markdown_original_is_rendered_with_tables_and_in_chinese() -> None:
    text = "# 年假\n\n| 工龄 | 天数 |\n| --- | --- |\n| 1 年 | 5 天 |\n"
    response = original_response(Original(text.encode("gb18030"), DocumentMeta("年假", "text/markdown", "a.md")))
    page = bytes(response.body).decode()
    assert "<h1>年假</h1>" in page
    assert "<td>5 天</td>" in page


def test_everything_that_a_query_says_of_sampling_reaches_the_worker() -> None:
    said = {
        "seed": 7,
        "temperature": 0.5,
        "max_tokens": 9,
        "top_p": 0.9,
        "presence_penalty": 0.1,
        "frequency_penalty": -0.1,
        "stop": ["\n"],
    }
    assert set(said) == set(Sampling.__struct_fields__), "a new field: does a query have it too?"
    assert sampling_of(Query(query="q", **said)) == Sampling(**said)
    assert sampling_of(Query(query="q")) == Sampling()
