"""What Baton adds to a language model: time to the first token, and CPU per token. Part of `make bench`.

1. The time from a question to the first piece of the answer, through Baton and from the same model's server directly,
   taking turns in one run. All stages are real processes, queues and logs; only the search itself is left out: the
   retriever finds the same passages at once (instant_retriever.py). The frames on the way tell where it goes.
2. The CPU of gateway and generator per token, many answers at once (Linux: read from /proc), against a bare loop that
   reads the same answers from the model's server.
3. The CPU of the client code alone (services/common/llm) per token, against a bare loop on the same HTTP client:
   `aiter_lines` and `json.loads`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.instant_retriever import PASSAGES
from bench.sockets import Frame, Socket, connect
from bench.usage import cpu_s
from services.common.config import LlmSettings
from services.common.llm.server import ChatServer
from services.generator.port import Prompt
from services.generator.prompting import load_prompts
from tests.servers.fast_llm import fast_llm
from tests.system import System, system

QUESTION = "How many days of annual leave can I carry over?"
LIMIT_MS = 15.0
"""What Baton may add before the first token, at the median."""
BARE = "httpx aiter_lines + json.loads (baseline)"
MILESTONES = ("accepted", "understanding", "sources", "generating", "answer_chunk")


def request() -> dict[str, Any]:
    """What the generator sends for `QUESTION`, for those who ask the model's server directly."""
    messages = load_prompts("").messages(Prompt(QUESTION, "en", PASSAGES, standalone=QUESTION))
    return {"model": "m", "messages": messages, "stream": True, "stream_options": {"include_usage": True}}


async def plain_stream(client: httpx.AsyncClient, url: str) -> AsyncIterator[str]:
    """The pieces of one answer with as little code as that takes."""
    async with client.stream("POST", f"{url}/chat/completions", json=request()) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                choices = json.loads(line[6:])["choices"]
                if choices and (text := choices[0]["delta"].get("content")):
                    yield text


async def baton_stream(server: ChatServer) -> AsyncIterator[str]:
    async with contextlib.aclosing(server.stream(request())) as pieces:
        async for piece in pieces:
            if isinstance(piece, str):
                yield piece


# --- time to the first token ------------------------------------------------------------------------------------------


@dataclass
class Question:
    """One question over one connection: when its frames came, in seconds since it was asked."""

    asked: float = 0.0
    came: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    wrong: str = ""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def receive(self, _: Socket, frame: Frame, now: float) -> None:
        if frame.seq < 0:
            return
        self.came.setdefault(frame.stage or frame.type, now - self.asked)
        if frame.type == "answer_chunk":
            self.tokens += frame.content.count("word")
        if frame.type in ("done", "error"):
            self.wrong = frame.code
            self.over.set()

    async def ask(self, socket: Socket) -> None:
        self.asked = time.perf_counter()
        socket.send({"query": QUESTION, "request_id": secrets.token_hex(8), "language": "en"})
        try:
            async with asyncio.timeout(60):
                await self.over.wait()
        except TimeoutError:
            raise TimeoutError(f"no end within a minute; frames so far, and when they came: {self.came}") from None
        assert not self.wrong, self.wrong


async def through_baton(port: int) -> dict[str, float]:
    """One question on a connection that is open already."""
    question = Question()
    socket = await connect(port, question.receive)
    await question.ask(socket)
    socket.close()
    return question.came


async def directly(client: httpx.AsyncClient, url: str) -> float:
    asked = time.perf_counter()
    first = 0.0
    async for _ in plain_stream(client, url):
        first = first or time.perf_counter() - asked
    return first


async def first_tokens(one: System, llm_url: str, requests: int, pause_s: float) -> float:
    """Print the comparison; returns what Baton adds at the median, in milliseconds."""
    direct: list[float] = []
    baton: list[dict[str, float]] = []
    async with httpx.AsyncClient() as client:
        for _ in range(5):  # everything is warm then
            await directly(client, llm_url)
            await through_baton(one.gateways[0])
        for _ in range(requests):
            await asyncio.sleep(pause_s)
            direct.append(await directly(client, llm_url))
            await asyncio.sleep(pause_s)
            baton.append(await through_baton(one.gateways[0]))
    firsts = [came["answer_chunk"] for came in baton]
    print(f"time to the first token, {requests} questions each way, one after the other, the search left out\n")
    print(f"{'':40}{'p50 ms':>9}{'p95 ms':>9}")
    asked, through = _row("the model's server directly (baseline)", direct), _row("through Baton", firsts)
    print(f"{'ratio':40}{through[0] / asked[0]:9.2f}{through[1] / asked[1]:9.2f}")
    added = _row("added by Baton", [ours - theirs for ours, theirs in zip(firsts, direct, strict=True)])
    print(f"{'':40}(at most {LIMIT_MS:g} ms at the median are wanted)\n\nhow long until")
    for name in MILESTONES:
        _row(f"  {name}", [came[name] for came in baton])
    return added[0]


def _row(name: str, seconds: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(seconds, n=20)
    p50, p95 = statistics.median(seconds) * 1e3, cuts[18] * 1e3
    print(f"{name:40}{p50:9.2f}{p95:9.2f}")
    return p50, p95


# --- CPU per token ----------------------------------------------------------------------------------------------------


async def system_cpu(one: System, llm_url: str, answers: int, tokens: int) -> dict[str, float]:
    """Print and return the CPU of each service in microseconds per token, many answers at once."""
    pids = {name: one.processes[name][0].pid for name in ("gateway", "generator")}
    questions = [Question() for _ in range(answers)]
    sockets = [await connect(one.gateways[0], question.receive) for question in questions]
    before = {name: cpu_s(pid) for name, pid in pids.items()}
    await asyncio.gather(*(question.ask(socket) for question, socket in zip(questions, sockets, strict=True)))
    used = {name: cpu_s(pid) - before[name] for name, pid in pids.items()}
    for socket in sockets:
        socket.close()
    arrived = sum(question.tokens for question in questions)
    assert arrived == answers * tokens, f"{arrived} of {answers * tokens} tokens arrived"
    per_token = {name: seconds / arrived * 1e6 for name, seconds in used.items()}
    async with httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=answers)) as client:
        cpu = time.process_time()
        read = await asyncio.gather(*(_count(plain_stream(client, llm_url)) for _ in range(answers)))
        bare = (time.process_time() - cpu) / sum(read) * 1e6
    both = sum(per_token.values())
    print(f"CPU per token, {answers} answers at once, {tokens} tokens each\n")
    for name, microseconds in [(BARE, bare), *per_token.items(), ("both", both)]:
        print(f"{name:45}{microseconds:9.1f} us")
    print(f"{'ratio':45}{both / bare:9.2f}")
    return per_token


async def client_cpu(llm_url: str, tokens: int, runs: int) -> float:
    """Print the CPU of the client code alone; returns its ratio to the baseline's, the median of pairs of runs."""
    results: dict[str, list[float]] = {BARE: [], "services/common/llm": []}
    timeout = httpx.Timeout(None, connect=5.0)
    async with httpx.AsyncClient(timeout=timeout) as client:
        server = ChatServer(client, LlmSettings(llm_url=llm_url, llm_model="m"))
        streams: list[Callable[[], AsyncIterator[str]]] = [
            lambda: plain_stream(client, llm_url),
            lambda: baton_stream(server),
        ]
        await asyncio.gather(*(_count(open_stream()) for open_stream in streams))  # everything is warm then
        for _ in range(runs):
            for taken, open_stream in zip(results.values(), streams, strict=True):
                cpu = time.process_time()
                assert await _count(open_stream()) == tokens
                taken.append((time.process_time() - cpu) / tokens * 1e6)
    print(f"CPU per token of the client code alone, {runs} answers of {tokens} tokens each\n")
    for name, taken in results.items():
        print(f"{name:45}{statistics.median(taken):9.1f} us")
    bare, ours = results.values()
    ratio = statistics.median(one / other for one, other in zip(ours, bare, strict=True))
    print(f"{'ratio':45}{ratio:9.2f}")
    return ratio


async def _count(pieces: AsyncIterator[str]) -> int:
    return sum([1 async for _ in pieces])


# --- both together ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def baton(folder: Path, llm_url: str) -> Iterator[System]:
    settings = {
        "BATON_GENERATOR": "openai",
        "BATON_LLM_URL": llm_url,
        "BATON_LLM_MODEL": "m",
        "BATON_RETRIEVER": "bench.instant_retriever:open_retriever",
    }
    with system(folder, settings=settings, documents=None) as one:
        yield one


def measured(every_s: float, tokens: int, measure: Callable[[System, str], Coroutine[Any, Any, Any]]) -> Any:
    """A measurement on a whole system, whose model gives answers of so many tokens."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        llm = stack.enter_context(fast_llm(folder, every_s, tokens))
        one = stack.enter_context(baton(folder, llm.url))
        return asyncio.run(measure(one, llm.url))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between two questions")
    parser.add_argument("--answers", type=int, default=20, help="at once, where CPU per token is measured")
    parser.add_argument("--tokens", type=int, default=300, help="of these answers")
    parser.add_argument("--runs", type=int, default=7, help="of the client code alone")
    args = parser.parse_args()
    measured(0.005, 5, lambda one, url: first_tokens(one, url, args.requests, args.pause))
    print()
    measured(0.05, args.tokens, lambda one, url: system_cpu(one, url, args.answers, args.tokens))
    print()
    with tempfile.TemporaryDirectory() as folder, fast_llm(Path(folder), 0.001, 1_000) as llm:
        asyncio.run(client_cpu(llm.url, 1_000, args.runs))


if __name__ == "__main__":
    main()
