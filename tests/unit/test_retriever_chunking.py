"""Passages: exact ranges of the text, within their bound, all of it, cut at good places."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.llm.tokens import count_tokens
from services.retriever.chunking import LEAD_TOKENS, MAX_CHARS_PER_TOKEN, Chunk, chunk, lead
from services.retriever.graphemes import is_inside

PIECES = [
    "# Title\n",
    "## 二级标题 ##\n",
    "Setext\n======\n",
    "A sentence. Another one! And a third? ",
    "一句话。又一句！还有一句？",
    "\n",
    "\n\n",
    "- item\n",
    "1. first\n",
    "（1）第一条\n",
    "| a | b |\n| --- | --- |\n| 1 | 2 |\n",
    "```\n# no heading\ncode\n\nmore\n```\n",
    "~~~\nopen fence\n",
    "averyveryverylongwordwithoutanyplacetobreak" * 4,
    "   \t ",
    "far" + " " * 3_000 + "apart",
    "\n" * 3_000,
    "🇩🇪" * 150,
    "e\u0301" * 40,
    "👩‍👩‍👧" * 20,
    "---\n",
    "#\n",
]
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=30)), max_size=25).map("".join)
LIMITS = st.integers(min_value=20, max_value=300)


@given(TEXTS, LIMITS, st.booleans())
def test_passages_cover_all_that_is_not_blank_within_the_bound(text: str, limit: int, markdown: bool) -> None:
    chunks = chunk(text, limit=limit, markdown=markdown)
    position = 0
    for piece in chunks:
        assert piece.start >= position
        assert not text[position : piece.start].strip(), "something between two passages is lost"
        passage = text[piece.start : piece.end]
        assert passage == passage.strip() != ""
        assert count_tokens(passage) <= limit
        assert len(passage) <= MAX_CHARS_PER_TOKEN * limit
        assert not is_inside(text, piece.start) or not shorter_than(text, piece.start, limit)
        position = piece.end
    assert not text[position:].strip()
    assert chunk(text, limit=limit, markdown=markdown) == chunks


@given(st.lists(TEXTS, min_size=1, max_size=5), LIMITS)
def test_no_passage_reaches_over_the_end_of_a_page(pages: list[str], limit: int) -> None:
    starts = [0, *itertools.accumulate(len(page) for page in pages)]
    for piece in chunk("".join(pages), limit=limit, pages=starts[:-1]):
        assert any(start <= piece.start and piece.end <= end for start, end in itertools.pairwise(starts))


@given(st.lists(st.sampled_from(["One sentence here. ", "这是一句话。"]), min_size=1, max_size=60), LIMITS)
def test_a_passage_of_prose_is_one_passage_again(sentences: list[str], limit: int) -> None:
    text = "".join(sentences)
    for piece in chunk(text, limit=limit):
        passage = text[piece.start : piece.end]
        assert chunk(passage, limit=limit) == [Chunk(0, len(passage), "")]


def shorter_than(text: str, at: int, limit: int) -> bool:
    """Whether what a reader sees as one character at a place fits into a passage at all."""
    start, end = at, at
    while start > 0 and is_inside(text, start):
        start -= 1
    while end < len(text) and is_inside(text, end):
        end += 1
    return count_tokens(text[start:end]) <= limit


def passages(text: str, limit: int, *, markdown: bool = True) -> list[tuple[str, str]]:
    return [(piece.heading, text[piece.start : piece.end]) for piece in chunk(text, limit=limit, markdown=markdown)]


def test_each_section_is_a_passage_with_the_headings_above_it() -> None:
    text = "# Leave\n\nIntro.\n\n## Annual\n\nTen days.\n\n### Carry over\n\nFive days.\n\n## Sick\n\nCall.\n"
    assert passages(text, 500) == [
        ("Leave", "# Leave\n\nIntro."),
        ("Leave > Annual", "## Annual\n\nTen days."),
        ("Leave > Annual > Carry over", "### Carry over\n\nFive days."),
        ("Leave > Sick", "## Sick\n\nCall."),
    ]


def test_headings_without_text_of_their_own_go_with_what_follows() -> None:
    assert passages("# A\n\n## B\n\ntext", 500) == [("A > B", "# A\n\n## B\n\ntext")]


def test_paragraphs_are_joined_while_they_fit_and_never_cut_while_they_need_not_be() -> None:
    text = "a" * 45 + "\n\n" + "b" * 45 + "\n\n" + "c" * 45
    assert passages(text, 25) == [("", "a" * 45 + "\n\n" + "b" * 45), ("", "c" * 45)]


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("The first sentence is here. The second one is there. " * 4, "."),
        ("第一句话在这里写着。第二句话在那里写着！" * 6, ("。", "！")),
        ("他说：“今天休息。”然后就走了。" * 8, ("。”", "。")),
    ],
)
def test_a_long_paragraph_is_cut_at_the_ends_of_sentences(text: str, ends: str | tuple[str, ...]) -> None:
    found = passages(text, 20 if text.isascii() else 50)
    assert len(found) > 2
    assert all(passage.endswith(ends) for _, passage in found)


def test_version_numbers_are_no_ends_of_sentences() -> None:
    for _, passage in passages("Version 3.11 and 2.0.1 of it work together well. " * 6, 60):
        assert passage.endswith("well.")


def test_a_long_table_is_cut_between_rows_and_its_rest_keeps_the_columns() -> None:
    rows = "".join(f"| City {n} | {n}00 |\n" for n in range(20))
    found = passages("## Limits\n\n| City | Limit |\n| --- | --- |\n" + rows, 60)
    assert all(line.startswith("|") and line.endswith("|") for _, passage in found for line in passage.split("\n")[2:])
    assert {heading for heading, _ in found[2:]} == {"Limits > City | Limit"}


def test_what_looks_like_a_heading_in_code_is_none() -> None:
    text = "# A\n\n```sh\n# comment\nrun\n```\n\nafter"
    assert passages(text, 500) == [("A", text)]


def test_a_fence_that_is_never_closed_reaches_to_the_end() -> None:
    assert passages("```\n# x\n\n# y", 500) == [("", "```\n# x\n\n# y")]


def test_list_items_stay_whole() -> None:
    text = "\n".join(f"- item number {n} is about something" for n in range(8))
    found = passages(text, 30)
    assert len(found) > 2
    assert all(passage.startswith("- item") for _, passage in found)


def test_plain_text_has_no_headings() -> None:
    assert passages("# not a heading\n\ntext", 500, markdown=False) == [("", "# not a heading\n\ntext")]


def test_a_heading_is_never_a_passage_of_its_own_before_a_table_that_is_too_large() -> None:
    rows = "".join(f"| City {n} | {n}00 |\n" for n in range(20))
    for text in ("## Limits\n\n| City | Limit |\n| --- | --- |\n" + rows, "## Limits\n\n" + "One sentence here. " * 30):
        assert all(len(passage) > len("## Limits") for _, passage in passages(text, 60))


def test_the_sentence_that_leads_to_a_list_goes_with_it() -> None:
    text = "Something else that is said before, at some length, so that it fills.\n\nYou need to bring:\n\n"
    found = passages(text + "- a passport that is valid for six months at the least", 32)
    assert [passage.split("\n")[0] for _, passage in found][1] == "You need to bring:"


def test_no_crumb_is_left_of_a_text_that_is_a_little_too_long() -> None:
    for sentences in range(5, 40):
        found = passages("这是一句话，不长也不短。" * sentences, 100)
        assert all(count_tokens(passage) >= 20 for _, passage in found), sentences
    found = passages("\n\n".join(["这是一段话，不长也不短。" * 2] * 3 + ["完了。"]), 96)
    assert len(found) == 2
    assert len(found[1][1]) > len("完了。")


def test_code_is_cut_between_its_lines() -> None:
    code = "```\n" + "".join(f"value_{n} = compute(left={n}, right={n})\n" for n in range(30)) + "```"
    for _, passage in passages("Short:\n\n" + code, 70):
        for line in passage.split("\n"):
            assert line in ("```", "Short:", "") or (line.startswith("value_") and line.endswith(")"))


def test_chunking_takes_time_in_proportion_to_the_text() -> None:
    for text in (
        "一句话，关于年假的规定。" * 8_000,
        "A sentence about leave, with words. " * 8_000,
        "x" * 300_000,
        "🇩🇪" * 50_000,
    ):
        started = time.process_time()
        chunk(text, limit=300)
        assert time.process_time() - started < 10, "it takes a second at most on an idle machine"


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("  \n锣鼓经是大陆传统器乐及戏曲常用的记谱方法。用中文字模拟。", "锣鼓经是大陆传统器乐及戏曲常用的记谱方法。"),
        ("The 2026 report\n\nIt begins here.", "The 2026 report"),
        ("Dr. Huang founded the institute. Later he left.", "Dr. Huang founded the institute."),
        ("no end", "no end"),
    ],
)
def test_a_lead_is_the_first_sentence_or_line(text: str, begins: str) -> None:
    assert lead(text) == begins


@given(TEXTS)
def test_a_lead_is_how_the_text_begins_and_is_short(text: str) -> None:
    assert text.lstrip().startswith(lead(text))
    assert count_tokens(lead(text)) <= LEAD_TOKENS or len(lead(text)) == 1
