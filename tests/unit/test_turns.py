"""The rules of a conversation, for any order of what may happen to it."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from baton_proto import codec
from baton_proto.messages import (
    AnswerChunk,
    AnswerReset,
    Citation,
    Conversation,
    ConversationTurn,
    Done,
    Error,
    LogFrame,
    RunningTurn,
    Source,
    Sources,
    Timings,
    Usage,
    WorkItem,
)
from services.common.llm.tokens import estimate_tokens
from services.common.turns import (
    ANSWER_CHARS,
    HISTORY_TOKENS,
    MAX_BYTES,
    MAX_TURNS,
    before,
    begun,
    cut,
    entered,
    history,
    left,
    recorded,
    turn_of,
    without_marks,
)


def source(n: int, snippet: str = "s") -> Source:
    return Source(n=n, id=f"p{n}", document_id="d", title="t", url="/documents/d", snippet=snippet, score=1.0)


def turn(name: str, answer: str | None = "a", **changes: object) -> ConversationTurn:
    made = ConversationTurn(request_id=name, asked_ms=1, query=f"q {name}", outcome="stop", answer=answer)
    return msgspec.structs.replace(made, **changes)


def running(number: int) -> RunningTurn:
    return RunningTurn(key=f"{number:032x}", request_id=f"r{number}", since_ms=number)


def with_turns(*turns: ConversationTurn) -> Conversation:
    conversation = begun("c", "q", 0)
    for number, one in enumerate(turns):
        entering = RunningTurn(key=f"{number:032x}", request_id=one.request_id, since_ms=0)
        conversation = recorded(entered(conversation, entering), one, 0)
    return conversation


STEPS = st.lists(st.tuples(st.sampled_from(["enter", "record", "leave"]), st.integers(0, 9)), max_size=60)


@given(STEPS)
def test_a_request_is_in_a_conversation_once_and_those_that_run_keep_their_order(steps: list[tuple[str, int]]) -> None:
    conversation, expected, ended = begun("c", "q", 0), list[int](), 0
    for step, number in steps:
        if step == "enter":
            conversation = entered(conversation, running(number))
            expected += [] if number in expected else [number]
        elif step == "record":
            again = recorded(conversation, turn(f"r{number}"), 0)
            if number in expected:
                expected.remove(number)
                ended += 1
                assert again.turns[-1].request_id == f"r{number}"
            else:
                assert again == conversation
            assert recorded(again, turn(f"r{number}", "other"), 0) == again
            conversation = again
        else:
            conversation = left(conversation, {running(number).key})
            expected = [one for one in expected if one != number]
        assert [one.request_id for one in conversation.running] == [f"r{one}" for one in expected]
        names = [one.request_id for one in conversation.turns]
        assert len(set(names)) == len(names) <= ended
        for place, one in enumerate(expected):
            assert before(conversation, running(one).key) == [running(other) for other in expected[:place]]


@given(st.lists(st.integers(0, 60_000), min_size=1, max_size=70), st.sampled_from("x长🙂"))
def test_whatever_is_recorded_the_record_fits_and_says_what_it_dropped(sizes: list[int], letter: str) -> None:
    conversation = with_turns(*(turn(f"r{number}", letter * size) for number, size in enumerate(sizes)))
    assert len(codec.encode(conversation)) <= MAX_BYTES
    kept = len(conversation.turns)
    assert 1 <= kept <= MAX_TURNS
    assert conversation.dropped == len(sizes) - kept
    assert [one.request_id for one in conversation.turns] == [f"r{n}" for n in range(len(sizes) - kept, len(sizes))]


def test_a_turn_that_is_too_large_by_itself_loses_its_sources_first() -> None:
    huge = turn("r", "长" * 1_000_000, query="长" * 10_000, sources=[source(n, "长" * 500) for n in range(1, 400)])
    (kept,) = with_turns(huge).turns
    assert (kept.sources, kept.query) == ([], "长" * 10_000)
    assert kept.answer == "长" * ANSWER_CHARS


def test_citations_of_what_was_cut_go_with_it() -> None:
    marks = [Citation(n=1, start=5, end=8), Citation(n=2, start=ANSWER_CHARS - 1, end=ANSWER_CHARS + 2)]
    (kept,) = with_turns(turn("r", "x" * (ANSWER_CHARS + 10), citations=marks)).turns
    assert kept.citations == marks[:1]


def test_a_title_is_the_first_question_on_one_line() -> None:
    assert begun("c", "  How many\n days? ", 7).title == "How many days?"
    assert begun("c", "长" * 81, 7).title == "长" * 79 + "…"
    assert begun("c", "长" * 80, 7).title == "长" * 80


@given(st.lists(st.tuples(st.text(max_size=400), st.text(max_size=6_000)), max_size=12))
def test_the_history_is_the_newest_turns_and_fits_its_budget(texts: list[tuple[str, str]]) -> None:
    turns = [turn(f"r{number}", answer, query=query) for number, (query, answer) in enumerate(texts)]
    conversation = msgspec.structs.replace(begun("c", "q", 0), turns=turns)
    heard = history(conversation)
    assert sum(estimate_tokens(text) for past in heard for text in (past.query, past.answer)) <= HISTORY_TOKENS
    newest = texts[len(texts) - len(heard) :]
    for past, (query, answer) in zip(heard, newest, strict=True):
        assert query.startswith(past.query.removesuffix("…"))
        assert answer.strip().startswith(past.answer.removesuffix("…"))
    assert bool(heard) == bool(texts)  # the newest one always fits


def test_the_history_has_no_citation_marks_and_says_how_a_question_was_understood() -> None:
    first = turn("a", "Ten [1][2], or [2024] days [1].", sources=[source(1), source(2)], standalone="alone")
    heard = history(with_turns(first, turn("b", None, outcome="model_failed")))
    assert [(past.query, past.answer, past.standalone) for past in heard] == [
        ("q a", "Ten, or [2024] days.", "alone"),
        ("q b", "", ""),
    ]
    assert without_marks("a[3] stays", {1}) == "a[3] stays"


@given(st.text(max_size=2_000), st.integers(1, 300))
def test_a_text_is_cut_to_its_tokens(text: str, tokens: int) -> None:
    short = cut(text, tokens)
    assert estimate_tokens(short) <= tokens
    assert short == text or (short.endswith("…") and text.startswith(short[:-1]))
    assert cut(short, tokens) == short


ITEM = WorkItem(
    stage="retrieve",
    key="0" * 32,
    shard=0,
    request_id="r",
    owner="o",
    query="q",
    language="en",
    received_ms=5,
    deadline_ms=9,
    queued_ms=5,
)
DONE = Done(
    finish_reason="length",
    cited=[1],
    citations=[Citation(n=1, start=0, end=3)],
    usage=Usage(),
    timings=Timings(),
)


def test_a_turn_is_what_the_client_has_seen() -> None:
    frames: list[LogFrame] = [
        Sources(sources=[source(1)]),
        AnswerChunk(content="wrong"),
        AnswerReset(),
        AnswerChunk(content="[1] "),
        Sources(sources=[source(2)]),
        AnswerChunk(content="right"),
        DONE,
    ]
    made = turn_of(ITEM, frames, "alone")
    assert (made.request_id, made.asked_ms, made.query, made.standalone) == ("r", 5, "q", "alone")
    assert (made.outcome, made.answer, made.cited) == ("length", "[1] right", [1])
    assert made.citations == [Citation(n=1, start=0, end=3)]
    assert [one.n for one in made.sources] == [1, 2]


def test_a_turn_that_failed_has_no_answer() -> None:
    error = Error(code="model_failed", message="no", retryable=True)
    made = turn_of(ITEM, [Sources(sources=[source(1)]), AnswerChunk(content="half"), error])
    assert (made.outcome, made.answer, made.sources) == ("model_failed", None, [])
