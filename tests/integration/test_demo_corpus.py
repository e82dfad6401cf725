"""The demo's handbook answers its own questions: every answerable one finds its document."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import yaml

from baton_proto.messages import Passage
from services.retriever.ingest import open_library
from services.retriever.milvus import open_retriever
from services.retriever.port import SearchRequest
from tests.servers.milvus import Milvus
from tests.servers.processes import ROOT
from tests.shelf import MemoryOriginals, settings_for

DEMO = ROOT / "examples" / "hr_assistant"
TOP_K = 6


def test_every_answerable_question_finds_its_document_and_its_answer(milvus: Milvus) -> None:
    questions = yaml.safe_load((DEMO / "questions.yaml").read_text(encoding="utf-8"))
    answerable = [entry for entry in questions if entry["documents"]]
    assert len(answerable) >= 20

    async def ask_all() -> list[str]:
        settings = settings_for(milvus)
        async with open_library(settings, MemoryOriginals()) as library:
            report = await library.ingest([DEMO / "documents"])
            assert {outcome.status for outcome in report.outcomes} == {"added"}
            names = {info.document_id: info.name for info in await library.documents()}
        async with open_retriever(settings) as retriever:
            problems = []
            for entry in answerable:
                passages = await retriever.retrieve(SearchRequest(entry["question"], entry["language"], TOP_K))
                problems += _problems(entry, passages, names)
            passages = await retriever.retrieve(SearchRequest("年假怎么申请？", "zh", TOP_K))
            if not any("如何申请" in passage.heading for passage in passages):
                problems.append(f"年假怎么申请？: 如何申请 not among {[passage.heading for passage in passages]}")
            return problems

    assert asyncio.run(ask_all()) == []


def test_how_to_apply_for_leave_is_found_under_its_heading(milvus: Milvus) -> None:
    """The heading says 如何申请 and the question 怎么申请: what they share must not drown in a long passage."""

    async def ask() -> list[str]:
        settings = settings_for(milvus)
        async with open_library(settings, MemoryOriginals()) as library:
            await library.ingest([DEMO / "documents"])
        async with open_retriever(settings) as retriever:
            return [passage.text for passage in await retriever.retrieve(SearchRequest("年假怎么申请?", "zh", TOP_K))]

    assert any(text.startswith("## 如何申请") for text in asyncio.run(ask()))


def _problems(entry: dict[str, Any], passages: Sequence[Passage], names: dict[str, str]) -> list[str]:
    found = [names[passage.document_id] for passage in passages]
    if not set(found) & set(entry["documents"]):
        return [f"{entry['question']}: {entry['documents']} not among {found}"]
    if not any(all(words in passage.text for words in entry["answer_contains"]) for passage in passages):
        return [f"{entry['question']}: no passage says {entry['answer_contains']}"]
    return []
