"""The whole system with a language model behind it: a real OpenAI-compatible server with scripted answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets
import yaml

from tests.servers.llm import aimock
from tests.servers.processes import ROOT, free_port
from tests.system import System, answer, assert_contiguous, only, start_gateway, system, workers_alive

QUESTIONS: list[dict[str, Any]] = yaml.safe_load(
    (ROOT / "examples" / "hr_assistant" / "questions.yaml").read_text(encoding="utf-8")
)
IN_HANDBOOK = [entry for entry in QUESTIONS if entry.get("documents")]
CALLING = {"raise", "hang", "huge"}

TOOLS = """
tools:
  - python: tests.integration.misbehaving_tools:raising
  - python: tests.integration.misbehaving_tools:hanging
  - python: tests.integration.misbehaving_tools:huge
"""


def fixtures() -> list[dict[str, Any]]:
    scripted: list[dict[str, Any]] = [
        {
            "match": {"userMessage": "我还剩多少天年假", "hasToolResult": False},
            "response": {"toolCalls": [{"id": "call_a", "name": "leave_balance", "arguments": {}}]},
        },
        {"match": {"userMessage": "我还剩多少天年假"}, "response": {"content": "你还有 8.5 天年假。"}},
        {
            "match": {"userMessage": "please stall"},
            "response": {"content": "never"},
            "streamingProfile": {"ttft": 30_000},
        },
        {"match": {"userMessage": "please fail"}, "response": {"error": {"message": "no"}, "status": 500}},
        {
            "match": {"userMessage": "please do both", "hasToolResult": False},
            "response": {
                "content": "Let me look.",
                "toolCalls": [
                    {"id": "call_b", "name": "leave_balance", "arguments": {}},
                    {"id": "call_c", "name": "calculator", "arguments": {"expression": "6*7"}},
                ],
            },
        },
        {
            "match": {"userMessage": "please do both", "toolResultContains": "420"},
            "response": {"content": "You have 8.5 days, and it is 420."},
        },
        # The second round: the model has seen 42 and asks for more.
        {
            "match": {"userMessage": "please do both", "toolResultContains": "42"},
            "response": {"toolCalls": [{"id": "call_d", "name": "calculator", "arguments": {"expression": "42*10"}}]},
        },
        {
            "match": {"userMessage": "please think"},
            "response": {"reasoning": "Hmm, secret thoughts.", "content": "I thought about it."},
        },
        {
            "match": {"userMessage": "please break off"},
            "response": {"content": "This answer breaks off somewhere in the middle of it all, and is never whole."},
            "truncateAfterChunks": 3,
            "streamingProfile": {"ttft": 20, "tps": 50},
        },
        {
            "match": {"userMessage": "please be slow"},
            "response": {"content": "word " * 8_000},
            "streamingProfile": {"ttft": 20, "tps": 20},
        },
        {
            "match": {"userMessage": "please read everything", "sequenceIndex": 0},
            "response": {"error": {"message": "too long", "code": "context_length_exceeded"}, "status": 400},
        },
        {"match": {"userMessage": "please read everything"}, "response": {"content": "Now it fits. [1]"}},
    ]
    for name in sorted(CALLING):
        scripted += [
            {
                "match": {"userMessage": f"please {name}", "hasToolResult": False},
                "response": {"toolCalls": [{"id": f"call_{name}", "name": name, "arguments": {}}]},
            },
            {"match": {"userMessage": f"please {name}"}, "response": {"content": "That tool did not help."}},
        ]
    for entry in IN_HANDBOOK:
        content = f"According to the handbook: {'; '.join(entry['answer_contains'])} [1], and not [99]."
        scripted.append({"match": {"userMessage": entry["question"]}, "response": {"content": content}})
    return scripted


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("openai")
    (folder / "tools.yaml").write_text(TOOLS, encoding="utf-8")
    with aimock(folder / "llm", fixtures()) as url:
        settings = {
            "BATON_GENERATOR": "openai",
            "BATON_LLM_URL": url,
            "BATON_LLM_MODEL": "scripted",
            "BATON_LLM_FIRST_TOKEN_TIMEOUT_S": "8",
            "BATON_TOOLS": str(folder / "tools.yaml"),
            "BATON_TOOL_TIMEOUT_S": "5",
        }
        with system(folder, settings=settings) as one:
            yield one


@pytest.mark.parametrize("entry", IN_HANDBOOK, ids=lambda entry: entry["question"])
def test_a_model_answers_from_the_handbook(demo: System, entry: dict[str, Any]) -> None:
    frames = demo.ask(entry["question"])
    assert_contiguous(frames)
    assert frames[-1]["type"] == "done", frames[-1]
    text = answer(frames)
    assert all(expected in text for expected in entry["answer_contains"])
    assert "[99]" not in text
    assert frames[-1]["cited"] == [1]
    assert frames[-1]["usage"]["completion_tokens"] > 0


def test_a_model_calls_a_tool_and_goes_on_with_its_result(demo: System) -> None:
    frames = demo.ask("我还剩多少天年假?")
    assert_contiguous(frames)
    assert only(frames, "tool_call")[0]["name"] == "leave_balance"
    assert only(frames, "tool_result")[0]["ok"] is True
    assert answer(frames) == "你还有 8.5 天年假。"
    assert frames[-1]["timings"]["tool_calls"] == 1


def test_calls_side_by_side_and_a_second_round_lead_to_one_answer(demo: System) -> None:
    frames = demo.ask("please do both")
    assert_contiguous(frames)
    kinds = [frame["type"] for frame in frames]
    assert [frame["call_id"] for frame in only(frames, "tool_call")] == ["call_b", "call_c", "call_d"]
    assert all(frame["ok"] for frame in only(frames, "tool_result")), frames
    # Both calls of the first round are shown before either has a result.
    first = next(at for at, kind in enumerate(kinds) if kind == "tool_result")
    assert kinds[:first].count("tool_call") == 2
    assert answer(frames) == "Let me look.\n\nYou have 8.5 days, and it is 420."
    assert frames[-1]["timings"]["tool_calls"] == 3


@pytest.mark.parametrize(("language", "says"), [("en", "The model is thinking"), ("zh", "模型正在思考…")])
def test_a_model_that_thinks_is_told_of_and_its_thoughts_are_not(demo: System, language: str, says: str) -> None:
    frames = demo.ask("please think", language=language)
    statuses = [frame["content"] for frame in only(frames, "status") if frame["stage"] == "generating"]
    assert statuses[1:] == [says]
    assert answer(frames) == "I thought about it."
    assert "secret" not in str(frames)


def test_an_answer_whose_server_dies_in_the_middle_ends_with_an_error_after_its_text(demo: System) -> None:
    frames = demo.ask("please break off")
    assert_contiguous(frames)
    assert answer(frames).startswith("This")
    last = frames[-1]
    assert (last["type"], last["code"], last["retryable"]) == ("error", "model_failed", True)


def test_a_cancelled_answer_ends_at_once_with_what_was_said(demo: System) -> None:
    async def scenario() -> list[dict[str, Any]]:
        frames: list[dict[str, Any]] = []
        async with websockets.connect(demo.socket_url()) as socket, asyncio.timeout(60):
            await socket.send(json.dumps({"type": "query", "query": "please be slow", "request_id": "slow"}))
            while not frames or frames[-1]["type"] not in ("done", "error"):
                frames.append(json.loads(await socket.recv()))
                if len(only(frames, "answer_chunk")) == 3:
                    await socket.send(json.dumps({"type": "cancel", "request_id": "slow"}))
        return frames

    frames = asyncio.run(scenario())
    assert (frames[-1]["type"], frames[-1]["finish_reason"]) == ("done", "cancelled")
    assert answer(frames).split() == ["word"] * len(answer(frames).split())
    assert len(answer(frames).split()) < 2_000


def test_a_prompt_that_the_server_calls_too_long_is_sent_again_and_the_user_sees_only_an_answer(demo: System) -> None:
    frames = demo.ask("please read everything about annual leave")
    assert_contiguous(frames)
    assert frames[-1]["type"] == "done", frames[-1]
    assert answer(frames) == "Now it fits. [1]"


@pytest.mark.parametrize("name", sorted(CALLING))
def test_a_tool_that_misbehaves_harms_only_its_own_call(demo: System, name: str) -> None:
    frames = demo.ask(f"please {name}")
    assert_contiguous(frames)
    result = only(frames, "tool_result")[0]
    assert len(result["content"]) <= 8_100
    assert "secret" not in result["content"]
    assert result["ok"] is (name == "huge")
    assert frames[-1]["type"] == "done"
    assert answer(frames) == "That tool did not help."


def test_a_model_that_stalls_is_named_in_the_error(demo: System) -> None:
    last = demo.ask("please stall")[-1]
    assert (last["type"], last["code"]) == ("error", "model_stalled")


def test_a_model_that_fails_is_named_in_the_error(demo: System) -> None:
    last = demo.ask("please fail")[-1]
    assert (last["type"], last["code"], last["retryable"]) == ("error", "model_failed", True)


def test_a_model_server_that_is_down_is_named_in_the_error(tmp_path: Path) -> None:
    settings = {
        "BATON_GENERATOR": "openai",
        "BATON_LLM_URL": f"http://127.0.0.1:{free_port()}/v1",
        "BATON_LLM_MODEL": "none",
    }
    with system(tmp_path, settings=settings, documents=None) as one:
        last = one.ask("anybody?")[-1]
        assert (last["type"], last["code"]) == ("error", "model_failed")
        assert "Traceback" not in last["message"]
        one.milvus.process.kill()
        last = one.ask("anybody?")[-1]
        assert (last["type"], last["code"], last["retryable"]) == ("error", "retrieval_failed", True)


def test_a_stage_without_workers_is_named_within_ten_seconds(tmp_path: Path) -> None:
    with system(tmp_path, replicas={"generator": 0}, documents=None) as one:
        frames = one.ask("anybody?")
        assert_contiguous(frames)
        last = frames[-1]
        assert (last["type"], last["code"], last["retryable"]) == ("error", "no_worker", True)
        assert "generate" in last["message"]
        with start_gateway(one, 9) as port:
            assert "generate" not in workers_alive(port)
