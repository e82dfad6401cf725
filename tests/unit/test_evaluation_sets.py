"""The shipped evaluation sets say nothing that the handbook does not."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from evaluation.dataset import Entry, read_dataset
from evaluation.texts import token_recall
from services.retriever.extract import extract

ROOT = Path(__file__).parents[2]
DOCUMENTS = ROOT / "examples" / "hr_assistant" / "documents"
SETS = {language: read_dataset(ROOT / f"evaluation/sets/handbook.{language}.jsonl") for language in ("en", "zh")}
ENTRIES = [entry for one in SETS.values() for entry in one.entries]
ANSWERABLE = [entry for entry in ENTRIES if not entry.unanswerable]


@cache
def text_of(name: str) -> str:
    path = DOCUMENTS / name
    return extract(path.name, path.read_bytes()).text


def wanted_text(entry: Entry) -> str:
    return "\n".join(map(text_of, entry.documents))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_set_has_all_kinds_of_questions(language: str) -> None:
    entries = SETS[language].entries
    assert len(entries) >= 60
    assert {entry.language for entry in entries} == {language}
    assert sum(entry.unanswerable for entry in entries) >= 8
    assert sum(len(entry.documents) > 1 for entry in entries) >= 4
    assert sum(bool(entry.conversation) for entry in entries) >= 3
    assert sum(not all(f".{language}." in name for name in entry.documents) for entry in entries) >= 5


@pytest.mark.parametrize("entry", ANSWERABLE, ids=lambda entry: entry.id)
def test_the_documents_of_a_question_hold_the_facts_of_its_answer(entry: Entry) -> None:
    assert [name for name in entry.documents if not (DOCUMENTS / name).is_file()] == []
    (answer,) = entry.answers
    text = wanted_text(entry)
    there = set(re.findall(r"\d[\d,.:]*\d|\d", text))
    assert set(re.findall(r"\d[\d,.:]*\d|\d", answer)) <= there
    if all(f".{entry.language}." in name for name in entry.documents):
        assert token_recall(text[:6000], [answer], entry.language) >= 0.8
    elif not re.search(r"\d", answer):
        pytest.fail("an answer from a document in the other language needs a number that can be checked")


def test_every_document_is_asked_about() -> None:
    asked = {name for entry in ENTRIES for name in entry.documents}
    assert asked == {path.name for path in DOCUMENTS.iterdir()}
