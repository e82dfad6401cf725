"""Passages are cut into sentences, items and rows that can be quoted alone."""

from __future__ import annotations

import pytest

from services.generator.quoting.sentences import plain, split_sentences
from services.generator.quoting.units import units_of
from services.generator.quoting.unwrap import join_lines
from tests.answer_job import passage


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("年假有 10 天。须提前申请！可以吗？可以。", ["年假有 10 天。", "须提前申请！", "可以吗？", "可以。"]),
        ("他说：“可以。”然后走了。", ["他说：“可以。”", "然后走了。"]),
        ("补贴每公里 1.2 元。上限 3.5 万元。", ["补贴每公里 1.2 元。", "上限 3.5 万元。"]),
        (
            "It costs 1.5 yuan. Ask Dr. Li, e.g. by phone. Done!",
            ["It costs 1.5 yuan.", "Ask Dr. Li, e.g. by phone.", "Done!"],
        ),
        ("Open from 9 a.m. to 5 p.m. on weekdays.", ["Open from 9 a.m. to 5 p.m. on weekdays."]),
        ('"Really?" he said. See hr@x.example. Bye', ['"Really?" he said.', "See hr@x.example.", "Bye"]),
        ("Valid from 1 January 2026. It ends in 2027.", ["Valid from 1 January 2026.", "It ends in 2027."]),
        ("Visit example.com/a.b for more. Thanks.", ["Visit example.com/a.b for more.", "Thanks."]),
        # What goes on behind an ellipsis or a quotation is the same sentence, in both languages.
        ("他说……，然后走了。再见！", ["他说……，然后走了。", "再见！"]),
        ("Well…, he left. Bye!", ["Well…, he left.", "Bye!"]),
        ("“可以吗？”，他问。可以。", ["“可以吗？”，他问。", "可以。"]),
        ("“Is it?”, he asked. Yes.", ["“Is it?”, he asked.", "Yes."]),
        ("年假10天！！！真的？！好。", ["年假10天！！！", "真的？！", "好。"]),
        ("Ten days!!! Really?! Good.", ["Ten days!!!", "Really?!", "Good."]),
        ("", []),
    ],
)
def test_sentences_end_where_a_reader_sees_their_end(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("**At most** _5_ days, see [the page](http://x/y) and `code`", "At most _5_ days, see the page and code"),
        ("as [3] shows, [1, 2] and 【4】", "as (3) shows, (1, 2) and (4)"),
        ("a <b>bold</b> claim, 3 < 5", "a bold claim, 3 ‹ 5"),
        (r"2 \* 3 \| x", "2 * 3 x"),
        ("![logo](logo.png) Hello", "logo Hello"),
    ],
)
def test_quoted_text_has_no_markdown_and_no_citations_of_its_own(markdown: str, text: str) -> None:
    assert plain(markdown) == text


def test_a_list_item_keeps_its_lead_and_its_number() -> None:
    units = units_of(
        [passage(1, "## Steps\n\nHow early depends:\n\n1. Two days: 3 days ahead.\n2. More: 10 days\n   ahead.")]
    )
    assert [(unit.kind, unit.text, unit.lead, unit.number) for unit in units] == [
        ("sentence", "How early depends:", "", ""),
        ("item", "Two days: 3 days ahead.", "How early depends:", "1"),
        ("item", "More: 10 days ahead.", "How early depends:", "2"),
    ]
    assert {unit.heading for unit in units} == {"Steps"}


def test_a_table_row_reads_as_a_sentence() -> None:
    table = "| Item | Approval | Replaced |\n| --- | :-: | --- |\n| Laptop | none | 4 years |\n| Desk | | broken |"
    assert [unit.text for unit in units_of([passage(1, table)])] == [
        "Laptop – Approval: none; Replaced: 4 years",
        "Desk: broken",
    ]
    rows = "| 司龄 | 年假 |\n|---|---|\n| 不满 3 年 | 10 天 |\n| 满 10 年 | 20 |"
    assert [unit.text for unit in units_of([passage(1, rows)])] == ["司龄不满 3 年：10 天", "司龄满 10 年：年假 20"]


def test_rows_that_were_cut_off_from_their_head_are_still_read() -> None:
    assert [unit.text for unit in units_of([passage(1, "| Laptop | 4 years |\n| Desk | 6 years |")])] == [
        "Laptop: 4 years",
        "Desk: 6 years",
    ]


def test_typeset_text_gets_its_paragraphs_and_headings_back() -> None:
    text = (
        "8. When something goes wrong\n"
        "A data breach is any loss or change of personal data that was not in-\n"
        "tended. Report a suspected breach within 2 hours of noticing it, also at\n"
        "night.\n"
        "Access logs 6 months\n"
        "Salary records 10 years"
    )
    units = units_of([passage(1, text)])
    assert [unit.text for unit in units] == [
        "A data breach is any loss or change of personal data that was not in-tended.",
        "Report a suspected breach within 2 hours of noticing it, also at night.",
        "Access logs 6 months",
        "Salary records 10 years",
    ]
    assert units[0].heading == "8. When something goes wrong"


def test_wrapped_chinese_lines_are_joined_without_a_blank() -> None:
    assert join_lines(["年假须提前", "申请 HR", "批准"]) == "年假须提前申请 HR 批准"


def test_units_follow_documents_by_rank_and_their_text_by_position() -> None:
    passages = [
        passage(1, "B two.", document_id="b", start=50),
        passage(2, "A one.", document_id="a", start=0),
        passage(3, "B one.", document_id="b", start=10),
        passage(4, "B one.", document_id="b", start=10),
    ]
    assert [(unit.text, unit.n) for unit in units_of(passages)] == [("B one.", 3), ("B two.", 1), ("A one.", 2)]
