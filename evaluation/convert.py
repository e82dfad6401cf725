"""SQuAD- and CMRC-style JSON as an evaluation set with its documents.

    python -m evaluation.convert squad FILE --out FOLDER [--sample N] [--seed S]

writes `FOLDER/questions.jsonl` and, below `FOLDER/documents`, a text file for every distinct paragraph of the file:
also for those that no sampled question is about, so that there is something to find the right one among. A document's
name is made from its text, so it is the same in every conversion.

Read are SQuAD 1.1 and 2.0 (https://rajpurkar.github.io/SQuAD-explorer/), and CMRC 2018 in SQuAD's form as well as in
its own, a list of paragraphs (https://github.com/ymcui/cmrc2018).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.cli.options import bounded

from .dataset import MAX_QUESTIONS, Entry, entry_map

QUESTIONS, DOCUMENTS = "questions.jsonl", "documents"
_CHINESE = re.compile(r"[\u3400-\u9fff]")


class BadFile(ValueError):
    """The file is in none of the forms that can be converted; the text says where it departs from them."""


@dataclass(frozen=True, slots=True)
class Converted:
    """`documents` are the texts by name."""

    entries: Sequence[Entry]
    documents: dict[str, str]

    def sample(self, count: int | None, seed: int) -> Converted:
        """`count` of the questions, drawn with `seed` and in the order of the file; all documents stay."""
        if count is None or count >= len(self.entries):
            return self
        chosen = sorted(random.Random(seed).sample(range(len(self.entries)), count))
        return Converted([self.entries[at] for at in chosen], self.documents)

    def answerable(self) -> Converted:
        return Converted([entry for entry in self.entries if not entry.unanswerable], self.documents)


def convert_squad(raw: Any) -> Converted:
    """The questions and paragraphs of a parsed file.

    The same question about the same text in several places is one question with all the answers. A question that
    stands under several paragraphs is answered by each of them.

    Raises:
        BadFile
    """
    documents: dict[str, str] = {}
    entries: dict[str, Entry] = {}
    for context, questions in _paragraphs(raw):
        name = name_of(context)
        documents[name] = context
        for number, one in enumerate(questions):
            entry = _entry(one, name, f"{name}-{number}")
            entries[_free(entry.id, entries)] = entry
    if not entries:
        raise BadFile("there is no question in it")
    renamed = [_renamed(entry, key) for key, entry in entries.items()]
    return Converted(_merged(renamed), documents)


def name_of(text: str) -> str:
    """The file name of a paragraph: a digest of its text."""
    return f"{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:16]}.txt"


def write(converted: Converted, folder: Path) -> tuple[Path, Path]:
    """Write the set and its documents below `folder`; where they are."""
    documents = folder / DOCUMENTS
    documents.mkdir(parents=True, exist_ok=True)
    for name, text in converted.documents.items():
        (documents / name).write_text(text, encoding="utf-8")
    questions = folder / QUESTIONS
    lines = [json.dumps(entry_map(entry), ensure_ascii=False) for entry in converted.entries]
    questions.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return questions, documents


def read_squad(path: Path) -> Converted:
    """Raises BadFile, also where the file cannot be read."""
    try:
        return convert_squad(json.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise BadFile(f"{path}: {error}") from None


def _paragraphs(raw: Any) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    if isinstance(raw, list):  # CMRC's own form: {"context_id", "context_text", "qas": [{"query_id", "query_text", …}]}
        for at, paragraph in enumerate(raw):
            yield _paragraph(paragraph, "context_text", f"[{at}]")
        return
    articles = raw.get("data") if isinstance(raw, dict) else None
    if not isinstance(articles, list):
        raise BadFile("expected an object with `data`, or a list of paragraphs with `context_text`")
    for at, article in enumerate(articles):
        paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
        if not isinstance(paragraphs, list):
            raise BadFile(f"data[{at}]: expected an object with a list `paragraphs`")
        for number, paragraph in enumerate(paragraphs):
            yield _paragraph(paragraph, "context", f"data[{at}].paragraphs[{number}]")


def _paragraph(raw: Any, context: str, where: str) -> tuple[str, list[dict[str, Any]]]:
    if not isinstance(raw, dict) or not isinstance(raw.get(context), str) or not isinstance(raw.get("qas"), list):
        raise BadFile(f"{where}: expected an object with `{context}` and a list `qas`")
    if not all(isinstance(one, dict) for one in raw["qas"]):
        raise BadFile(f"{where}.qas: expected objects")
    return raw[context], raw["qas"]


def _entry(raw: dict[str, Any], document: str, usual_id: str) -> Entry:
    question = raw.get("question", raw.get("query_text"))
    if not isinstance(question, str) or not question.strip():
        raise BadFile(f"question {usual_id}: expected a text `question` or `query_text`")
    identity = str(raw.get("id", raw.get("query_id", usual_id)))
    language = "zh" if _CHINESE.search(question) else "en"
    if raw.get("is_impossible") is True:
        return Entry(identity, question.strip(), language, unanswerable=True)
    answers = tuple(dict.fromkeys(filter(None, map(_answer, _listed(raw.get("answers"))))))
    return Entry(identity, question.strip(), language, {document: 1}, answers=answers)


def _listed(raw: Any) -> list[Any]:
    """The answers, also in the form of Hugging Face's datasets, `{"text": [...], "answer_start": [...]}`."""
    texts = raw.get("text") if isinstance(raw, dict) else raw
    return texts if isinstance(texts, list) else [texts]


def _answer(raw: Any) -> str:
    text = raw.get("text") if isinstance(raw, dict) else raw
    return text.strip() if isinstance(text, str) else ""


def _free(identity: str, taken: dict[str, Entry]) -> str:
    name, number = identity, 2
    while name in taken:
        name, number = f"{identity}-{number}", number + 1
    return name


def _renamed(entry: Entry, identity: str) -> Entry:
    return Entry(identity, entry.question, entry.language, entry.documents, (), entry.answers, entry.unanswerable, ())


def _merged(entries: Sequence[Entry]) -> list[Entry]:
    """Entries of one question as one, at the place of the first. What is answerable somewhere is answerable."""
    found: dict[str, Entry] = {}
    for entry in entries:
        first = found.get(entry.question)
        if first is None:
            found[entry.question] = entry
            continue
        documents = {**first.documents, **entry.documents}
        answers = tuple(dict.fromkeys((*first.answers, *entry.answers)))
        found[entry.question] = Entry(
            first.id, first.question, first.language, documents, (), answers, not documents, ()
        )
    return list(found.values())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m evaluation.convert", description=__doc__.split("\n", 1)[0])
    parser.add_argument("form", choices=("squad",), help="SQuAD 1.1 or 2.0, and CMRC 2018 in either of its forms")
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--sample",
        type=bounded(1, MAX_QUESTIONS),
        metavar="N",
        help="so many of the questions (all documents are kept)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the sample [%(default)s]")
    arguments = parser.parse_args(argv)
    try:
        converted = read_squad(arguments.file).sample(arguments.sample, arguments.seed)
        questions, documents = write(converted, arguments.out)
    except (BadFile, OSError) as error:
        print(f"convert: {error}", file=sys.stderr)
        return 2
    impossible = sum(entry.unanswerable for entry in converted.entries)
    print(f"{questions}: {len(converted.entries)} questions, {impossible} of them unanswerable")
    print(f"{documents}: {len(converted.documents)} documents")
    return 0


if __name__ == "__main__":
    sys.exit(main())
