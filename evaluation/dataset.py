"""Evaluation sets: a question in each line of a JSONL file, checked when it is read (docs/evaluation.md)."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from baton_proto.messages import MAX_QUERY_BYTES

MAX_QUESTIONS = 100_000
MAX_EARLIER = 20
MAX_GRADE = 100
FIELDS = ("id", "question", "language", "documents", "passages", "answer", "unanswerable", "conversation")
_HALF = re.compile("[\ud800-\udfff]")


class BadDataset(ValueError):
    """The file is no evaluation set; the text names the file, the line and the field, and what belongs there."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One question. `documents` are the names of the documents that hold the answer, each with its grade; `passages`
    are texts one of which a found passage must hold; `answers` are reference answers, any of them right;
    `conversation` are the questions before this one, oldest first."""

    id: str
    question: str
    language: str = ""
    documents: Mapping[str, int] = field(default_factory=dict)
    passages: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    unanswerable: bool = False
    conversation: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dataset:
    """`digest` is the SHA-256 of the file's bytes: the same digest, the same questions."""

    name: str
    digest: str
    entries: Sequence[Entry]

    def some(self, limit: int | None, seed: int) -> Dataset:
        """`limit` of the entries, drawn with `seed` and in the order of the file; all where there are no more."""
        if limit is None or limit >= len(self.entries):
            return self
        chosen = sorted(random.Random(seed).sample(range(len(self.entries)), limit))
        return Dataset(self.name, self.digest, [self.entries[at] for at in chosen])


def read_datasets(paths: Sequence[Path]) -> Dataset:
    """The sets in several files as one.

    Raises:
        BadDataset
    """
    if len(paths) == 1:
        return read_dataset(paths[0])
    sets = [read_dataset(path) for path in paths]
    entries = [entry for one in sets for entry in one.entries]
    ids = [entry.id for entry in entries]
    if len(set(ids)) < len(ids):
        twice = next(identity for identity in ids if ids.count(identity) > 1)
        raise BadDataset(f"{', '.join(map(str, paths))}: `id` {twice!r} is in more than one; give each its own")
    digest = hashlib.sha256("".join(one.digest for one in sets).encode()).hexdigest()
    return Dataset(" + ".join(one.name for one in sets), digest, entries)


def read_dataset(path: Path) -> Dataset:
    """The set in a file.

    Raises:
        BadDataset: it cannot be read, or something in it is wrong.
    """
    try:
        data = path.read_bytes()
        lines = data.decode("utf-8-sig").split("\n")
    except OSError as error:
        raise BadDataset(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise BadDataset(f"{path}: not UTF-8 text; an evaluation set is JSON, one question in each line") from None
    entries: list[Entry] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        entry = _entry(_object(line, where), where)
        if entry.id in seen:
            raise BadDataset(f"{where}, `id`: {entry.id!r} is also that of line {seen[entry.id]}; give each its own")
        seen[entry.id] = number
        entries.append(entry)
    if not 0 < len(entries) <= MAX_QUESTIONS:
        raise BadDataset(f"{path}: {len(entries)} questions; from 1 to {MAX_QUESTIONS:,} can be asked")
    return Dataset(path.stem, hashlib.sha256(data).hexdigest(), entries)


def entry_map(entry: Entry) -> dict[str, Any]:
    """The entry as it stands in a file."""
    documents: Any = list(entry.documents) if set(entry.documents.values()) <= {1} else dict(entry.documents)
    fields = {
        "id": entry.id,
        "question": entry.question,
        "language": entry.language,
        "documents": documents,
        "passages": list(entry.passages),
        "answer": list(entry.answers),
        "unanswerable": entry.unanswerable,
        "conversation": list(entry.conversation),
    }
    return {name: value for name, value in fields.items() if value}


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadDataset(f"{where}: not JSON: {error}") from None
    if _HALF.search(json.dumps(value, ensure_ascii=False)):
        raise BadDataset(f"{where}: half of a character (\\ud800 to \\udfff) is no text")
    if not isinstance(value, dict):
        raise BadDataset(f'{where}: expected an object such as {{"id": "1", "question": "…"}}')
    return value


def _entry(raw: dict[str, Any], where: str) -> Entry:
    if unknown := [name for name in raw if name not in FIELDS]:
        raise BadDataset(f"{where}: there is no field `{unknown[0]}`; the fields are {', '.join(FIELDS)}")
    entry = Entry(
        id=_text(raw, "id", where),
        question=_question(_text(raw, "question", where), "question", where),
        language=_language(raw.get("language", ""), where),
        documents=_documents(raw.get("documents", []), where),
        passages=_texts(raw.get("passages", []), "passages", where),
        answers=_texts(raw.get("answer", []), "answer", where),
        unanswerable=_flag(raw.get("unanswerable", False), "unanswerable", where),
        conversation=tuple(
            _question(text, "conversation", where)
            for text in _texts(raw.get("conversation", []), "conversation", where)
        ),
    )
    if entry.unanswerable and (entry.documents or entry.answers or entry.passages):
        raise BadDataset(f"{where}: with `unanswerable` there can be no `documents`, `passages` or `answer`")
    if not entry.unanswerable and not (entry.documents or entry.answers):
        raise BadDataset(f"{where}: name `documents` that hold the answer, an `answer`, or set `unanswerable`")
    if len(entry.conversation) > MAX_EARLIER:
        raise BadDataset(f"{where}, `conversation`: {len(entry.conversation)} questions; at most {MAX_EARLIER}")
    return entry


def _text(raw: dict[str, Any], name: str, where: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadDataset(f"{where}, `{name}`: expected a text that is not empty")
    return value


def _question(text: str, name: str, where: str) -> str:
    if len(text.encode("utf-8", "replace")) > MAX_QUERY_BYTES:
        raise BadDataset(f"{where}, `{name}`: longer than {MAX_QUERY_BYTES} bytes, more than a query may have")
    return text


def _language(value: Any, where: str) -> str:
    if value not in ("", "zh", "en"):
        raise BadDataset(f'{where}, `language`: expected "zh" or "en"')
    return str(value)


def _documents(value: Any, where: str) -> dict[str, int]:
    if isinstance(value, list):
        return dict.fromkeys(_texts(value, "documents", where), 1)
    if not isinstance(value, dict):
        raise BadDataset(f'{where}, `documents`: expected a list of names, or an object {{"name": grade}}')
    for name, grade in value.items():
        if not name or isinstance(grade, bool) or not isinstance(grade, int) or not 1 <= grade <= MAX_GRADE:
            raise BadDataset(f"{where}, `documents`: the grade of {name!r} must be a whole number, 1 to {MAX_GRADE}")
    return dict(value)


def _texts(value: Any, name: str, where: str) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise BadDataset(f"{where}, `{name}`: expected texts that are not empty")
    return tuple(texts)


def _flag(value: Any, name: str, where: str) -> bool:
    if not isinstance(value, bool):
        raise BadDataset(f"{where}, `{name}`: expected true or false")
    return value
