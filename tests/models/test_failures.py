"""Servers that are killed in the middle of an answer, and questions that are longer than the model's context."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from services.common.errors import ServiceError
from services.common.llm import errors
from services.generator.port import Event, Finish, Text
from tests.servers.processes import eventually

from . import dialogues as taught
from .asking import ask, end, generator, prompt_of, text
from .servers import KINDS, MODELS, ModelServer, model_server

RECORDED = Path(__file__).parents[1] / "unit" / "recorded_llm_answers.json"
"""What these servers said when they refused; `errors.py` is tested with it."""
TOO_LONG = [{"role": "user", "content": "one two three four five. " * 900}]


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_is_killed_in_its_answer_is_a_retryable_failure(kind: str, tmp_path: Path) -> None:
    async def scenario(server: ModelServer) -> None:
        async with generator(server) as one, aclosing(one.generate(prompt_of(taught.SONG))) as events:
            said = 0
            async for event in events:
                assert isinstance(event, Text)
                said += 1
                if said == 3:
                    server.process.kill()

    with model_server(kind, tmp_path, 16_000) as server, pytest.raises(ServiceError) as caught:
        asyncio.run(scenario(server))
    assert (caught.value.code, caught.value.retryable) == ("model_failed", True)
    assert "broke off" in caught.value.message


def answer_to(server: ModelServer, messages: list[dict[str, Any]]) -> tuple[int, str]:
    body = {"model": server.model, "messages": messages, "stream": True}
    answer = httpx.post(f"{server.url}/chat/completions", json=body, timeout=60)
    return answer.status_code, answer.text


def test_llama_server_says_that_a_question_is_too_long(tmp_path: Path) -> None:
    recorded = next(one for one in json.loads(RECORDED.read_text(encoding="utf-8")) if one["case"] == "too long")
    with model_server("llama-server", tmp_path, 512) as server:
        status, said = answer_to(server, TOO_LONG)
    assert (status, json.loads(said)["error"].keys()) == (recorded["status"], recorded["body"]["error"].keys())
    failure = errors.http_failure(status, said, None)
    assert isinstance(failure, errors.ContextOverflow)
    assert failure.limit == 512


def test_a_prompt_that_is_too_long_for_llama_server_is_asked_again_with_less(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    much = [msgspec.structs.replace(taught.PASSAGE, n=n, id=f"p{n}", text="one two three. " * 100) for n in range(2, 9)]
    with model_server("llama-server", tmp_path, 512) as server, caplog.at_level(logging.WARNING):
        events = asyncio.run(ask(server, taught.ENGLISH, passages=[taught.PASSAGE, *much]))
    assert "asked again" in caplog.text
    assert isinstance(end(events), Finish)
    assert 0 < end(events).usage.prompt_tokens < 512


def test_llama_cpp_python_ends_a_question_that_is_too_long_without_a_word(tmp_path: Path) -> None:
    """It fails behind the head of its answer. Baton cannot know why, tries again and reports a failure."""
    with model_server("llama-cpp-python", tmp_path, 512) as server:
        assert answer_to(server, TOO_LONG) == (200, "")


def test_transformers_reads_more_than_its_model_was_made_for(tmp_path: Path) -> None:
    """So nobody is told that an answer is worth nothing: BATON_PROMPT_TOKENS has to be right."""
    made_for = 16
    shutil.copytree(MODELS / "hf", tmp_path / "hf")
    config = tmp_path / "hf" / "config.json"
    values = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**values, "max_position_embeddings": made_for}), encoding="utf-8")
    with model_server("transformers", tmp_path, made_for, tmp_path / "hf") as server:
        status, said = answer_to(server, taught.taught(taught.ENGLISH, tools=False)["messages"])
    assert status == 200
    usage = json.loads(said.strip().splitlines()[-1].removeprefix("data: "))["usage"]
    assert usage["prompt_tokens"] > made_for


def test_llama_cpp_python_cuts_an_answer_for_the_next_question_unless_told_not_to(tmp_path: Path) -> None:
    """And ends it as if it were complete, so nobody can tell: start it with `--interrupt_requests false`."""

    async def scenario(server: ModelServer) -> list[Event]:
        song = asyncio.create_task(ask(server, taught.SONG))
        await asyncio.sleep(0)
        await eventually(lambda: "POST" in server.process.text(), "the song has begun")
        assert text(await ask(server, taught.ENGLISH)) == taught.ENGLISH.text
        return await asyncio.wait_for(song, 20)

    with model_server("llama-cpp-python", tmp_path, 16_000, options=["--interrupt_requests", "true"]) as server:
        events = asyncio.run(scenario(server))
    assert text(events).startswith("la la")
    assert end(events).reason == "stop"
