"""Whatever there is to say, the prompt fits its budget, and what is left out is what matters least."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baton_proto.messages import PastTurn, ToolCall, ToolOutcome, ToolSpec, ToolTurn
from services.common.llm.tokens import count_tokens
from services.generator.budget import Budget, DoesNotFit, cut, fit, prompt_tokens
from services.generator.port import Prompt
from services.generator.prompting import load_prompts, past_messages, tool_definitions
from services.generator.shrinking import smaller
from tests.answer_job import passage

PROMPTS = load_prompts("")
SEARCH = ToolSpec(name="search_documents", description="Searches again.", parameters={"type": "object"})
BARE = prompt_tokens(PROMPTS.messages(Prompt("q", "en")))


def counted(prompt: Prompt) -> int:
    return prompt_tokens(PROMPTS.messages(prompt), tool_definitions(prompt.tools))


def numbers(prompt: Prompt) -> list[int]:
    return [one.n for one in prompt.passages]


def result(content: str, *found: int, call_id: str = "c") -> ToolTurn:
    outcome = ToolOutcome(call_id=call_id, name="search_documents", ok=True, content=content, passages=list(found))
    return ToolTurn(calls=[ToolCall(call_id=call_id, name="search_documents", arguments={})], results=[outcome])


WORDS = st.sampled_from(
    [
        "annual leave ",
        "年假可以结转。",
        "</passage>",
        "[3] ",
        "😀",
        "\n\n",
        "<|im_start|>system\n",
        "1234567890",
        "x" * 300,
    ]
)
TEXTS = st.lists(WORDS, max_size=60).map("".join)
TURNS = st.builds(lambda text, found: result(text, *found), TEXTS, st.lists(st.integers(1, 8), max_size=3))


@settings(max_examples=80, deadline=None)
@given(
    language=st.sampled_from(["en", "zh"]),
    question=st.lists(WORDS, max_size=8).map("".join),
    passages=st.lists(TEXTS, max_size=8),
    history=st.lists(st.tuples(TEXTS, TEXTS), max_size=5),
    turns=st.lists(TURNS, max_size=3),
    tools=st.integers(0, 3),
    room=st.integers(0, 4_000),
    history_tokens=st.integers(0, 2_000),
    reserved=st.integers(0, 200),
)
def test_no_prompt_is_over_its_budget(
    language: Any,
    question: str,
    passages: list[str],
    history: list[tuple[str, str]],
    turns: list[ToolTurn],
    tools: int,
    room: int,
    history_tokens: int,
    reserved: int,
) -> None:
    whole = Prompt(
        question,
        language,
        passages=[passage(at + 1, text) for at, text in enumerate(passages)],
        tools=[SEARCH] * tools,
        turns=turns,
        history=[PastTurn(query=query, answer=answer) for query, answer in history],
    )
    budget = Budget(BARE + room, history_tokens)
    try:
        made = fit(whole, PROMPTS, budget, reserved)
    except DoesNotFit:
        assert counted(replace(whole, passages=(), history=(), turns=(), tools=())) + reserved > budget.prompt
        return
    fitted = made.prompt
    assert counted(fitted) + reserved <= budget.prompt
    assert (made.messages, made.tokens) == (PROMPTS.messages(fitted), counted(fitted))
    assert fit(whole, PROMPTS, budget, reserved) == made
    # Passages keep their numbers and order, and are cut at the end at most.
    assert numbers(fitted) == sorted(numbers(fitted))
    for one in fitted.passages:
        assert passages[one.n - 1].startswith(one.text.removesuffix("…"))
    # Of the history, the newest turns stay, whole but for one, and within their own budget.
    kept = list(fitted.history)
    assert [past.query for past in kept] == [query for query, _ in history[len(history) - len(kept) :]]
    assert sum(prompt_tokens(past_messages(past)) for past in kept) <= history_tokens or not kept
    for past, (_, answer) in zip(kept, history[len(history) - len(kept) :], strict=True):
        assert answer.startswith(past.answer.removesuffix("…"))


def test_what_fits_is_not_touched() -> None:
    whole = Prompt("q", "en", passages=[passage(1, "Ten days.")], history=[PastTurn(query="a", answer="b")])
    assert fit(whole, PROMPTS, Budget(8_000, 1_500)).prompt is whole


def test_passages_come_before_history_and_the_first_ones_win() -> None:
    whole = Prompt(
        "q",
        "en",
        passages=[passage(n, "word " * 300) for n in range(1, 6)],
        history=[PastTurn(query="older", answer="x"), PastTurn(query="newer", answer="y")],
    )
    fitted = fit(whole, PROMPTS, Budget(BARE + 800, 1_500)).prompt
    assert numbers(fitted) == [1, 2, 3]
    assert fitted.passages[1].text == whole.passages[1].text
    assert fitted.passages[2].text.endswith("…")
    fitted = fit(whole, PROMPTS, Budget(BARE + 5_000, 25)).prompt
    assert (numbers(fitted), [past.query for past in fitted.history]) == ([1, 2, 3, 4, 5], ["newer"])


def test_what_the_model_searched_for_comes_before_what_was_found_first() -> None:
    passages = [passage(n, "word " * 200) for n in range(1, 7)]
    whole = Prompt("q", "en", passages=passages, turns=[result("4", 4, call_id="a"), result("5", 5, call_id="b")])
    fitted = fit(whole, PROMPTS, Budget(counted(replace(whole, passages=())) + 560, 0)).prompt
    assert numbers(fitted)[-2:] == [4, 5]
    assert fitted.passages[-1].text == passages[4].text
    assert 6 not in numbers(fitted)


def test_passages_that_several_searches_found_count_each_time() -> None:
    passages = [passage(n, "word " * 50, title="title " * 60) for n in range(1, 5)]
    turns = [result("found", 1, 2, 3, 4, call_id=str(call)) for call in range(4)]
    whole = Prompt("q", "en", passages=passages, turns=turns)
    budget = Budget(counted(replace(whole, passages=())) + 1_000, 0)
    fitted = fit(whole, PROMPTS, budget).prompt
    assert counted(fitted) <= budget.prompt
    assert numbers(fitted)


@pytest.mark.timeout(60)
def test_passages_with_the_same_number_end_in_a_prompt_all_the_same() -> None:
    """A retriever of somebody's own may number them wrongly."""
    prompt = Prompt("q", "en", [passage(1, "a"), *(passage(1, "one two three. " * 40) for _ in range(3))])
    fitted = fit(prompt, PROMPTS, Budget(BARE + 250, 0)).prompt
    assert numbers(fitted) == [1]


def test_a_long_answer_of_the_turn_before_is_cut_and_not_left_out() -> None:
    whole = Prompt("q", "zh", history=[PastTurn(query="年假几天？", answer="十天。" * 2_000)])
    (past,) = fit(whole, PROMPTS, Budget(8_000, 300)).prompt.history
    assert past.answer.startswith("十天。十天。")
    assert past.answer.endswith("。…")
    assert 200 <= count_tokens(past.answer) <= 300


def test_a_question_whose_conversation_has_no_room_is_asked_so_that_it_stands_alone() -> None:
    whole = Prompt(
        "And for contractors?",
        "en",
        history=[PastTurn(query="Leave?", answer="Ten.")],
        standalone="How much leave do contractors get?",
    )
    assert fit(whole, PROMPTS, Budget(8_000, 1_500)).prompt is whole
    assert fit(whole, PROMPTS, Budget(8_000, 0)).prompt.question == "How much leave do contractors get?"
    long = replace(whole, standalone="word " * 500)
    assert fit(long, PROMPTS, Budget(BARE + 20, 0)).prompt.question == "And for contractors?"


def test_something_to_read_comes_before_the_last_of_many_tools() -> None:
    tools = [ToolSpec(name=f"tool_{n}", description="word " * 60, parameters={"type": "object"}) for n in range(10)]
    whole = Prompt("q", "en", passages=[passage(n, "word " * 100) for n in (1, 2)], tools=tools)
    with_all_tools = counted(replace(whole, passages=()))
    fitted = fit(whole, PROMPTS, Budget(with_all_tools + 10, 0)).prompt
    assert numbers(fitted) == [1]
    assert 5 < len(fitted.tools) < 10
    # Tools that leave room for one passage all stay.
    assert len(fit(whole, PROMPTS, Budget(with_all_tools + 200, 0)).prompt.tools) == 10


def test_results_of_tools_are_cut_before_turns_and_tools_are_given_up() -> None:
    turns = [result("old " * 5_000, call_id="a"), result("new " * 5_000, call_id="b")]
    whole = Prompt("q", "en", turns=turns, tools=[SEARCH])
    fitted = fit(whole, PROMPTS, Budget(BARE + 1_500, 0)).prompt
    assert [turn.calls[0].call_id for turn in fitted.turns] == ["a", "b"]
    assert all(turn.results[0].content.endswith("…") for turn in fitted.turns)
    fitted = fit(whole, PROMPTS, Budget(BARE + 370, 0)).prompt
    assert [turn.calls[0].call_id for turn in fitted.turns] == ["b"]
    fitted = fit(whole, PROMPTS, Budget(BARE + 10, 0)).prompt
    assert (list(fitted.turns), list(fitted.tools)) == ([], [])
    with pytest.raises(DoesNotFit):
        fit(whole, PROMPTS, Budget(BARE - 10, 0))


@pytest.mark.parametrize(
    "text", ["One two. Three four five six seven.", "第一句。第二句话比较长一些。第三句。", "x" * 500]
)
def test_a_cut_text_ends_where_a_sentence_or_word_does(text: str) -> None:
    for tokens in range(6, 30):
        short = cut(text, tokens)
        assert count_tokens(short) <= tokens
        assert short == text or text.startswith(short.removesuffix("…"))
    assert cut("First sentence here. Second one is longer than the first", 8) == "First sentence here.…"
    assert cut("anything", 0) == ""


def test_a_refused_prompt_is_made_smaller_by_what_the_server_says() -> None:
    assert smaller(6_000, 5_000, None, None, None) == (4_000, None)
    # The server counts twice as much as we do, and has room for 4000 - 1000 tokens.
    assert smaller(6_000, 5_000, 1_000, 4_000, 10_000) == (int(1_500 * 0.95), 1_000)
    # Only the answer asked for was too long.
    assert smaller(6_000, 568, 6_048, 6_048, 568) == (6_000, 3_024)
    assert smaller(100, 100, None, 10, 1) == (200, None)
