"""`/documents` of a real gateway process, on a real NATS: who may bring in, see, watch and remove what."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from baton_proto.messages import FileRecord
from baton_proto.subjects import file_key
from services.common.bus import Bus
from services.common.config import NatsSettings
from services.common.connection import connect
from services.common.documents import DocumentMeta, Documents, Original, View
from services.common.files import Files, Held
from tests.integration.test_gateway_protocol import SECRET, gateway
from tests.servers.nats import Nats
from tests.servers.processes import wait_until

GUARDED = {"BATON_JWT_SECRET": SECRET, "BATON_SHARE_GROUPS": "editors", "BATON_UPLOAD_MAX_BYTES": "200000"}
PDF = b"%PDF-1.4 not really"


class User:
    """Somebody with a token."""

    def __init__(self, port: int, name: str, *groups: str, origin: str | None = None) -> None:
        claims = {"sub": name, "groups": list(groups), "exp": time.time() + 600}
        headers = {"Authorization": f"Bearer {jwt.encode(claims, SECRET, 'HS256')}"}
        if origin:
            headers["Origin"] = origin
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60)

    def upload(self, name: str, data: bytes = b"# Title\n\nText.\n", **fields: Any) -> httpx.Response:
        form = {key: json.dumps(value) for key, value in fields.items()}
        return self.http.post("/documents", files=[("file", (name, data))], data=form)

    def files(self) -> list[dict[str, Any]]:
        files: list[dict[str, Any]] = self.http.get("/documents").json()["files"]
        return files


@pytest.fixture
def guarded(nats: Nats, tmp_path: Path) -> Iterator[int]:
    with gateway(tmp_path, nats, **GUARDED) as (port, _):
        yield port


def with_bus(nats: Nats, work: Any) -> Any:
    async def run() -> Any:
        async with connect(NatsSettings(url=nats.url, shards=4), "test") as bus:
            return await work(bus)

    return asyncio.run(run())


def finish(nats: Nats, owner: str, file: str, *readers: str, document_id: str = "d" * 32) -> None:
    """What an ingest worker makes of a file, without one."""

    async def work(bus: Bus) -> None:
        files = Files(bus)
        held: Held = await files.hold(owner, file)
        assert held.record is not None
        meta = DocumentMeta("Report <b>", "application/pdf", "报告.pdf", owner, readers)
        view = View("One.\n\nTwo <script>.\n\nThree.", pages=(0, 6), passages=((0, 4), (6, 19), (21, 27)))
        await Documents(bus).put(document_id, Original(PDF, meta, view))
        fields = {"state": "ready", "document_id": document_id, "readers": list(readers), "passages": 3}
        await files.put(type(held.record)(**{**_fields(held.record), **fields}), held.revision)

    with_bus(nats, work)


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}


def test_what_a_user_brings_in_is_their_own(guarded: int, nats: Nats) -> None:
    alice, bob = User(guarded, "alice"), User(guarded, "bob")
    answer = alice.upload("notes/Übung.md", metadata={"site": "Berlin"})
    assert answer.status_code == 202
    (file,) = answer.json()["files"]
    assert (file["name"], file["state"], file["readers"], file["mine"]) == (
        "notes/Übung.md",
        "queued",
        ["user:alice"],
        True,
    )
    assert alice.files() == [file]
    assert bob.files() == []
    finish(nats, "alice", file["file"], "user:alice")
    wait_until(lambda: alice.files()[0]["state"] == "ready", "the gateway has heard of it")
    page = alice.http.get(f"/documents/{'d' * 32}", params={"passage": 1})
    assert page.status_code == 200
    assert '<mark id="passage">Two &lt;script&gt;.</mark>' in page.text
    assert 'id="page=2"' in page.text
    assert "<b>" not in page.text
    assert "sandbox" in page.headers["content-security-policy"]
    never = bob.http.get(f"/documents/{'e' * 32}")
    for path in (
        f"/documents/{'d' * 32}",
        f"/documents/{'d' * 32}?original=1",
        f"/documents/{'d' * 32}?passage=1",
        f"/documents/{'d' * 32}?text=1&start=6&end=19",
    ):
        forbidden = bob.http.get(path)
        assert (forbidden.status_code, forbidden.text) == (never.status_code, never.text) == (404, never.text)
    for name in (file["file"], "d" * 32, "e" * 32):
        refused = bob.http.delete(f"/documents/{name}")
        assert (refused.status_code, refused.text) == (404, never.text)
    piece = alice.http.get(f"/documents/{'d' * 32}?text=1&start=6&end=19")
    assert (piece.text, piece.headers["content-type"]) == ("Two <script>.", "text/plain; charset=utf-8")
    assert "sandbox" in piece.headers["content-security-policy"]
    assert piece.headers["x-content-type-options"] == "nosniff"
    for more, text in (
        ("", "One.\n\nTwo <script>.\n\nThree."),
        ("&start=21", "Three."),
        ("&start=99&end=3", ""),
        ("&end=x", "One.\n\nTwo <script>.\n\nThree."),
    ):
        assert alice.http.get(f"/documents/{'d' * 32}?text=1{more}").text == text
    original = alice.http.get(f"/documents/{'d' * 32}?original=1")
    assert (original.content, original.headers["content-type"]) == (PDF, "application/pdf")
    assert original.headers["x-content-type-options"] == "nosniff"
    assert original.headers["content-disposition"] == "inline; filename*=utf-8''%E6%8A%A5%E5%91%8A.pdf"
    removed = alice.http.delete(f"/documents/{'d' * 32}")
    assert (removed.status_code, removed.json().get("state")) == (202, "removing"), removed.text


def test_only_who_may_share_lets_others_read(guarded: int, nats: Nats) -> None:
    alice, bob = User(guarded, "alice", "hr", "editors"), User(guarded, "bob", "hr")
    refused = bob.upload("a.md", readers=["everybody"])
    assert refused.status_code == 403
    assert "BATON_SHARE_GROUPS" in refused.json()["error"]["message"]
    assert bob.upload("a.md", readers=["user:bob"]).status_code == 202
    assert alice.upload("a.md", readers=["group:finance"]).status_code == 403
    (file,) = alice.upload("b.md", readers=["group:hr", "user:carol"]).json()["files"]
    # Who else may read it is not for the reader.
    seen = next(one for one in bob.files() if not one["mine"])
    assert (seen["file"], seen["readers"]) == (file["file"], ["group:hr"])
    assert bob.http.delete(f"/documents/{file['file']}").status_code == 404
    assert User(guarded, "dave", "hr", "editors").http.delete(f"/documents/{file['file']}").status_code == 202
    assert User(guarded, "eve", "editors").files() == []


def test_whoever_watches_sees_the_changes_of_what_they_may_read(guarded: int, nats: Nats) -> None:
    alice, bob = User(guarded, "alice", "editors"), User(guarded, "bob")
    with bob.http.stream("GET", "/documents/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        assert next(lines) == ": watching"
        alice.upload("secret.md")
        (file,) = alice.upload("open.md", readers=["everybody"]).json()["files"]
        event = _next_event(lines)
        assert (event["file"], event["name"], event["mine"]) == (file["file"], "open.md", False)
        # Taken away from them, it is gone for them.
        finish(nats, "alice", file["file"], "user:alice")
        assert _next_event(lines) == {"file": file["file"], "state": "removed"}


def _next_event(lines: Iterator[str]) -> dict[str, Any]:
    line = next(line for line in lines if line.startswith("data: "))
    event: dict[str, Any] = json.loads(line.removeprefix("data: "))
    return event


BAD_NAMES = ["../a.md", "a/../../b.md", "/etc/passwd", "a\\b.md", "C:x.md", "a//b.md", "x" * 1_025, "a/./b", "a\u2028b"]


def test_what_cannot_be_taken_is_refused_with_a_reason(guarded: int) -> None:
    alice = User(guarded, "alice")
    for name in BAD_NAMES:
        answer = alice.upload(name)
        assert answer.status_code == 400, name
        assert answer.json()["error"]["code"] == "bad_message"
        assert "name" in answer.json()["error"]["message"]
    assert alice.upload("a.md", readers=[]).status_code == 400
    assert alice.upload("a.md", readers="everybody").status_code == 400
    assert alice.upload("a.md", metadata={"a b": 1}).status_code == 400
    assert alice.upload("a.md", metadata=[1]).status_code == 400
    for number in ("1e999", "-1e999", "NaN", "1" + "0" * 30, '"\\ud800"', "null", "[1]"):
        answer = alice.http.post(
            "/documents", files=[("file", ("a.md", b"x"))], data={"metadata": f'{{"a": {number}}}'}
        )
        assert answer.status_code == 400, number
        assert "`metadata`" in answer.json()["error"]["message"], number
    assert alice.http.post("/documents", content=b"x").status_code == 400
    assert alice.http.post("/documents", data={"readers": "[]"}).status_code == 400
    assert (
        alice.http.post("/documents", content=b"x", headers={"Content-Type": "multipart/form-data"}).status_code == 400
    )
    assert alice.upload("big.md", b"x" * 300_000).status_code == 413
    assert alice.files() == []
    assert httpx.get(f"http://127.0.0.1:{guarded}/documents", timeout=60).status_code == 401
    assert httpx.post(f"http://127.0.0.1:{guarded}/documents", timeout=60).status_code == 401


def test_an_upload_without_a_length_is_cut_off_where_it_gets_too_large(guarded: int) -> None:
    alice = User(guarded, "alice")
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.md"\r\n\r\n'

    def body() -> Iterator[bytes]:
        yield head
        for _ in range(50):
            yield b"x" * 10_000

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    with contextlib.suppress(httpx.WriteError):  # the gateway may hang up while this still writes
        assert alice.http.post("/documents", content=body(), headers=headers).status_code == 413
    assert alice.files() == []


def test_a_too_large_upload_is_refused_before_it_is_sent(guarded: int) -> None:
    token = User(guarded, "alice").http.headers["Authorization"]
    with socket.create_connection(("127.0.0.1", guarded), timeout=60) as raw:
        raw.sendall(
            f"POST /documents HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: 99999999\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\n\r\n".encode()
        )
        assert raw.recv(100).startswith(b"HTTP/1.1 413")


def test_without_authentication_pages_of_other_origins_may_bring_nothing_in(nats: Nats, tmp_path: Path) -> None:
    with gateway(tmp_path, nats) as (port, _):
        http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        form = {"files": [("file", ("a.zip", b"PK"))]}
        assert http.post("/documents", headers={"Origin": "https://evil.example"}, **form).status_code == 403
        assert http.post("/documents", headers={"Origin": "null"}, **form).status_code == 403
        assert http.post("/documents", headers={"Host": "evil.example"}, **form).status_code == 403
        assert http.post("/documents", headers={"Sec-Fetch-Site": "cross-site"}, **form).status_code == 403
        assert http.get("/documents").json()["files"] == []
        answer = http.post("/documents", **form)
        assert answer.status_code == 202
        (file,) = answer.json()["files"]
        assert (file["readers"], file["mine"]) == (["everybody"], True)
        # What is for somebody is for nobody here.
        finish(nats, "anonymous", file["file"], "user:alice")
        assert http.get(f"/documents/{'d' * 32}").status_code == 404


def test_without_authentication_the_operators_files_are_out_of_reach(nats: Nats, tmp_path: Path) -> None:
    async def bring_in(bus: Bus) -> None:
        await Files(bus).add(owner="", name="plan.md", data=b"# A plan", readers=["user:alice"])

    async def record(bus: Bus) -> None:
        kept.append(await Files(bus).get("", file_key("", "plan.md")))

    kept: list[FileRecord | None] = []
    with gateway(tmp_path, nats) as (port, _):
        with_bus(nats, bring_in)
        with_bus(nats, record)
        http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        assert "plan.md" not in http.get("/documents").text
        answer = http.post("/documents", files=[("file", ("plan.md", b"# Another"))])
        (file,) = answer.json()["files"]
        assert file["file"] != file_key("", "plan.md")
        assert http.delete(f"/documents/{file_key('', 'plan.md')}").status_code == 404
        with_bus(nats, record)
    assert kept[0] is not None
    assert kept[1] == kept[0]


def test_uploads_can_be_for_some_only_or_off(nats: Nats, tmp_path: Path) -> None:
    with gateway(tmp_path, nats, BATON_JWT_SECRET=SECRET, BATON_UPLOAD_GROUPS="writers") as (port, _):
        assert User(port, "alice").upload("a.md").status_code == 403
        assert User(port, "alice").http.get("/documents").json()["may_upload"] is False
        assert User(port, "bob", "writers").upload("a.md").status_code == 202
    with (
        gateway(tmp_path, nats, BATON_UPLOADS="false") as (port, _),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
    ):
        assert http.get("/documents").json()["may_upload"] is False
        assert http.post("/documents", files=[("file", ("a.md", b"x"))]).status_code == 403
