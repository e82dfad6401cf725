"""A language model as judge: faithfulness and answer relevance, as RAGAS defines them.

Es, James, Espinosa-Anke, Schockaert: RAGAS, Automated Evaluation of Retrieval Augmented Generation (2023),
https://arxiv.org/abs/2309.15217, and https://docs.ragas.io. Faithfulness: the statements of the answer that follow from
the sources, by all its statements. Answer relevance: the mean cosine similarity between the question and questions that
the model made up from the answer alone; 0 where the model calls the answer noncommittal.

A reply that cannot be read is asked for once more, and then counts as a failure of the judge: such a question has no
value, and the report says how many there are.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from services.common.config import JudgeSettings, LlmSettings
from services.common.errors import ServiceError
from services.common.llm.server import ChatServer
from services.common.llm.stream import ChatTurn
from services.retriever.embedding import Embedder

from .measures import Answered, known_text
from .texts import without_marks

PROMPTS = Path(__file__).with_name("prompts")
FAITHFULNESS, RELEVANCE = "faithfulness", "answer_relevance"
QUESTIONS = 3
MAX_STATEMENTS = 50
TRIES = 2
T = TypeVar("T")
log = logging.getLogger(__name__)
_LIST = re.compile(r"\[.*\]", re.S)
_OBJECT = re.compile(r"\{.*\}", re.S)


class BadReply(ValueError):
    """The judge's reply is not what it was asked for."""


@dataclass(slots=True)
class Judge:
    """Asks `server`. `failures` counts the judgements that could not be had, by measure; `asked` those wanted."""

    server: ChatServer
    model: str
    embedder: Embedder | None
    at_once: int = 4
    asked: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)

    async def judge(self, answers: Sequence[Answered]) -> None:
        """Set `faithfulness` and, with an embedder, `answer_relevance` of every answer that is one."""
        places = asyncio.Semaphore(self.at_once)

        async def one(answered: Answered) -> None:
            async with places:
                await self._one(answered)

        for answered in answers:
            answered.values[FAITHFULNESS] = answered.values[RELEVANCE] = None
        await asyncio.gather(*(one(answered) for answered in answers if not answered.failed and answered.answer))

    def told(self) -> dict[str, Any]:
        """For the record."""
        return {
            "model": self.model,
            "prompts": prompt_digests(),
            "asked": dict(self.asked),
            "failures": dict(self.failures),
            "relevance": "measured" if self.embedder else "not measured: no embedder is configured (BATON_EMBEDDER)",
        }

    async def _one(self, answered: Answered) -> None:
        if not answered.abstained and not answered.tool_calls:  # what tools have said is in no source
            await self._counted(FAITHFULNESS, answered, self._faithfulness(answered))
        if self.embedder is not None:
            await self._counted(RELEVANCE, answered, self._relevance(answered, self.embedder))

    async def _counted(self, measure: str, answered: Answered, judging: Awaitable[float | None]) -> None:
        self.asked[measure] = self.asked.get(measure, 0) + 1
        try:
            answered.values[measure] = await judging
        except Exception as error:  # whatever it is: the other judgements, an hour's work, are not lost to it
            if not isinstance(error, (BadReply, ServiceError)):
                log.exception("judging %s failed", answered.id)
            self.failures[measure] = self.failures.get(measure, 0) + 1
            answered.judge[f"{measure}_failed"] = str(error) or type(error).__name__

    async def _faithfulness(self, answered: Answered) -> float | None:
        answer = without_marks(answered.answer)
        statements = await self._list(_prompt("claims", question=answered.question, answer=answer), str)
        statements = statements[:MAX_STATEMENTS]
        if not statements:
            return None
        sources = "\n\n".join(f"[{source['n']}] {source['title']}\n{known_text(source)}" for source in answered.sources)
        numbered = "\n".join(f"{number}. {text}" for number, text in enumerate(statements, 1))
        prompt = _prompt("support", sources=sources or "(none)", statements=numbered)
        supported = await self._list(prompt, bool, len(statements))
        answered.judge["statements"] = [
            {"text": text, "supported": ok} for text, ok in zip(statements, supported, strict=True)
        ]
        return float(sum(supported) / len(supported))

    async def _relevance(self, answered: Answered, embedder: Embedder) -> float:
        prompt = _prompt("question", count=QUESTIONS, answer=without_marks(answered.answer))
        questions, noncommittal = await self._questions(prompt)
        answered.judge["questions"] = questions
        if noncommittal:
            return 0.0
        asked, *made = await embedder.embed([answered.question, *questions])
        return sum(cosine(asked, one) for one in made) / len(made)

    async def _list(self, prompt: str, kind: type, length: int | None = None) -> list[Any]:
        def read(reply: str) -> list[Any]:
            value = _parsed(_LIST, reply)
            if not isinstance(value, list) or not all(isinstance(one, kind) for one in value):
                raise BadReply(f"expected a list of {kind.__name__}, not {reply[:200]!r}")
            if length is not None and len(value) != length:
                raise BadReply(f"{len(value)} verdicts on {length} statements")
            return value

        return await self._read(prompt, read)

    async def _questions(self, prompt: str) -> tuple[list[str], bool]:
        def read(reply: str) -> tuple[list[str], bool]:
            value = _parsed(_OBJECT, reply)
            questions = value.get("questions") if isinstance(value, dict) else None
            if not isinstance(questions, list) or not all(isinstance(one, str) and one for one in questions):
                raise BadReply(f"expected an object with `questions`, not {reply[:200]!r}")
            if not questions and not value.get("noncommittal"):
                raise BadReply("no question")
            return questions[:QUESTIONS], bool(value.get("noncommittal"))

        return await self._read(prompt, read)

    async def _read(self, prompt: str, read: Callable[[str], T]) -> T:
        for left in reversed(range(TRIES)):
            try:
                return read(await self._say(prompt))
            except BadReply:
                if not left:
                    raise
        raise AssertionError("unreachable")

    async def _say(self, prompt: str) -> str:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "stream": True,
            "temperature": 0,
            "seed": 1,
        }
        body = {name: value for name, value in body.items() if name not in self.server.refused}
        return "".join([piece async for piece in self.server.stream(body) if not isinstance(piece, ChatTurn)])


@asynccontextmanager
async def open_judge(settings: JudgeSettings, embedder: Embedder | None, at_once: int = 4) -> AsyncIterator[Judge]:
    """The judge that BATON_JUDGE_URL and BATON_JUDGE_MODEL name."""
    llm = LlmSettings(
        llm_url=settings.judge_url,
        llm_model=settings.judge_model,
        llm_api_key=settings.judge_api_key,
        first_token_timeout_s=settings.judge_timeout_s,
        token_timeout_s=settings.judge_timeout_s,
    )
    async with httpx.AsyncClient(timeout=httpx.Timeout(None, connect=10.0)) as client:
        yield Judge(ChatServer(client, llm), settings.judge_model, embedder, at_once)


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    lengths = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0


def prompt_digests() -> dict[str, str]:
    """The prompts by file name, with the beginning of their SHA-256."""
    files = sorted(PROMPTS.glob("*.md"))
    return {file.stem: hashlib.sha256(file.read_bytes()).hexdigest()[:12] for file in files}


def _prompt(name: str, **fields: Any) -> str:
    return (PROMPTS / f"{name}.v1.md").read_text(encoding="utf-8").format(**fields)


def _parsed(pattern: re.Pattern[str], reply: str) -> Any:
    """The JSON in a reply, also where a model puts words or a code fence around it."""
    found = pattern.search(reply)
    try:
        return json.loads(found[0]) if found else None
    except (ValueError, RecursionError):
        raise BadReply(f"not JSON: {reply[:200]!r}") from None
