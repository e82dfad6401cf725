"""The whole of Baton in front of real inference servers: an answer with its citation, a cancel, a server that dies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import websockets

from bench.usage import cpu_s
from tests.servers.processes import eventually
from tests.system import Frame, System, answer, assert_contiguous, only, system

from . import dialogues as taught
from .dialogues import PROMPTS
from .servers import CALLING, KINDS, ModelServer, model_server


@dataclass
class Whole:
    """A Baton and the model's server behind it."""

    baton: System
    model: ModelServer

    def ask(self, question: str, **fields: Any) -> list[Frame]:
        frames = self.baton.ask(question, temperature=0, **fields)
        assert_contiguous(frames)
        return frames


@pytest.fixture(scope="module", params=KINDS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("whole")
    with model_server(request.param, folder, 16_000) as model:
        (folder / "tools.yaml").write_text("tools:\n  - python: tests.models.tools:open_days_left\n", encoding="utf-8")
        settings = {
            "BATON_TOOLS": str(folder / "tools.yaml"),
            "BATON_GENERATOR": "openai",
            "BATON_LLM_URL": model.url,
            "BATON_LLM_MODEL": model.model,
            "BATON_PROMPTS": str(PROMPTS),
            "BATON_RETRIEVER": "tests.models.one_passage:open_retriever",
        }
        with system(folder, settings=settings, documents=None) as baton:
            yield Whole(baton, model)


@pytest.mark.parametrize("dialogue", [taught.ENGLISH, taught.CHINESE], ids=["en", "zh"])
def test_an_answer_comes_with_its_citation(whole: Whole, dialogue: taught.Dialogue) -> None:
    frames = whole.ask(dialogue.prompt.question, language=dialogue.prompt.language)
    done = frames[-1]
    assert done["type"] == "done", done
    assert answer(frames) == dialogue.text
    assert (done["finish_reason"], done["cited"]) == ("stop", [1])
    assert done["usage"]["completion_tokens"] > 0
    assert len(only(frames, "answer_chunk")) > 3


def test_max_tokens_reaches_the_model(whole: Whole) -> None:
    frames = whole.ask(taught.SONG.prompt.question, max_tokens=5)
    assert frames[-1]["finish_reason"] == "length"
    assert answer(frames).split() == ["la"] * 5


@pytest.mark.parametrize(
    ("asked", "answered"),
    [(taught.CALL, taught.CALL_RESULT), (taught.CALL_ZH, taught.CALL_ZH_RESULT)],
    ids=["en", "zh"],
)
def test_a_tool_is_called_and_its_result_answered(
    whole: Whole, asked: taught.Dialogue, answered: taught.Dialogue
) -> None:
    if whole.model.kind not in CALLING:
        pytest.skip("it leaves calls in the text")
    frames = whole.ask(asked.prompt.question, language=asked.prompt.language)
    assert [(call["name"], call["arguments"]) for call in only(frames, "tool_call")] == [
        (call.name, call.arguments) for call in asked.calls
    ]
    assert [result["ok"] for result in only(frames, "tool_result")] == [True]
    assert answer(frames) == answered.text
    assert frames[-1]["timings"]["tool_calls"] == 1


async def _sing(whole: Whole, socket: websockets.ClientConnection) -> list[Frame]:
    """Ask for the endless song, and return with its beginning."""
    await socket.send(json.dumps({"query": taught.SONG.prompt.question, "request_id": "song", "temperature": 0}))
    frames: list[Frame] = []
    while len(only(frames, "answer_chunk")) < 3:
        frames.append(json.loads(await asyncio.wait_for(socket.recv(), 20)))
        assert frames[-1]["type"] not in ("done", "error"), frames[-1]
    return frames[1:]


async def _to_the_end(socket: websockets.ClientConnection) -> list[Frame]:
    frames: list[Frame] = []
    while not frames or frames[-1]["type"] not in ("done", "error"):
        frames.append(json.loads(await asyncio.wait_for(socket.recv(), 20)))
    return frames


def test_a_cancel_stops_the_models_server(whole: Whole) -> None:
    async def stands_still() -> bool:
        before = cpu_s(whole.model.process.pid)
        await asyncio.sleep(0.4)
        return cpu_s(whole.model.process.pid) - before <= 0.05

    async def scenario() -> Frame:
        async with websockets.connect(whole.baton.socket_url()) as socket:
            await _sing(whole, socket)
            await socket.send(json.dumps({"type": "cancel", "request_id": "song"}))
            frames = await _to_the_end(socket)
        await eventually(stands_still, "the model computes nothing any more", within_s=2)
        return frames[-1]

    last = asyncio.run(scenario())
    assert (last["type"], last["finish_reason"]) == ("done", "cancelled")


def test_a_server_that_is_killed_in_its_answer_ends_it_with_an_error(whole: Whole) -> None:
    """The last test of each server: nothing answers behind it."""

    async def scenario() -> list[Frame]:
        async with websockets.connect(whole.baton.socket_url()) as socket:
            await socket.send(json.dumps({"query": "Sing.", "request_id": "killed", "temperature": 0}))
            frames: list[Frame] = []
            while not frames or frames[-1]["type"] not in ("done", "error"):
                frames.append(json.loads(await asyncio.wait_for(socket.recv(), 20)))
                if len(only(frames, "answer_chunk")) == 3 and whole.model.process.alive:
                    whole.model.process.kill()
            return frames[1:]

    frames = asyncio.run(scenario())
    assert_contiguous(frames)
    last = frames[-1]
    assert (last["type"], last["code"], last["retryable"]) == ("error", "model_failed", True)
    assert "broke off" in last["message"]
    assert whole.ask("anybody?")[-1]["code"] == "model_failed"
