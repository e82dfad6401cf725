"""A generator with a language model behind it is killed in the middle of an answer, and another one takes over."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import websockets

from tests.golden import previous
from tests.servers.llm import ContinuingLLM, continuing_llm
from tests.servers.processes import ROOT, wait_until
from tests.system import Frame, System, answer, assert_contiguous, only, start, system, workers_alive

QUESTION = "公司年假政策有哪些?"
FIRST = "The handbook says [1] that you can carry over [99] at most five days, in words: " + " ".join(
    f"word{number} [{1 + number % 2}]" for number in range(40)
)
SECOND = FIRST.replace("The handbook says", "According to the handbook [2] it is so")
SHOWN = FIRST.replace(" [99]", "")
MIDDLE = 50
"""Words of the first answer after which it does not go on before its generator is killed."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system without generators; each test brings its own."""
    settings = {"BATON_ACK_WAIT_S": "2"}
    with system(tmp_path_factory.mktemp("failover"), replicas={"generator": 0}, settings=settings) as one:
        yield one


_NUMBERS = itertools.count()


def current() -> Path:
    return ROOT


async def _killed_in_the_middle(
    one: System, llm: ContinuingLLM, way: str, first_in: Path = ROOT, second_in: Path = ROOT
) -> list[Frame]:
    """The frames of an answer that one generator begins and another ends; the folders have their sources."""
    settings = {
        "BATON_GENERATOR": "openai",
        "BATON_LLM_URL": llm.url,
        "BATON_LLM_MODEL": "m",
        "BATON_LLM_CONTINUE": way,
    }
    frames: list[Frame] = []
    number = 2 * next(_NUMBERS)
    with start(one, "generator", number, first_in, **settings) as first:
        wait_until(lambda: "serving generate" in first.text(), "the first generator serves")
        # It says so before it is heard of, and a gateway refuses questions when the last generator it knew of has gone.
        wait_until(lambda: workers_alive(one.gateways[0]).get("generate"), "the gateway has heard of it")
        async with websockets.connect(one.socket_url()) as socket, asyncio.timeout(100):
            await socket.send(json.dumps({"query": QUESTION}))
            while len(answer(frames).split()) < 15:
                frames.append(json.loads(await socket.recv()))
                assert frames[-1]["type"] != "error", frames[-1]
            first.kill()
            llm.go_on.set()
            with start(one, "generator", number + 1, second_in, **settings):
                while frames[-1]["type"] not in ("done", "error"):
                    frames.append(json.loads(await socket.recv()))
    return [frame for frame in frames if frame["type"] != "hello"]


def _cited(frames: list[Frame]) -> list[str]:
    text = answer(frames)
    return [text[at["start"] : at["end"]] for at in frames[-1]["citations"]]


@pytest.mark.parametrize(("first", "second"), [(current, current), (previous, current), (current, previous)])
def test_the_answer_goes_on_where_the_server_can_continue_it(
    demo: System, first: Callable[[], Path], second: Callable[[], Path]
) -> None:
    with continuing_llm(FIRST, SECOND, pause_s=0.03, stops_at=MIDDLE) as llm:
        frames = asyncio.run(_killed_in_the_middle(demo, llm, "vllm", first(), second()))
    assert_contiguous(frames)
    assert frames[-1]["type"] == "done", frames[-1]
    assert only(frames, "answer_reset") == []
    assert answer(frames) == SHOWN
    assert llm.begun == 1
    assert _cited(frames) == [f"[{n}]" for n in [1, *(1 + number % 2 for number in range(40))]]
    assert frames[-1]["cited"] == [1, 2]
    words = len(FIRST.split())
    assert words / 2 < frames[-1]["usage"]["completion_tokens"] < words * 3
    assert frames[-1]["timings"]["generation_ms"] > 30 * words


@pytest.mark.parametrize("way", ["off", "prefix"])
def test_the_answer_starts_again_once_where_the_server_cannot(demo: System, way: str) -> None:
    with continuing_llm(FIRST, SECOND, pause_s=0.03, stops_at=MIDDLE, way="vllm") as llm:
        frames = asyncio.run(_killed_in_the_middle(demo, llm, way))
    assert_contiguous(frames)
    assert frames[-1]["type"] == "done", frames[-1]
    assert len(only(frames, "answer_reset")) == 1
    assert answer(frames) == SECOND.replace(" [99]", "")
    assert llm.begun == 2
    assert _cited(frames) == [f"[{n}]" for n in [2, 1, *(1 + number % 2 for number in range(40))]]
