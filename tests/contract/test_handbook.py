"""The demo's handbook and questions: tests elsewhere count on what is said here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup
from pypdf import PdfReader

from examples.hr_assistant.erp import EMPLOYEES, leave_of

DEMO = Path(__file__).parents[2] / "examples" / "hr_assistant"
DOCUMENTS = sorted((DEMO / "documents").iterdir())
QUESTIONS = yaml.safe_load((DEMO / "questions.yaml").read_text(encoding="utf-8"))
TOOLS = {"leave_balance", "calculator", "date_time"}


def text_of(path: Path) -> str:
    if path.suffix == ".pdf":
        text = "\n".join(page.extract_text() for page in PdfReader(path).pages)
    elif path.suffix == ".html":
        text = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").get_text(" ")
    else:
        text = path.read_text(encoding="utf-8")
    return " ".join(text.split())


def is_chinese(text: str) -> bool:
    return len(re.findall(r"[\u4e00-\u9fff]", text)) > 0.3 * len(text)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_is_in_the_language_of_its_name(path: Path) -> None:
    name = re.fullmatch(r"[a-z-]+\.(zh|en)\.(md|html|pdf)", path.name)
    assert name is not None
    text = text_of(path)
    assert is_chinese(text) == (name[1] == "zh")
    assert 700 < len(text) < 6_000


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_begins_with_its_title(path: Path) -> None:
    if path.suffix == ".md":
        assert re.match(r"# \S.*\n\n", path.read_text(encoding="utf-8"))
    elif path.suffix == ".html":
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        assert page.title.text == page.h1.text
    else:
        assert PdfReader(path).metadata.title


def test_the_pdf_has_several_pages_of_text() -> None:
    (path,) = [path for path in DOCUMENTS if path.suffix == ".pdf"]
    pages = PdfReader(path).pages
    assert len(pages) >= 3
    assert all(len(page.extract_text()) > 500 for page in pages)


@pytest.mark.parametrize("name", sorted({path.name.split(".")[0] for path in DOCUMENTS}))
def test_both_languages_of_a_topic_name_the_same_addresses(name: str) -> None:
    versions = [text_of(path) for path in DOCUMENTS if path.name.split(".")[0] == name]
    found = [set(re.findall(r"[\w.]+@[\w.]+\.example|\b8\d{3}\b", text)) for text in versions]
    assert all(addresses == found[0] for addresses in found)


@pytest.mark.parametrize("entry", QUESTIONS, ids=lambda entry: entry["question"])
def test_a_question_can_be_checked(entry: dict) -> None:
    assert set(entry) <= {"question", "language", "documents", "answer_contains", "tool"}
    assert entry["language"] == ("zh" if re.search(r"[\u4e00-\u9fff]", entry["question"]) else "en")
    if entry["documents"]:
        assert entry["answer_contains"]
    for name in entry["documents"]:
        text = text_of(DEMO / "documents" / name)
        assert all(part in text for part in entry["answer_contains"])
    assert entry.get("tool") in {None, *TOOLS}


def test_there_are_enough_questions_of_each_kind() -> None:
    answered = [entry["language"] for entry in QUESTIONS if entry["documents"]]
    assert answered.count("zh") >= 10
    assert answered.count("en") >= 10
    assert {entry.get("tool") for entry in QUESTIONS} >= TOOLS
    asked = {entry["question"] for entry in QUESTIONS}
    assert {"公司年假政策有哪些?", "我还剩多少天年假?"} <= asked
    assert len(asked) == len(QUESTIONS)


@pytest.mark.parametrize("employee_id", EMPLOYEES)
def test_the_hr_system_agrees_with_itself_and_the_handbook(employee_id: str) -> None:
    answer = leave_of(employee_id)
    for entry in answer["leave"]:
        assert entry["remaining"] == entry["entitlement"] - entry["used"] >= 0
    figures = {entry["type"]: entry["entitlement"] for entry in answer["leave"]}
    assert figures["sick"] == 12
    assert figures["personal"] == 10
    assert figures["annual"] in (5, 10, 12, 15, 20)
