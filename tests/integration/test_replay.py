"""Repeatable runs of the whole system: the same question gives the same frames from the cache, another one does not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from evaluation import replay
from evaluation.frames import Frame, comparable, first_difference
from services.common.config import RetrieverSettings
from services.retriever.ingest import open_library
from tests.servers.processes import free_port, wait_until
from tests.shelf import MemoryOriginals
from tests.system import System, answer, only, start_gateway, system

QUESTION = "How long does maternity leave last?"
"""None of the hundred: in whatever order the tests run, they are asked for the first time there."""
SECRET = "a secret of at least thirty-two characters"
SETTINGS = {"BATON_CACHE": "on", "BATON_EXTRACTIVE_DELAY_MS": "0", "BATON_RETRIEVAL_TIMEOUT_S": "60"}
KEPT_WITHIN_S = 45.0
NOTICED_WITHIN_S = 0.5
"""For so long after a change the documents before it may be answered from."""


@pytest.fixture(scope="module")
def baton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with system(tmp_path_factory.mktemp("replay"), settings=SETTINGS) as one:
        yield one


def done(frames: list[Frame]) -> Frame:
    assert frames[-1]["type"] == "done", frames[-1]
    return frames[-1]


def asked(baton: System, query: str = QUESTION, **fields: Any) -> Frame:
    return done(baton.ask(query, **fields))


def asked_until_hit(baton: System, query: str = QUESTION, **fields: Any) -> list[Frame]:
    """What is worked out is kept in the background, after the answer."""
    until = time.monotonic() + KEPT_WITHIN_S
    while True:
        frames = baton.ask(query, **fields)
        if done(frames)["cache"] == "hit":
            return frames
        assert time.monotonic() < until, f"never a hit: {frames[-1]}"


def change(baton: System, *, add: Path | None = None, delete: str = "") -> None:
    """Ingest what is in a folder, or delete the document of a name, and wait until that must have been noticed."""
    asyncio.run(_change(baton, add, delete))
    time.sleep(NOTICED_WITHIN_S)


async def _change(baton: System, add: Path | None, delete: str) -> None:
    settings = RetrieverSettings(milvus_uri=baton.milvus.uri)
    async with open_library(settings, MemoryOriginals()) as library:
        if add is not None:
            assert len((await library.ingest([add])).of("added")) == 1
        if delete:
            (info,) = [info for info in await library.documents() if info.name == delete]
            assert await library.delete(info.document_id)


def test_a_hundred_questions_come_back_byte_for_byte_and_the_report_says_so(
    baton: System, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--url", baton.socket_url(), "--json", str(tmp_path / "report.json"), "--expect-hits"]
    assert replay.main(argv) == 0
    printed = capsys.readouterr().out
    assert "100 equal, 0 different, 0 failed; 100 of the second answers came from the cache" in printed
    told = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (told["questions"], told["equal"], told["hits"]) == (100, 100, 100)
    assert [one["cache"] for one in told["results"]] == [["miss", "hit"]] * 100
    assert all(one["fingerprint"][0] and one["fingerprint"][0] == one["fingerprint"][1] for one in told["results"])
    corpora = {one["fingerprint"][0].split()[0] for one in told["results"]}
    assert len(corpora) == 1
    assert "unknown" not in corpora.pop()


def test_a_hit_has_the_frames_of_the_first_answer_and_more_than_one_piece(baton: System) -> None:
    first = baton.ask(QUESTION, top_k=7)
    second = asked_until_hit(baton, top_k=7)
    assert comparable(first) == comparable(second)
    assert len(only(second, "answer_chunk")) > 3
    assert done(second)["cited"]
    assert done(first)["timings"] != done(second)["timings"]
    assert first_difference(first, second) is None


@pytest.mark.parametrize(
    "changed", [{"seed": 8}, {"temperature": 0.5}, {"max_tokens": 500}, {"top_k": 9}, {"filters": {"language": "en"}}]
)
def test_another_setting_is_another_question(baton: System, changed: dict[str, Any]) -> None:
    asked_until_hit(baton, seed=7, temperature=0.1, top_k=8)
    assert asked(baton, **{"seed": 7, "temperature": 0.1, "top_k": 8, **changed})["cache"] == "miss"


def test_a_request_may_do_without_the_cache(baton: System) -> None:
    query = "Who may take maternity leave?"
    # Asked here only: what was found and kept before a document came and went, may have been scored otherwise.
    before = asked_until_hit(baton, query)
    without = baton.ask(query, cache=False)
    assert done(without)["cache"] == "off"
    assert comparable(without) == comparable(before)


def test_what_tools_have_said_is_never_taken_from_the_cache(baton: System) -> None:
    for _ in range(2):
        frames = baton.ask("(128 + 72) × 3 等于多少?")
        assert len(only(frames, "tool_result")) == 1
        assert done(frames)["cache"] == "miss"


def test_another_user_gets_no_hit(baton: System) -> None:
    async def ask(user: str) -> Frame:
        token = jwt.encode({"sub": user, "exp": time.time() + 600}, SECRET, "HS256")
        run = await replay.ask(f"ws://127.0.0.1:{port}/ws", {"question": QUESTION}, token)
        assert not run.failed
        return dict(run.done)

    with start_gateway(baton, 9, BATON_JWT_SECRET=SECRET) as port:
        asked_until_hit(baton)
        assert asyncio.run(ask("ann"))["cache"] == "miss"
        assert asyncio.run(ask("bob"))["cache"] == "miss"
        wait_until(lambda: asyncio.run(ask("ann"))["cache"] == "hit", "her own answer is kept", KEPT_WITHIN_S)


def test_a_document_more_and_a_document_less_are_seen_within_half_a_second(baton: System, tmp_path: Path) -> None:
    query = "What is the colour of the company's rowing boat?"
    asked_until_hit(baton)
    before = asked_until_hit(baton, query)
    (tmp_path / "boat.en.md").write_text("# The rowing boat\n\nThe colour of the company's rowing boat is vermilion.\n")

    change(baton, add=tmp_path)
    with_it = baton.ask(query)
    assert "vermilion" in answer(with_it), (before, with_it)
    assert done(with_it)["cache"] == "miss", (before, with_it)
    assert asked(baton)["cache"] == "miss", "the documents are others, so everything is looked for anew"
    corpus = done(asked_until_hit(baton, query))["fingerprint"].split()[0]

    change(baton, delete="boat.en.md")
    without = baton.ask(query)
    assert "vermilion" not in answer(without), (before, with_it, without)
    assert done(without)["fingerprint"].split()[0] != corpus
    # The same documents are the same version again, and what was found and said then is right again.
    assert done(without)["fingerprint"] == done(before)["fingerprint"]
    assert done(without)["cache"] == "hit"


def test_the_report_names_what_is_different(baton: System, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "(128 + 72) × 3 等于多少?", "language": "zh"}\n{"question": "x", "top_k": 0}\n')
    assert replay.main(["--url", baton.socket_url(), "--questions", str(questions), "--expect-hits"]) == 1
    printed = capsys.readouterr().out
    assert "1 equal, 0 different, 1 failed; 0 of the second" in printed
    assert "bad_message" in printed


def test_nobody_to_ask_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main(["--url", f"ws://127.0.0.1:{free_port()}/ws"]) == 2
    assert "nobody answers" in capsys.readouterr().err
