"""Follow-ups made to stand alone by a language model, and by the rule where the model fails or writes nonsense."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from baton_proto.messages import Language, PastTurn
from services.common.errors import ServiceError
from services.common.llm.server import ChatServer

from .port import Rewriter

MAX_TOKENS = 160
MAX_CHARS = 400
REST_S = 10.0
"""How long a server that failed is left alone: no follow-up after the first one waits for it."""
_MAX_TURNS = 4
_MAX_QUESTION_CHARS = 400
_MAX_ANSWER_CHARS = 600
_PROMPTS = Path(__file__).parent.parent / "prompts"

_CHINESE = re.compile(r"[\u3400-\u9fff]")
_WORD = re.compile(r"[a-z0-9]{3,}|[\u3400-\u9fff]{2}", re.IGNORECASE)
_PAIR = re.compile(r"(?=([\u3400-\u9fff]{2}))")
_LABEL = re.compile(
    r"^(?:(?:the )?(?:stand-?alone|rewritten|search)? ?(?:question|query)|改写后的问题|独立问题|改写|问题)\s*[:：]\s*",
    re.IGNORECASE,
)
_QUOTES = "\"'“”‘’`「」*"
_SENTENCE = re.compile(r"[。！？]|[.!?](?=\s|$)")
_UNFIT = re.compile(
    r"[\x00-\x1f\x7f]|\[\d+\]|```|<[a-z/|]|^(?:i'm |i am |sorry|as an ai|sure[,!]|抱歉|对不起|好的[，,]|作为)",
    re.IGNORECASE,
)

log = logging.getLogger(__name__)


class ModelRewriter:
    """
    Args:
        fallback: what is used where the model fails.
        timeout_s: seconds that the model may take.
        fields: further fields of each request, such as those that keep a model from thinking first.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        server: ChatServer,
        model: str,
        fallback: Rewriter,
        timeout_s: float,
        fields: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._model = model
        self._fallback = fallback
        self._timeout_s = timeout_s
        self._fields = dict(fields or {})
        self._clock = clock
        self._rests_until = 0.0
        self._prompts = load_prompts()

    async def rewrite(self, question: str, history: Sequence[PastTurn], language: Language) -> str:
        if not question.strip() or not history:
            return question
        said = await self._asked(question, history, language) if self._clock() >= self._rests_until else None
        if said is None:
            return await self._fallback.rewrite(question, history, language)
        fitting = checked(said, question, history)
        if fitting is None:
            log.warning("the model's question is no use (%d characters); the rule makes one", len(said))
            return await self._fallback.rewrite(question, history, language)
        return fitting

    async def _asked(self, question: str, history: Sequence[PastTurn], language: Language) -> str | None:
        """What the model wrote; None where it wrote nothing in time."""
        parts: list[str] = []
        try:
            async with asyncio.timeout(self._timeout_s):
                async with aclosing(self._server.stream(self._body(question, history, language))) as pieces:
                    async for piece in pieces:
                        if isinstance(piece, str):
                            parts.append(piece)
                        if sum(map(len, parts)) > 2 * MAX_CHARS:
                            break
        except TimeoutError:
            reason = f"it has not answered within {self._timeout_s:g} s"
        except ServiceError as error:
            reason = str(error)
        else:
            return "".join(parts)
        log.warning("the rule rewrites for %g s, because the model failed: %s", REST_S, reason)
        self._rests_until = self._clock() + REST_S
        return None

    def _body(self, question: str, history: Sequence[PastTurn], language: Language) -> dict[str, Any]:
        refused = self._server.refused
        body: dict[str, Any] = {
            **self._fields,
            "model": self._model,
            "messages": [
                {"role": "system", "content": self._prompts[language]},
                {"role": "user", "content": _conversation(question, history)},
            ],
            "stream": True,
            "temperature": 0,
        }
        body["max_completion_tokens" if "max_tokens" in refused else "max_tokens"] = MAX_TOKENS
        return {name: value for name, value in body.items() if name not in refused}


def load_prompts() -> Mapping[Language, str]:
    languages: tuple[Language, ...] = ("zh", "en")
    return {
        language: (_PROMPTS / language / "rewrite.md").read_text(encoding="utf-8").strip() for language in languages
    }


def checked(said: str, question: str, history: Sequence[PastTurn]) -> str | None:
    """The model's question; None where it is none: several lines, far too long, an answer, in another language, or
    about nothing that has been said."""
    lines = [line for line in said.strip().splitlines() if line.strip()]
    if len(lines) != 1:
        return None
    text = _LABEL.sub("", lines[0].strip().strip(_QUOTES)).strip().strip(_QUOTES).strip()
    if not text or len(text) > max(MAX_CHARS, len(question)) or _UNFIT.search(text):
        return None
    if len(_SENTENCE.findall(text)) > max(2, len(_SENTENCE.findall(question))):
        return None
    if bool(_CHINESE.search(text)) != bool(_CHINESE.search(question)) and not _mixed(question, history):
        return None
    known = _words(question).union(*(_words(f"{turn.query} {turn.standalone}") for turn in history))
    return text if _words(text) & known else None


def _mixed(question: str, history: Sequence[PastTurn]) -> bool:
    """Whether the conversation uses both scripts, so that either is right."""
    texts = [question, *(turn.query for turn in history)]
    return len({bool(_CHINESE.search(text)) for text in texts}) > 1


def _words(text: str) -> set[str]:
    pairs = {found[1] for found in _PAIR.finditer(text)}
    return pairs | {found[0].lower() for found in _WORD.finditer(text) if found[0].isascii()}


def _conversation(question: str, history: Sequence[PastTurn]) -> str:
    """The questions of the last turns and the last answer, fenced as data, then the question."""
    turns = history[-_MAX_TURNS:]
    parts = ["<conversation>"]
    parts += [f"<asked>{_inside(turn.standalone or turn.query, _MAX_QUESTION_CHARS)}</asked>" for turn in turns]
    if turns[-1].answer.strip():
        parts.append(f"<answered>{_inside(turns[-1].answer, _MAX_ANSWER_CHARS)}</answered>")
    parts += ["</conversation>", f"<question>{_inside(question, 8 * _MAX_QUESTION_CHARS)}</question>"]
    return "\n".join(parts)


def _inside(text: str, most: int) -> str:
    """Text that cannot end its fence."""
    text = " ".join(text.split())
    text = text if len(text) <= most else text[: most - 1] + "…"
    return text.replace("<", "&lt;").replace(">", "&gt;")
