"""Readers of documents over the whole wire: what a token may not read is nowhere, for those who may it is there."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import websockets

from baton_proto.readers import EVERYBODY
from evaluation import replay
from services.common.config import NatsSettings, RetrieverSettings
from services.common.documents import open_documents
from services.retriever.ingest import Whose, open_library
from tests.shelf import write_documents
from tests.system import Frame, System, start_gateway, system

SECRET = "a secret of at least thirty-two characters"
QUESTION = "Which colour has the rowing boat of the company?"
ANN = "# Boats\n\nThe rowing boat of the company has the colour vermilion, says Ann.\n"
GROUP = "# Boats\n\nThe rowing boat of the company has the colour turquoise, says the group.\n"
OPEN = "# Boats\n\nThe rowing boat of the company has a colour, says everybody.\n"
ALL = {ANN, GROUP, OPEN}


@dataclass(frozen=True)
class Place:
    """A system with authentication, and the ids of its documents by what they say."""

    port: int
    ids: dict[str, str]

    def ask(self, user: str, groups: Any = (), **fields: Any) -> list[Frame]:
        entry = {"question": QUESTION, "top_k": 50, **fields}
        run = asyncio.run(replay.ask(f"ws://127.0.0.1:{self.port}/ws", entry, token(user, groups)))
        assert not run.failed, run.failed
        return list(run.frames)

    def seen(self, user: str, groups: Any = (), **fields: Any) -> set[str]:
        """What somebody is shown, by the ids of sources; nothing else may be in any frame."""
        frames = self.ask(user, groups, **fields)
        shown = {one["document_id"] for frame in frames if frame["type"] == "sources" for one in frame["sources"]}
        found = {text for text, document_id in self.ids.items() if document_id in shown}
        said = json.dumps(frames, ensure_ascii=False)
        assert not [word for word in ("vermilion", "turquoise") if word in said and not any(word in t for t in found)]
        (count,) = {frame["count"] for frame in frames if frame["type"] == "status" and "count" in frame}
        assert count == len([one for frame in frames if frame["type"] == "sources" for one in frame["sources"]])
        return found


def token(user: str, groups: Any = ()) -> str:
    groups = list(groups) if isinstance(groups, tuple) else groups
    return jwt.encode({"sub": user, "groups": groups, "exp": time.time() + 600}, SECRET, "HS256")


@pytest.fixture(scope="module", params=["user", "all"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("readers")
    settings = {"BATON_CACHE": "on", "BATON_CACHE_SCOPE": request.param, "BATON_EXTRACTIVE_DELAY_MS": "0"}
    settings["BATON_JWT_SECRET"] = SECRET
    with system(folder, settings={**settings}, documents=None, replicas={"gateway": 0}) as one:
        ids = asyncio.run(bring_in(one, folder))
        with start_gateway(one, 0) as port:
            yield Place(port, ids)


async def bring_in(one: System, folder: Path) -> dict[str, str]:
    """The same name for all: owners keep them apart."""
    settings = RetrieverSettings(milvus_uri=one.milvus.uri)
    ids = {}
    async with (
        open_documents(NatsSettings(url=one.nats.url)) as originals,
        open_library(settings, originals) as library,
    ):
        for text, whose in (
            (ANN, Whose("ann", ("user:ann",))),
            (GROUP, Whose("bob", ("group:hr",))),
            (OPEN, Whose("", (EVERYBODY,))),
        ):
            report = await library.ingest(
                [write_documents(folder / f"of-{whose.owner}", {"boats.md": text})], whose=whose
            )
            (outcome,) = report.of("added")
            ids[text] = outcome.document_id
    return ids


def test_everybody_sees_what_they_may_and_nothing_else_whoever_has_asked_before(place: Place) -> None:
    for _ in range(2):  # the second round from caches, where there is something in them
        assert place.seen("ann") == {ANN, OPEN}
        assert place.seen("mallory") == {OPEN}
        assert place.seen("carol", ("hr", "sales")) == {GROUP, OPEN}
        assert place.seen("ann", ("hr",)) == ALL
        assert place.seen("bob") == {OPEN}, "bringing a document in for others gives no right to read it"
        time.sleep(0.8)  # what was found is kept in the background


@pytest.mark.parametrize(
    ("user", "groups"),
    [
        ("user:ann", ()),
        ("everybody", ()),
        ("Ann", ()),
        ("ann ", ()),
        ("group:hr", ()),
        ("mallory", ("user:ann", "HR", "hr ", "group:hr", "")),
        ("mallory", {"hr": True}),
        ("mallory", [["hr"], 7, None, {"name": "hr"}]),
        ("mallory", "hr,sales"),
    ],
)
def test_no_name_that_is_only_like_a_reader_reads(place: Place, user: str, groups: Any) -> None:
    assert place.seen(user, groups) == {OPEN}


def test_filters_narrow_and_never_widen(place: Place) -> None:
    assert place.seen("ann", filters={"document_id": place.ids[ANN]}) == {ANN}
    for filters in (
        {"document_id": place.ids[ANN]},
        {"readers": "user:ann"},
        {"owner": "ann"},
        {"name": 'boats.md" or owner == "ann'},
        {"document_id": place.ids[ANN], "language": "en"},
    ):
        assert place.seen("mallory", filters=filters) == set(), filters
    assert place.seen("mallory", filters={"name": "boats.md"}) == {OPEN}


def test_the_fingerprint_is_that_of_what_may_be_seen(place: Place) -> None:
    def corpus(user: str, groups: Any = ()) -> str:
        return str(place.ask(user, groups)[-1]["fingerprint"].split()[0])

    assert corpus("mallory") == corpus("bob", ("sales",))
    assert len({corpus("mallory"), corpus("ann"), corpus("carol", ("hr",)), corpus("ann", ("hr",))}) == 4


def test_the_address_of_a_document_answers_its_readers_only(place: Place) -> None:
    def status(text: str, *credentials: Any) -> int:
        headers = {"Authorization": f"Bearer {token(*credentials)}"} if credentials else {}
        address = f"http://127.0.0.1:{place.port}/documents/{place.ids[text]}"
        return httpx.get(address, headers=headers, timeout=60).status_code

    assert [status(text) for text in (ANN, GROUP, OPEN)] == [401, 401, 401]
    assert [status(text, "ann") for text in (ANN, GROUP, OPEN)] == [200, 404, 200]
    assert [status(text, "carol", ("hr",)) for text in (ANN, GROUP, OPEN)] == [404, 200, 200]
    assert [status(text, "mallory") for text in (ANN, GROUP, OPEN)] == [404, 404, 200]


def test_somebody_elses_answer_is_not_found_by_its_request_or_conversation(place: Place) -> None:
    async def mallory(message: dict[str, Any]) -> list[Frame]:
        frames: list[Frame] = []
        uri = f"ws://127.0.0.1:{place.port}/ws"
        headers = {"Authorization": f"Bearer {token('mallory')}"}
        async with websockets.connect(uri, additional_headers=headers, open_timeout=60) as socket:
            await socket.send(json.dumps(message))
            async with asyncio.timeout(60):
                async for data in socket:
                    frames.append(json.loads(data))
                    if frames[-1]["type"] in ("done", "error"):
                        return frames
        return frames

    asked = place.ask("ann", request_id="private-1", conversation_id="private-c")
    assert "vermilion" in json.dumps(asked)
    resumed = asyncio.run(mallory({"type": "resume", "request_id": "private-1", "after_seq": -1}))
    assert resumed[-1]["code"] == "not_found"
    same = {"type": "query", "query": QUESTION, "request_id": "private-1", "conversation_id": "private-c"}
    assert "vermilion" not in json.dumps(asyncio.run(mallory(same)))
    of_hers = httpx.get(
        f"http://127.0.0.1:{place.port}/conversations/private-c",
        headers={"Authorization": f"Bearer {token('mallory')}"},
        timeout=60,
    )
    assert "vermilion" not in of_hers.text
