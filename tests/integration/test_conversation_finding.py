"""Conversations over the demo's handbook: every follow-up finds the document that it means.

The retriever's handler and the extractive generator are the real ones, on a real Milvus; the history is what a gateway
would put together.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from baton_proto.messages import Done, Language, PastTurn
from services.common.config import GeneratorSettings, RetrieverSettings
from services.generator.citations import without_marks
from services.generator.extractive import Extractive
from services.generator.service import generate_handler
from services.retriever.ingest import open_library
from services.retriever.milvus import open_retriever
from services.retriever.port import Retriever
from services.retriever.rewriting.opening import Off
from services.retriever.rewriting.port import Rewriter
from services.retriever.rewriting.rule import RuleRewriter
from services.retriever.service import retrieve_handler
from tests.answer_job import MemoryJob, work_item
from tests.servers.milvus import Milvus
from tests.servers.processes import ROOT
from tests.shelf import MemoryOriginals, settings_for

DOCUMENTS = ROOT / "examples" / "hr_assistant" / "documents"
LISTS = ROOT / "tests" / "integration"

# Each turn: the question, the document it must find first and cite, the heading of the passage found first.
CONVERSATIONS: dict[Language, list[tuple[str, str, str]]] = {
    "zh": [
        ("公司年假政策有哪些?", "annual-leave.zh.md", "年假天数"),
        ("那试用期呢?", "annual-leave.zh.md", "年假天数"),
        ("可以结转到明年吗?", "annual-leave.zh.md", "结转与过期"),
        ("那病假呢?", "sick-leave.zh.md", "病假工资"),
        ("需要医院证明吗?", "sick-leave.zh.md", "病假证明"),
        ("去上海出差酒店每晚的报销上限是多少?", "travel-expenses.zh.md", "住宿与餐补"),
        ("那境外呢?", "travel-expenses.zh.md", "住宿与餐补"),
        ("餐补呢?", "travel-expenses.zh.md", "住宿与餐补"),
        ("法定节假日加班费怎么算?", "overtime.zh.md", "加班费与调休"),
        ("周末呢?", "overtime.zh.md", "加班费与调休"),
    ],
    "en": [
        (
            "How many days of annual leave can I carry over into the next year?",
            "annual-leave.en.md",
            "Carrying leave over",
        ),
        ("What about sick leave?", "sick-leave.en.md", "Pay"),
        ("When do I need a certificate for it?", "sick-leave.en.md", "Certificates"),
        ("What if it is false?", "sick-leave.en.md", "False certificates"),
        ("What is the hotel limit per night in Beijing?", "travel-expenses.en.md", "Hotels and meals"),
        ("And in Shanghai?", "travel-expenses.en.md", "Hotels and meals"),
        ("and the meal allowance?", "travel-expenses.en.md", "Hotels and meals"),
        ("Do I need an invoice?", "travel-expenses.en.md", "Hotels and meals"),
        ("How long is maternity leave?", "family-leave.en.md", "Maternity and paternity leave"),
        ("And for fathers?", "family-leave.en.md", "Maternity and paternity leave"),
    ],
}


@dataclass(frozen=True)
class Handbook:
    """The demo's documents in a collection of their own, and their names by id."""

    settings: RetrieverSettings
    names: dict[str, str]


@dataclass(frozen=True)
class Answered:
    """`documents` and `headings` of the passages in the order found; `cited` are the documents of the citations."""

    standalone: str
    documents: list[str]
    headings: list[str]
    texts: list[str]
    cited: set[str]
    answer: str


@pytest.fixture(scope="module")
def handbook(milvus: Milvus) -> Handbook:
    async def ingest() -> Handbook:
        settings = settings_for(milvus)
        async with open_library(settings, MemoryOriginals()) as library:
            await library.ingest([DOCUMENTS])
            return Handbook(settings, {info.document_id: info.name for info in await library.documents()})

    return asyncio.run(ingest())


async def ask(
    handbook: Handbook,
    retriever: Retriever,
    question: str,
    language: Language,
    history: list[PastTurn],
    rewriter: Rewriter,
) -> Answered:
    """One question through the retriever's handler and a generator's."""
    retrieving = MemoryJob(work_item(question, stage="retrieve", language=language, history=history))
    await retrieve_handler(retriever, handbook.settings, rewriter)(retrieving)
    assert retrieving.next_item is not None
    generating = MemoryJob(retrieving.next_item)
    await generate_handler(Extractive(0), GeneratorSettings(), lambda _: {})(generating)
    assert isinstance(generating.last, Done)
    passages = retrieving.next_item.passages
    by_number = {passage.n: passage for passage in passages}
    return Answered(
        standalone=retrieving.next_item.standalone,
        documents=[handbook.names[passage.document_id] for passage in passages],
        headings=[passage.heading for passage in passages],
        texts=[passage.text for passage in passages],
        cited={handbook.names[by_number[n].document_id] for n in generating.last.cited},
        answer=generating.answer,
    )


@pytest.mark.parametrize("language", ["zh", "en"])
def test_each_of_ten_turns_finds_its_document_first_and_cites_it(handbook: Handbook, language: Language) -> None:
    async def talk() -> list[str]:
        history: list[PastTurn] = []
        problems = []
        async with open_retriever(handbook.settings) as retriever:
            for question, document, heading in CONVERSATIONS[language]:
                got = await ask(handbook, retriever, question, language, history, RuleRewriter())
                if (got.documents[0], got.headings[0]) != (document, heading) or document not in got.cited:
                    problems.append(
                        f"{question} ({got.standalone}): {got.documents[0]}, {got.headings[0]}, {got.cited}"
                    )
                turn = PastTurn(query=question, answer=without_marks(got.answer), standalone=got.standalone)
                history = [*history, turn]
        return problems

    assert len(CONVERSATIONS[language]) == 10
    assert asyncio.run(talk()) == []


@dataclass
class Share:
    """Of `asked` follow-ups: how many found a right document first, had the words they were after among the passages,
    and had an answer that cites a right document."""

    asked: int = 0
    first: int = 0
    passage: int = 0
    cited: int = 0


def measured(handbook: Handbook, name: str, language: Language, rewriter: Rewriter) -> Share:
    entries: list[dict[str, Any]] = yaml.safe_load((LISTS / name).read_text(encoding="utf-8"))

    async def ask_all() -> Share:
        share = Share()
        async with open_retriever(handbook.settings) as retriever:
            for entry in entries:
                if entry["language"] != language:
                    continue
                history = [PastTurn(query=entry["before"], answer="")]
                for then in entry["then"]:
                    wanted = {then["document"]} if isinstance(then["document"], str) else set(then["document"])
                    got = await ask(handbook, retriever, then["ask"], language, history, rewriter)
                    found = zip(got.documents, got.texts, strict=True)
                    share.asked += 1
                    share.first += bool(got.documents) and got.documents[0] in wanted
                    share.passage += any(name in wanted and then["says"] in text for name, text in found)
                    share.cited += bool(got.cited & wanted)
        return share

    share = asyncio.run(ask_all())
    print(name, language, type(rewriter).__name__, share)
    return share


@pytest.mark.parametrize(("language", "first", "cited"), [("zh", 0.9, 0.68), ("en", 0.95, 0.8)])
def test_nearly_all_follow_ups_of_the_list_find_their_document(
    handbook: Handbook, language: Language, first: float, cited: float
) -> None:
    share = measured(handbook, "follow_ups.yaml", language, RuleRewriter())
    assert share.asked >= 40
    assert share.first / share.asked >= first, share
    assert share.passage / share.asked >= 0.9, share
    assert share.cited / share.asked >= cited, share
    alone = measured(handbook, "follow_ups.yaml", language, Off())
    assert share.first - alone.first >= 0.25 * share.asked, "the rule must be worth its code"


@pytest.mark.parametrize(("language", "first"), [("zh", 0.75), ("en", 0.85)])
def test_follow_ups_that_the_rule_was_not_made_for_find_their_document(
    handbook: Handbook, language: Language, first: float
) -> None:
    share = measured(handbook, "follow_ups_unseen.yaml", language, RuleRewriter())
    assert share.first / share.asked >= first, share
