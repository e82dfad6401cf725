"""A prompt as chat messages, built without I/O from prompt files that are read once, at start."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baton_proto.messages import Language, Passage, PastTurn, ToolSpec, ToolTurn
from services.common.settings import SettingsError

from .data_text import as_attribute, as_data, as_result, harmless
from .port import Prompt

PROMPT_VERSION = "v2"
LANGUAGES: tuple[Language, ...] = ("zh", "en")
FILES = {
    "system": frozenset[str](),
    "question": frozenset({"passages", "question"}),
    "no_passages": frozenset[str](),
    "repeated": frozenset[str](),
}
"""The files of each language, `<language>/<name>.md`, and the `{{fields}}` that each must hold."""

_FIELD = re.compile(r"\{\{(\w+)\}\}")
_MAX_FILE_CHARS = 100_000

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompt files, by language and name."""

    texts: Mapping[Language, Mapping[str, str]]

    @property
    def fingerprint(self) -> str:
        """Changes with any of the texts, and with how they are put together."""
        texts = json.dumps({language: dict(self.texts[language]) for language in sorted(self.texts)}, sort_keys=True)
        return hashlib.sha256(f"{PROMPT_VERSION}\n{texts}".encode()).hexdigest()[:12]

    def messages(self, prompt: Prompt) -> list[Message]:
        """System prompt, earlier turns, the question with its passages, and the turns with tools that are over.

        The system prompt comes first and never changes, so that servers can reuse what they computed for it. Passages
        that a tool call has found stand with its result and not with the question.
        """
        texts = self.texts[prompt.language]
        shown = _Shown(prompt, texts["repeated"].strip())
        passages = fenced(shown.first) if shown.first else texts["no_passages"].strip()
        question = _fill(texts["question"], {"passages": passages, "question": harmless(prompt.question)})
        messages: list[Message] = [{"role": "system", "content": texts["system"].strip()}]
        for past in prompt.history:
            messages.extend(past_messages(past))
        messages.append({"role": "user", "content": question.strip()})
        for turn in prompt.turns:
            messages.extend(turn_messages(turn, shown))
        return messages


class _Shown:
    """Where each passage of a prompt is shown: with the question, or with the first call that has found it.

    Args:
        repeated: what stands in the place of a passage that was shown before.
    """

    def __init__(self, prompt: Prompt, repeated: str) -> None:
        self._passages = {passage.n: passage for passage in prompt.passages}
        self._repeated = repeated
        found = found_by_calls(prompt.turns)
        self.first = [passage for passage in prompt.passages if passage.n not in found]
        self._told: set[int] = set()

    def found(self, numbers: Sequence[int]) -> str:
        """The passages that a call has found, fenced; nothing where there are none."""
        blocks = [self._block(self._passages[number]) for number in dict.fromkeys(numbers) if number in self._passages]
        return _fence(blocks) if blocks else ""

    def _block(self, passage: Passage) -> str:
        if passage.n in self._told:
            return _block(passage, self._repeated)
        self._told.add(passage.n)
        return _block(passage, as_data(passage.text))


def shipped_prompts() -> Path:
    return Path(__file__).parent / "prompts" / PROMPT_VERSION


def load_prompts(folder: str) -> Prompts:
    """The prompt files in `folder`, or the ones that ship with Baton where it is empty.

    Raises:
        SettingsError: a file is missing or unreadable, or lacks a field; all that is wrong is told.
    """
    root = Path(folder) if folder else shipped_prompts()
    problems: list[str] = []
    texts: dict[Language, dict[str, str]] = {language: {} for language in LANGUAGES}
    for language in LANGUAGES:
        for name, fields in FILES.items():
            path = root / language / f"{name}.md"
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
                problems.append(f"BATON_PROMPTS: cannot read {path} ({reason})")
                continue
            problems += [f"BATON_PROMPTS: {path} {problem}" for problem in _problems(text, fields)]
            texts[language][name] = text
    if problems:
        raise SettingsError(problems)
    return Prompts(texts)


def found_by_calls(turns: Sequence[ToolTurn]) -> frozenset[int]:
    """The numbers of the passages that tool calls have found."""
    return frozenset(number for turn in turns for result in turn.results for number in result.passages)


def fenced(passages: Sequence[Passage]) -> str:
    """The passages as numbered data. Nothing inside can end its fence or look like a citation."""
    return _fence([_block(passage, as_data(passage.text)) for passage in passages])


def _fence(blocks: Sequence[str]) -> str:
    return "<passages>\n" + "\n".join(blocks) + "\n</passages>"


def _block(passage: Passage, text: str) -> str:
    title = f"{passage.title} / {passage.heading}" if passage.heading else passage.title
    return f'<passage n="{passage.n}" title="{as_attribute(title)}">\n{text}\n</passage>'


def past_messages(past: PastTurn) -> list[Message]:
    """An earlier turn of the conversation. Its numbers meant other passages, so none is left."""
    return [
        {"role": "user", "content": as_data(past.query)},
        {"role": "assistant", "content": as_data(past.answer) or "…"},  # servers refuse an empty one
    ]


def turn_messages(turn: ToolTurn, shown: _Shown | None = None) -> list[Message]:
    """A turn with tools as the assistant's calls and the tools' answers."""
    calls = [
        {
            "id": call.call_id,
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
        }
        for call in turn.calls
    ]
    # Every call must be answered, or servers refuse the conversation.
    results = {result.call_id: result for result in turn.results}
    messages: list[Message] = [{"role": "assistant", "content": turn.text.strip() or None, "tool_calls": calls}]
    for call in turn.calls:
        result = results.get(call.call_id)
        content = "Error: there is no result." if result is None else as_result(result.content)
        if result is not None and not result.ok:
            content = f"Error: {content}"
        if result is not None and shown is not None and (passages := shown.found(result.passages)):
            content = f"{content}\n\n{passages}".strip()
        messages.append({"role": "tool", "tool_call_id": call.call_id, "content": content})
    return messages


def tool_definitions(tools: Sequence[ToolSpec]) -> list[Message]:
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
        }
        for tool in tools
    ]


def _fill(template: str, values: Mapping[str, str]) -> str:
    return _FIELD.sub(lambda field: values.get(field[1], field[0]), template)


def _problems(text: str, fields: frozenset[str]) -> list[str]:
    found = set(_FIELD.findall(text))
    problems = [f"must hold {{{{{name}}}}}" for name in sorted(fields - found)]
    problems += [f"has {{{{{name}}}}}, which nothing fills" for name in sorted(found - fields)]
    if not text.strip():
        problems.append("is empty")
    if len(text) > _MAX_FILE_CHARS:
        problems.append(f"is over {_MAX_FILE_CHARS} characters")
    return problems
