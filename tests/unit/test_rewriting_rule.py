"""The rule that makes follow-ups stand alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retriever.rewriting.rule import MAX_FOLLOW_UP_CHARS, MAX_JOINED_CHARS, search_words, standalone

ANNUAL = "公司年假政策有哪些?"
HOTEL = "去上海出差酒店每晚的报销上限是多少?"
CARRY = "How many days of annual leave can I carry over into the next year?"
NIGHT = "What is the hotel limit per night in Beijing?"

JOINED = [
    # Something else is asked of: it takes the place of what is of its kind, or is added.
    (ANNUAL, "那病假呢?", "公司病假政策有哪些?"),
    (ANNUAL, "那试用期呢?", "试用期年假政策有哪些?"),
    (ANNUAL, "好的，那病假呢?", "公司病假政策有哪些?"),
    (ANNUAL, "病假也一样吗?", "公司病假政策有哪些?"),
    (HOTEL, "那成都呢？", "去成都出差酒店每晚的报销上限是多少?"),
    ("没休完的年假可以结转到明年吗?", "那病假呢?", "病假可以结转吗?"),
    ("法定节假日加班费怎么算?", "周末呢?", "周末加班费怎么算?"),
    ("离职需要提前多久通知?", "转正呢?", "转正需要提前多久通知?"),
    ("年假和考核有关系吗?", "那病假呢?", "病假和考核有关系吗?"),
    ("Does annual leave affect my rating?", "what about sick leave?", "Does sick leave affect my rating?"),
    ("年假怎么申请?", "实习生也有吗?", "实习生年假怎么申请?"),
    (CARRY, "what about sick leave?", "How many days of sick leave can I carry over?"),
    (CARRY, "and for contractors?", f"{CARRY[:-1]} for contractors?"),
    (NIGHT, "And in Shanghai?", "What is the hotel limit per night in Shanghai?"),
    (NIGHT, "and the meal allowance?", "What is the meal allowance limit per night in Beijing?"),
    ("How long is maternity leave?", "is it the same for fathers?", "How long is maternity leave for fathers?"),
    # A question without a subject of its own.
    (ANNUAL, "怎么申请?", "年假怎么申请?"),
    (ANNUAL, "它怎么申请?", "年假怎么申请?"),
    (ANNUAL, "期间生病了怎么办?", "年假期间生病了怎么办?"),
    ("电脑丢了应该怎么办?", "要报警吗?", "电脑丢了要报警吗?"),
    ("连续请病假需要医院证明吗?", "谁能看到它?", "谁能看到病假医院证明?"),
    ("没休完的年假可以结转到明年吗?", "最多几天?", "没休完的年假结转明年最多几天?"),
    (ANNUAL, "跟病假有什么区别?", "年假跟病假有什么区别?"),
    (CARRY, "How do I apply for it?", "How do I apply for annual leave?"),
    (CARRY, "Who approves that?", "Who approves annual leave?"),
    (NIGHT, "Do I need a receipt?", "Hotel: do I need a receipt?"),
    ("What should I do if my laptop is stolen?", "Is it insured?", "Laptop is stolen: is it insured?"),
    # Nothing of its own at all.
    (ANNUAL, "为什么?", "公司年假政策有哪些，为什么?"),
    (ANNUAL, "详细说说", ANNUAL),
    (ANNUAL, "然后呢?", ANNUAL),
    ("How do I claim travel expenses?", "Why?", "Claim travel expenses: why?"),
    ("How do I claim travel expenses?", "tell me more", "How do I claim travel expenses?"),
    ("How do I claim travel expenses?", "By when?", "Claim travel expenses: by when?"),
    # About the person who asks: in words by which a tool is recognised.
    (ANNUAL, "那我还剩几天?", "年假我还剩几天?"),
    ("我还剩多少天年假?", "那病假呢?", "我还剩多少天病假?"),
    (CARRY, "How many do I have left?", "How many days of annual leave do I have left?"),
    # The conversation was in the other language.
    (CARRY, "怎么申请?", "annual leave 怎么申请?"),
    (ANNUAL, "How do I apply for it?", "年假: How do I apply for it?"),
]  # fmt: skip

ALONE = {
    ANNUAL: [
        HOTEL,
        "电脑丢了应该怎么办?",
        "试用期多长?",
        "法定节假日加班费怎么算?",
        "每个月几号发工资?",
        "离职需要提前多久通知?",
        "会议室最早可以提前多少天预订?",
        "公司停车位的租金每月多少钱?",
        "那酒店每晚的上限是多少?",
        "司庆日是哪一天?",
        "火星的卫星叫什么名字?",
        "陪产假有多少天?",
        "我还剩多少天年假?",
        "(128 + 72) × 3 等于多少?",
        "今天星期几?",
        "现在几点?",
        "迟到会怎么样?",
        "体检有预算吗?",
        "食堂怎么样?",
        "谢谢!",
        "你好",
        "病假",
    ],
    "How long is paternity leave?": [
        CARRY,
        NIGHT,
        "What is the expense limit for hotels?",
        "Can I work remotely from abroad?",
        "What should I do if my laptop is stolen?",
        "My laptop was stolen, how do I report it?",
        "Who is my buddy during onboarding, and for how long?",
        "And how large is the training budget?",
        "How long does probation last?",
        "Is overtime paid?",
        "Is IT open on weekends?",
        "What is the date today?",
        "What time is it?",
        "What is 6000 * 0.15?",
        "Who won the football world cup in 1966?",
        "Tell me about performance reviews",
        "Where can I park my car?",
        "Is parking free?",
        "Can I work from home?",
        "Thanks!",
        "ok, thank you",
        "sick leave",
    ],
}


@pytest.mark.parametrize(("before", "question", "joined"), JOINED)
def test_a_follow_up_takes_what_it_lacks_from_the_question_before(before: str, question: str, joined: str) -> None:
    assert standalone(question, before) == joined


@pytest.mark.parametrize(
    ("before", "question"), [(before, question) for before, questions in ALONE.items() for question in questions]
)
def test_a_whole_question_stays_as_it_is(before: str, question: str) -> None:
    assert standalone(question, before) == question


def test_what_was_joined_carries_the_next_follow_up() -> None:
    text = ANNUAL
    for question in ("那病假呢?", "需要医院证明吗?", "多久之内要上传?"):
        text = standalone(question, text)
    assert text == "病假医院证明多久之内要上传?"
    text = CARRY
    for question in ("What about sick leave?", "Is it paid?", "And during probation?"):
        text = standalone(question, text)
    assert text == "Is sick leave paid during probation?"


def test_without_a_question_before_nothing_changes() -> None:
    assert standalone("那病假呢?", "") == "那病假呢?"
    assert standalone("", ANNUAL) == ""


def test_a_long_question_is_taken_to_say_what_it_means() -> None:
    question = "那" + "如果这个" * MAX_FOLLOW_UP_CHARS
    assert standalone(question, ANNUAL) == question


def test_what_a_follow_up_is_about_is_searched_for_twice() -> None:
    assert search_words("病假可以结转吗?") == "病假可以结转吗? 病假"
    assert search_words("How many days of sick leave can I carry over?").endswith(" sick leave")


_CHINESE_WORDS = "病假 年假 试用期 怎么 申请 这个 离职 上海 几天 也 一样吗 期间 10天 那 呢 它 的 吗 ？ ， 　"
_ENGLISH_WORDS = (
    "and what about for sick leave it that how many days in Shanghai during contractors if I lose my laptop why ' -"
)
_WORDS = st.sampled_from(
    [*_CHINESE_WORDS.split(" "), *_ENGLISH_WORDS.split(" "), "?", "\n", "\t", "😀", "%", "(", '"', "’"]
)
_TEXT = st.one_of(
    st.text(max_size=60), st.lists(_WORDS, max_size=12).map("".join), st.lists(_WORDS, max_size=12).map(" ".join)
)


@given(_TEXT, _TEXT)
def test_whatever_is_asked_the_rule_gives_a_question_of_bounded_length(question: str, before: str) -> None:
    joined = standalone(question, before)
    assert joined == standalone(question, before)
    assert joined == question or 0 < len(joined) <= MAX_JOINED_CHARS
    assert len(search_words(joined)) <= 2 * MAX_JOINED_CHARS + 1


@given(_TEXT, st.sampled_from([question for questions in ALONE.values() for question in questions]))
def test_a_whole_question_is_the_same_whatever_came_before(before: str, question: str) -> None:
    assert standalone(question, before) == question
