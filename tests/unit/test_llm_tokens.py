"""The careful count of tokens, against what real tokenizers counted."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.llm.tokens import count_tokens, estimate_tokens

# Counted once with cl100k (GPT-4), o200k (GPT-4o), DeepSeek V3, Llama 3.1 and Qwen 3; docs/models.md tells how.
ENGLISH = [
    (
        "Employees may carry over at most five days of unused annual leave into the next calendar year. Requests go to "
        "the line manager at least ten working days before the first day of absence.",
        (36, 36, 36, 36, 36),
    ),
    (
        "On 2026-11-25 the allowance was raised from 1,250.50 to 1,375.00 per month (10% more), payable by the 15th.",
        (40, 40, 40, 40, 52),
    ),
    (
        "## Leave types\n\n| type | days | paid |\n| --- | --- | --- |\n| annual | 10 | yes |\n| sick | 12 | 80% |\n\n"
        "- **Carry-over**: see [policy](https://example.com/hr/leave?year=2026#carry).\n",
        (61, 61, 62, 61, 66),
    ),
    (
        '{"balance": {"annual": 8.5, "sick": 12}, "as_of": "2026-11-25T08:00:00Z", "employee_id": "E-10042"}',
        (47, 47, 47, 47, 58),
    ),
    (
        'def carry_over(days: int, most: int = 5) -> int:\n    """Days that go into the next year."""\n'
        "    return min(days, most)\n",
        (34, 34, 36, 34, 34),
    ),
]
CHINESE = [
    (
        "员工当年未休完的年假最多可以结转五天到下一自然年度。申请应当至少在休假首日之前十个工作日提交给直属主管，并在系统中登记。",
        (62, 44, 34, 49, 39),
    ),
    (
        "自2026年11月25日起，补贴由每月1,250.50元调整为1,375.00元（上调10%），每月15日前发放。",
        (46, 41, 35, 43, 48),
    ),
    (
        "## 假期种类\n\n1. 年假：十天（带薪）；\n2. 病假：十二天，按《员工手册》第三章执行；\n"
        "3. “育儿假”——每年五天。\n",
        (66, 51, 42, 53, 50),
    ),
]


@pytest.mark.parametrize(("text", "counted"), [*ENGLISH, *CHINESE])
def test_no_tokenizer_counts_more_and_little_room_is_wasted(text: str, counted: tuple[int, ...]) -> None:
    assert max(counted) <= count_tokens(text) <= 1.4 * max(counted)


def test_chinese_and_english_are_counted_with_the_same_care() -> None:
    def spare(texts: list[tuple[str, tuple[int, ...]]]) -> float:
        return sum(count_tokens(text) for text, _ in texts) / sum(max(counted) for _, counted in texts)

    assert abs(spare(ENGLISH) - spare(CHINESE)) < 0.1


def test_the_estimate_lies_between_the_tokenizers_for_both_languages() -> None:
    for texts in (ENGLISH[:1], CHINESE[:1]):
        for text, counted in texts:
            assert min(counted) * 0.8 <= estimate_tokens(text) <= max(counted) * 1.4


@given(st.text(max_size=200), st.text(max_size=200))
def test_a_longer_text_never_counts_for_much_less(one: str, other: str) -> None:
    # Only pieces at the seam may join: a cut that is found by halving stays near the longest one.
    assert count_tokens(one + other) >= count_tokens(one) - 3


@pytest.mark.parametrize("piece", [" ", "\r", "\u3000", "a", "A", "\n", "\t ", "中", "😀", "\x00", "a\u200d"])
def test_no_text_takes_long_to_count(piece: str) -> None:
    text = piece * 200_000
    started = time.process_time()
    count_tokens(text)
    assert time.process_time() - started < 2
