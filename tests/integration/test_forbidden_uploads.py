"""Somebody tries to reach, by bringing documents in, listing, watching and removing, what is not for them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
import pytest

from evaluation import replay
from tests.servers.processes import eventually, running, wait_until
from tests.system import Frame, answer, only, start_gateway, system, workers_alive

SECRET = "a secret of at least thirty-two characters"
SALARIES = b"# Salaries of the board\n\nThe director's salary is quokka thousand a month.\n"
RATINGS = b"# Ratings\n\nThe rating of the half-year's work is a narwhal for everyone.\n"
HIDDEN = ("quokka", "narwhal", "salaries", "ratings", "ann", "group:hr")
QUESTION = "What is the director's salary a month?"
Groups = tuple[str, ...]


@dataclass
class Place:
    """A system with authentication and an ingest worker. `files` are those of ann and of bob, who may share."""

    port: int
    client: httpx.Client
    files: dict[str, dict[str, Any]]

    def request(self, method: str, path: str, user: str = "", groups: Groups = (), **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token(user, groups)}"} if user else {}
        return self.client.request(method, path, headers=headers, **more)

    def send(self, user: str, name: str, data: bytes, groups: Groups = (), **fields: Any) -> httpx.Response:
        form = {key: json.dumps(value) for key, value in fields.items()}
        return self.request("POST", "/documents", user, groups, files={"file": (name, data)}, data=form)

    def listed(self, user: str, groups: Groups = ()) -> dict[str, dict[str, Any]]:
        """The files that somebody is told of, by their keys."""
        return {one["file"]: one for one in self.request("GET", "/documents", user, groups).json()["files"]}

    def bring_in(self, user: str, name: str, data: bytes, groups: Groups = (), **fields: Any) -> dict[str, Any]:
        """The file as its owner sees it when it is ready."""
        response = self.send(user, name, data, groups, **fields)
        assert response.status_code == 202, response.text
        (file,) = response.json()["files"]

        def ready() -> bool:
            found = self.listed(user, groups)[file["file"]]
            assert found["state"] != "failed", found
            return bool(found["state"] == "ready")

        wait_until(ready, f"{name} is ready", within_s=90)
        return self.listed(user, groups)[file["file"]]

    def remove(self, user: str, file: str, groups: Groups = ()) -> None:
        assert self.request("DELETE", f"/documents/{file}", user, groups).status_code == 202
        wait_until(lambda: file not in self.listed(user, groups), "it is gone", within_s=90)

    def ask(self, user: str, groups: Groups = ()) -> list[Frame]:
        entry = {"question": QUESTION, "top_k": 50}
        run = asyncio.run(replay.ask(f"ws://127.0.0.1:{self.port}/ws", entry, token(user, groups)))
        assert not run.failed, run.failed
        return list(run.frames)


def token(user: str, groups: Groups = ()) -> str:
    return jwt.encode({"sub": user, "groups": list(groups), "exp": time.time() + 600}, SECRET, "HS256")


def hidden_in(text: str) -> set[str]:
    return {word for word in HIDDEN if f'"{word}' in text.lower() or (len(word) > 4 and word in text.lower())}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("uploads")
    settings = {"BATON_JWT_SECRET": SECRET, "BATON_EXTRACTIVE_DELAY_MS": "0"}
    settings |= {"BATON_UPLOAD_GROUPS": "staff,hr", "BATON_SHARE_GROUPS": "hr"}
    worker = [sys.executable, "-m", "services.retriever.ingestion"]
    with (
        system(folder, settings=settings, documents=None, replicas={"gateway": 0, "tools": 0}) as one,
        start_gateway(one, 0) as port,
        running(worker, folder / "ingest-worker.log", one.env),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        # A gateway refuses questions as long as it hears of no worker, and these may still be starting.
        wait_until(lambda: len(workers_alive(port)) == 2, "the workers are there", 60)
        made = Place(port, client, {})
        made.files["ann"] = made.bring_in("ann", "salaries.md", SALARIES, ("staff",))
        made.files["hr"] = made.bring_in("bob", "ratings.md", RATINGS, ("hr",), readers=["group:hr"])
        yield made


def test_those_who_may_see_a_file_are_told_of_it_and_nobody_else_is(place: Place) -> None:
    ann, hr = place.files["ann"], place.files["hr"]
    assert (ann["readers"], ann["mine"], hr["readers"]) == (["user:ann"], True, ["group:hr"])
    assert "quokka" in answer(place.ask("ann"))
    assert set(place.listed("carol", ("hr",))) == {hr["file"]}
    for groups in ((), ("staff",), ("HR", "user:ann")):
        assert place.request("GET", "/documents", "mallory", groups).json()["files"] == []
    assert place.request("GET", "/documents").status_code == 401
    for at in ("/documents/events", f"/documents/{ann['document_id']}", f"/documents/{ann['file']}"):
        assert place.request("GET", at).status_code == 401


def test_the_page_and_the_original_of_a_hidden_document_are_those_of_none(place: Place) -> None:
    for file in place.files.values():
        for more in ("", "?original=1", "?passage=0", "?part=1", "?passage=0&bare=1", "?text=1"):
            refused = place.request("GET", f"/documents/{file['document_id']}{more}", "mallory", ("staff",))
            never = place.request("GET", f"/documents/{'0' * 32}{more}", "mallory", ("staff",))
            assert (refused.status_code, refused.content) == (404, never.content)
    for more in ("", "?original=1", "?passage=0", "?text=1"):
        assert "quokka" in place.request("GET", f"/documents/{place.files['ann']['document_id']}{more}", "ann").text


def test_what_is_not_ones_own_cannot_be_removed(place: Place) -> None:
    for file in place.files.values():
        for name in (file["file"], file["document_id"]):
            refused = place.request("DELETE", f"/documents/{name}", "mallory", ("staff",))
            never = place.request("DELETE", f"/documents/{'0' * 32}", "mallory", ("staff",))
            assert (refused.status_code, refused.content) == (404, never.content)
    sharer = place.request("DELETE", f"/documents/{place.files['ann']['file']}", "bob", ("hr",))
    assert sharer.status_code == 404, "who may share removes what they may read, not more"
    assert place.listed("ann")[place.files["ann"]["file"]]["state"] == "ready"


def test_the_same_file_again_is_one_of_ones_own_and_tells_nothing(place: Place) -> None:
    ann = place.files["ann"]
    mine = place.bring_in("mallory", "salaries.md", SALARIES, ("staff",))
    fresh = place.bring_in("mallory", "own.md", b"# Own\n\nWhat nobody else has.\n", ("staff",))
    assert mine.keys() == fresh.keys(), "a copy shows as what is new"
    assert (mine["state"], mine["readers"], mine["mine"]) == ("ready", ["user:mallory"], True)
    assert {mine["file"], mine["document_id"]}.isdisjoint({ann["file"], ann["document_id"]})
    sources = only(place.ask("mallory"), "sources")[0]["sources"]
    assert {one["document_id"] for one in sources} <= {mine["document_id"], fresh["document_id"]}
    for file in (mine, fresh):
        place.remove("mallory", file["file"], ("staff",))
    assert place.listed("ann") == {ann["file"]: ann}
    assert "quokka" in answer(place.ask("ann"))
    assert "quokka" not in json.dumps(place.ask("mallory"))


@pytest.mark.parametrize(
    ("groups", "readers"),
    [
        ((), ["user:mallory"]),
        (("staff",), ["everybody"]),
        (("staff",), ["user:mallory", "user:ann"]),
        (("staff",), ["group:staff"]),
        (("hr",), ["group:sales"]),
    ],
)
def test_nobody_brings_in_for_others_what_they_may_not(place: Place, groups: Groups, readers: list[str]) -> None:
    response = place.send("mallory", "forced.md", b"# Forced\n\nOn others.\n", groups, readers=readers)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "forbidden")
    assert place.listed("mallory") == {}
    assert set(place.listed("ann")) == {place.files["ann"]["file"]}


def test_events_of_hidden_files_reach_only_those_who_see_them(place: Place) -> None:
    async def watched() -> dict[str, str]:
        told = {"mallory": "", "ann": ""}
        async with listening(place, told), listening(place, told, "ann"):
            await eventually(lambda: ready(lambda: all("watching" in one for one in told.values())), "they watch", 60)
            file = await asyncio.to_thread(place.bring_in, "ann", "more.md", b"# More\n\nOf ann.\n", ("staff",))
            await asyncio.to_thread(place.remove, "ann", file["file"])
            mine = await asyncio.to_thread(place.bring_in, "mallory", "last.md", b"# Last\n\nOf her.\n", ("staff",))
            await asyncio.to_thread(place.remove, "mallory", mine["file"], ("staff",))
            await eventually(lambda: ready(lambda: '"removed"' in told["mallory"]), "her last event", 60)
            await eventually(lambda: ready(lambda: '"removed"' in told["ann"]), "ann's last event", 60)
        return told

    async def ready(condition: Any) -> bool:
        return bool(condition())

    told = asyncio.run(watched())
    assert "more.md" in told["ann"]
    assert "last.md" in told["mallory"]
    assert "last.md" not in told["ann"]
    assert "more.md" not in told["mallory"]
    assert hidden_in(told["mallory"]) == set()


@asynccontextmanager
async def listening(place: Place, told: dict[str, str], user: str = "mallory") -> AsyncIterator[None]:
    async def listen() -> None:
        headers = {"Authorization": f"Bearer {token(user)}"}
        address = f"http://127.0.0.1:{place.port}/documents/events"
        async with httpx.AsyncClient(timeout=60) as client, client.stream("GET", address, headers=headers) as response:
            assert response.status_code == 200
            async for text in response.aiter_text():
                told[user] += text

    task = asyncio.create_task(listen())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
