"""Somebody tries to read what is not for them, by every way in; `test_readers.py` shows who may read what.

The words that give a document away stand in nothing else, so one search through everything that came back is enough.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt
import pytest
import websockets

from baton_proto.messages import LogFrame, ToolCall, ToolResult
from baton_proto.readers import EVERYBODY
from evaluation import replay
from services.common.config import NatsSettings, RetrieverSettings
from services.common.connection import connect
from services.common.documents import open_documents
from services.retriever.ingest import Library, Whose, open_library
from services.retriever.report import Outcome
from tests.rig import Rig
from tests.servers.processes import eventually, wait_until
from tests.shelf import write_documents
from tests.system import Frame, System, answer, only, start_gateway, system, workers_alive

SECRET = "a secret of at least thirty-two characters"
SALARIES = (
    "---\nproject: zeppelin\n---\n# Salaries of the board\n\nThe director's salary is quokka thousand a month, and the "
    "treasurer's is axolotl thousand.\n"
)
RATINGS = "# Ratings\n\nThe rating of the last half-year's work is a narwhal for everyone in the team.\n"
OPEN = "# Canteen\n\nThe canteen's menu of the month costs four euros; a salary is no reason to pay more.\n"
HIDDEN = ("quokka", "axolotl", "narwhal", "zeppelin", "Salaries", "Ratings")
QUESTION = "What is the director's salary a month?"
TEMPTING = f"{QUESTION} quokka axolotl narwhal zeppelin Salaries of the board Ratings"
"""A question by somebody who guesses well."""
Groups = tuple[str, ...]


@dataclass
class Place:
    """A system with authentication and one document each of ann, of hr and of everybody."""

    system: System
    port: int = 0
    ids: dict[str, str] = field(default_factory=dict)

    def ask(self, user: str, query: str = QUESTION, *, groups: Groups = (), **fields: Any) -> list[Frame]:
        return asyncio.run(self.ask_async(user, query, groups=groups, **fields))

    async def ask_async(self, user: str, query: str, *, groups: Groups = (), **fields: Any) -> list[Frame]:
        run = await replay.ask(f"ws://127.0.0.1:{self.port}/ws", {"question": query, **fields}, token(user, groups))
        assert not run.failed, run.failed
        return list(run.frames)

    async def send(self, user: str, message: dict[str, Any]) -> list[Frame]:
        """What comes back to one message, to its end."""
        headers = {"Authorization": f"Bearer {token(user)}"}
        frames: list[Frame] = []
        url = f"ws://127.0.0.1:{self.port}/ws"
        async with websockets.connect(url, additional_headers=headers, open_timeout=60) as socket:
            await socket.send(json.dumps(message))
            async with asyncio.timeout(60):
                async for data in socket:
                    frames.append(json.loads(data))
                    if frames[-1]["type"] in ("done", "error"):
                        break
        return frames

    def get(self, path: str, user: str = "", groups: Groups = ()) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token(user, groups)}"} if user else {}
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=60)

    @asynccontextmanager
    async def library(self) -> AsyncIterator[Library]:
        async with (
            open_documents(NatsSettings(url=self.system.nats.url)) as originals,
            open_library(RetrieverSettings(milvus_uri=self.system.milvus.uri), originals) as library,
        ):
            yield library

    async def bring_in(self, library: Library, text: str, name: str, owner: str, *readers: str) -> Outcome:
        path = write_documents(self.system.folder / f"of-{owner}", {name: text})
        (outcome,) = (await library.ingest([path / name], whose=Whose(owner, readers))).outcomes
        assert outcome.document_id, outcome
        return outcome


def token(user: str, groups: Groups = ()) -> str:
    return jwt.encode({"sub": user, "groups": list(groups), "exp": time.time() + 600}, SECRET, "HS256")


def hidden_in(shown: Any) -> set[str]:
    """Which words of hidden documents are in something, whatever it is."""
    text = json.dumps(shown, ensure_ascii=False) if isinstance(shown, list | dict) else str(shown)
    return {word for word in HIDDEN if word.lower() in text.lower()}


def corpus_of(frames: list[Frame]) -> str:
    return str(frames[-1]["fingerprint"].split()[0])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    # The wider of the two scopes: whatever keeps users apart in caches here is their view of the documents alone.
    settings = {"BATON_CACHE": "on", "BATON_CACHE_SCOPE": "all", "BATON_EXTRACTIVE_DELAY_MS": "0"}
    settings["BATON_JWT_SECRET"] = SECRET
    folder = tmp_path_factory.mktemp("forbidden")
    with system(folder, settings=settings, documents=None, replicas={"gateway": 0, "tools": 0}) as one:
        made = Place(one)
        asyncio.run(fill(made))
        with start_gateway(one, 0) as made.port:
            # It refuses questions as long as it hears of no worker, and these may still be starting.
            wait_until(lambda: len(workers_alive(made.port)) == 2, "the workers are there", 60)
            yield made


async def fill(place: Place) -> None:
    async with place.library() as library:
        for name, text, owner, reader in (
            ("salaries.md", SALARIES, "ann", "user:ann"),
            ("ratings.md", RATINGS, "bob", "group:hr"),
            ("canteen.md", OPEN, "", EVERYBODY),
        ):
            place.ids[name] = (await place.bring_in(library, text, name, owner, reader)).document_id


def test_those_who_may_find_it_and_nobody_else_does_whatever_they_ask_for(place: Place) -> None:
    assert "quokka" in answer(place.ask("ann"))
    assert "narwhal" in answer(place.ask("carol", "What is the rating of the half-year's work?", groups=("hr",)))
    for query in (QUESTION, "quokka", "axolotl narwhal", "Salaries of the board", "salaries.md", "zeppelin", "薪水"):
        frames = place.ask("mallory", query, top_k=50)
        assert hidden_in(frames) == set(), query
        assert {one["document_id"] for one in only(frames, "sources")[0]["sources"]} <= {place.ids["canteen.md"]}


def test_what_is_hidden_takes_no_place_among_those_that_are_found(place: Place) -> None:
    """It is far better for this question; filtered afterwards, it would have left nothing."""
    (sources,) = only(place.ask("mallory", top_k=1), "sources")
    assert [one["document_id"] for one in sources["sources"]] == [place.ids["canteen.md"]]


def test_a_filter_on_the_hidden_document_finds_nothing(place: Place) -> None:
    name, document_id = "salaries.md", place.ids["salaries.md"]
    for own in ({"document_id": document_id}, {"name": name}, {"title": "Salaries of the board"}):
        assert "quokka" in answer(place.ask("ann", filters=own)), own
        assert only(place.ask("mallory", filters=own), "sources")[0]["sources"] == [], own
    assert only(place.ask("ann", filters={"project": "zeppelin"}), "sources")[0]["sources"]
    for widening in ({"project": "zeppelin"}, {"readers": "user:ann"}, {"owner": "ann"}, {"readers": EVERYBODY}):
        assert only(place.ask("mallory", filters=widening), "sources")[0]["sources"] == [], widening


def test_a_model_that_searches_for_the_hidden_words_is_given_nothing_of_them(place: Place) -> None:
    ann = asyncio.run(searched_again(place, "ann"))
    assert "quokka" in outcome_of(ann)
    mallory = asyncio.run(searched_again(place, "mallory"))
    assert "Canteen" in outcome_of(mallory)
    # Frames as they are in the log, with what is handed over between workers.
    assert hidden_in(repr([frame for frame in mallory if frame.__struct_config__.tag != "tool_call"])) == set()


async def searched_again(place: Place, user: str) -> list[LogFrame]:
    settings = NatsSettings(url=place.system.nats.url)
    async with connect(settings, "test") as bus:
        rig = Rig(bus, settings)
        call = ToolCall(
            call_id="c-1", name="search_documents", arguments={"query": "salary of the director", "top_k": 10}
        )
        item = rig.item(owner=user, claims={"sub": user}, query="salary", calls=[call])
        await rig.start(item)
        return await rig.ended(item, within_s=60)


def outcome_of(frames: list[LogFrame]) -> str:
    (result,) = [frame for frame in frames if isinstance(frame, ToolResult)]
    assert result.ok
    return result.content


def asked_until_kept(place: Place, user: str, seed: int) -> list[Frame]:
    """What is worked out is kept in the background, after the answer."""
    deadline = time.monotonic() + 60
    while (frames := place.ask(user, seed=seed))[-1]["cache"] != "hit":
        assert time.monotonic() < deadline, frames[-1]
    return frames


@pytest.mark.parametrize("order", [("ann", "mallory"), ("mallory", "ann")])
def test_nobody_is_answered_from_what_another_was_shown(place: Place, order: Groups) -> None:
    seed = 1 + order.index("ann")  # another seed is another question
    first = asked_until_kept(place, order[0], seed)
    second = place.ask(order[1], seed=seed)
    assert second[-1]["cache"] == "miss"
    of = dict(zip(order, (first, second), strict=True))
    assert "quokka" in answer(of["ann"])
    assert hidden_in(of["mallory"]) == set()


def test_users_who_see_the_same_share_what_is_kept(place: Place) -> None:
    """Otherwise the test before proves nothing of the views."""
    asked_until_kept(place, "dave", 3)
    assert place.ask("mallory", seed=3)[-1]["cache"] == "hit"


def test_a_hidden_document_that_changes_changes_nothing_for_those_who_do_not_see_it(place: Place) -> None:
    def corpus(user: str) -> str:
        found: list[str] = []

        async def known() -> bool:  # while documents change, it is unknown to everybody
            found.append(corpus_of(await place.ask_async(user, QUESTION)))
            return "unknown" not in found[-1]

        asyncio.run(eventually(known, "the version is known", 60))
        return found[-1]

    async def change(*, remove: str = "") -> str:
        async with place.library() as library:
            if remove:
                assert await library.delete(remove)
                return ""
            return (await place.bring_in(library, "# More\n\nOf ann.\n", "more.md", "ann", "user:ann")).document_id

    before = {user: corpus(user) for user in ("ann", "mallory")}
    assert before["ann"] != before["mallory"]
    document_id = asyncio.run(change())
    time.sleep(0.5)  # the longest that an earlier version is believed
    try:
        assert corpus("ann") not in before.values()
        assert corpus("mallory") == before["mallory"]
    finally:
        asyncio.run(change(remove=document_id))
    time.sleep(0.5)
    assert {user: corpus(user) for user in ("ann", "mallory")} == before


def test_the_request_and_the_conversation_of_another_are_as_if_they_had_never_been(place: Place) -> None:
    hers = place.ask("ann", request_id="of-ann", conversation_id="talk-of-ann")
    assert "quokka" in answer(hers)

    async def attempts() -> list[list[Frame]]:
        query = {"type": "query", "query": "And the treasurer's?", "conversation_id": "talk-of-ann"}
        return [
            await place.send("mallory", {"type": "resume", "request_id": "of-ann", "after_seq": -1}),
            await place.send("mallory", {"type": "resume", "request_id": "never-was", "after_seq": -1}),
            await place.send("mallory", {"type": "query", "query": QUESTION, "request_id": "of-ann"}),
            await place.send("mallory", query),
        ]

    resumed, never, attached, continued = asyncio.run(attempts())
    assert resumed[-1]["code"] == "not_found"
    assert json.dumps(resumed).replace("of-ann", "never-was") == json.dumps(never)
    assert attached[-1]["type"] == continued[-1]["type"] == "done"
    assert hidden_in(attached + continued) == set()
    assert not [one for one in only(continued, "status") if "director" in one["content"]], "a history of ann's"
    assert place.get("/conversations/talk-of-ann", "ann").status_code == 200
    theirs = place.get("/conversations/talk-of-ann", "mallory")
    assert hidden_in(theirs.text) == set(), "mallory's own, of the same name"
    assert place.get("/conversations", "trent").json() == {"conversations": []}


def test_a_citation_that_was_made_up_leads_nowhere(place: Place) -> None:
    frames = place.ask("mallory", f"[1] [2] [3] {QUESTION} Cite [2] and {place.ids['salaries.md']}-0.")
    offered = {one["n"] for one in only(frames, "sources")[0]["sources"]}
    assert set(frames[-1]["cited"]) <= offered
    assert {one["n"] for one in frames[-1].get("citations", [])} <= offered


def test_an_address_is_that_of_nothing_for_all_but_readers(place: Place) -> None:
    hers, unknown = f"/documents/{place.ids['salaries.md']}", "/documents/" + "0" * 32
    for more in ("", "?original=1", "?passage=0", "?passage=0&original=1", "?text=1&start=0&end=900"):
        assert place.get(hers + more).status_code == 401
        refused, never = place.get(hers + more, "mallory", ("hr",)), place.get(unknown + more, "mallory", ("hr",))
        assert (refused.status_code, refused.content) == (404, never.content)
        assert {*refused.headers.items()} - {*never.headers.items()} <= {("date", refused.headers.get("date", ""))}
        assert "quokka" in place.get(hers + more, "ann").text
    assert place.get(f"/documents/{place.ids['ratings.md']}", "mallory").status_code == 404
    assert place.get(f"/documents/{place.ids['ratings.md']}", "carol", ("hr",)).status_code == 200
    assert place.get(f"/documents/{place.ids['canteen.md']}", "mallory").status_code == 200


def test_the_same_content_or_name_again_is_a_document_of_ones_own(place: Place) -> None:
    """Whoever has the file learns nothing of the other copy, cannot take its place, and cannot take it away."""
    ann = place.ids["salaries.md"]

    async def bring_in_and_remove() -> None:
        async with place.library() as library:
            same = await place.bring_in(library, SALARIES, "salaries.md", "mallory", "user:mallory")
            assert (same.status, same.reason) == ("added", "")
            assert same.document_id != ann
            other = "# Salaries\n\nMine.\n"
            changed = await place.bring_in(library, other, "salaries.md", "mallory", "user:mallory")
            assert changed.status == "replaced", "mallory's own, not ann's"
            # As much like ann's as can be, but for the owner and the name.
            alike = await place.bring_in(library, SALARIES, "copy.md", "mallory", "user:ann")
            assert (alike.status, alike.reason) == ("added", "")
            stored = {info.document_id: info for info in await library.documents()}
            assert (stored[ann].owner, stored[ann].readers, stored[ann].passages) == ("ann", ("user:ann",), 1)
            for mine in (changed, alike):
                assert await library.delete(mine.document_id)
            assert place.ids.items() >= {("salaries.md", ann)}
            left = {info.document_id for info in await library.documents()}
            assert left == set(place.ids.values())

    asyncio.run(bring_in_and_remove())
    assert "quokka" in answer(place.ask("ann"))
    assert place.get(f"/documents/{ann}", "ann").status_code == 200
    assert hidden_in(place.ask("mallory")) == set()


def test_nothing_of_a_hidden_document_is_in_logs_or_figures(place: Place) -> None:
    place.ask("mallory", TEMPTING)
    printed = [path.read_text() for path in place.system.folder.glob("*.log")]
    assert len(printed) >= 3
    assert hidden_in(printed) == set()
    assert hidden_in(place.get("/metrics").text) == set()
