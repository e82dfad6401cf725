"""Answers from the cache: the same frames as the first time, for the same prompt and no other."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton_proto.messages import (
    AnswerChunk,
    AnswerReset,
    Done,
    LogFrame,
    Passage,
    PastTurn,
    Sampling,
    Status,
    ToolCall,
    ToolOutcome,
    ToolSpec,
    ToolTurn,
    Usage,
    WorkItem,
)
from services.common.config import CacheSettings, GeneratorSettings
from services.generator.caching import Answers, KeptAnswer, KeptEvent, answer_key
from services.generator.fingerprint import Fingerprints, sampling_text
from services.generator.port import Calls, Continued, Event, Finish, Prompt, Text
from services.generator.service import generate_handler
from tests.answer_job import MemoryJob, passage, work_item
from tests.memory_cache import MemoryCache

LEAVE = ToolSpec(name="leave_balance", description="", parameters={"type": "object"})
PASSAGES = [passage(1, "Ten days."), passage(2, "Five days.")]
SAID: list[Event] = [
    Text("\n Ten"),
    Text(" days. [1"),
    Text("][7] [2]"),
    Text(" That is all."),
    Finish("stop", Usage(prompt_tokens=100, completion_tokens=8)),
]


class Speaker:
    """Says the same to every prompt, and counts how often it was asked."""

    def __init__(self, events: list[Event] = SAID, **identity: str) -> None:
        self.events = events
        self.asked = 0
        self._identity = identity

    def identity(self) -> dict[str, str]:
        return self._identity

    async def generate(self, prompt: Prompt) -> AsyncIterator[Event]:
        self.asked += 1
        for event in self.events:
            yield event


class Desk:
    """A generator's handler with a cache, asked one item after the other."""

    def __init__(self, speaker: Speaker | None = None, cache: MemoryCache | None = None, **scope: str) -> None:
        self.speaker = speaker or Speaker(model="m", prompt="v1")
        self.cache = cache or MemoryCache()
        self.answers = Answers(self.cache, CacheSettings(**scope), "1.0")

    def ask(self, item: WorkItem | None = None, written: tuple[LogFrame, ...] = (), live: Any = None) -> MemoryJob:
        job = MemoryJob(item or work_item(passages=PASSAGES), written)
        handler = generate_handler(
            self.speaker, GeneratorSettings(), lambda _: live or {}, lambda: 1000.5, answers=self.answers
        )
        asyncio.run(handler(job))
        return job


def said(job: MemoryJob) -> list[LogFrame]:
    """The frames without what measures."""
    *others, done = job.frames
    assert isinstance(done, Done)
    return [*others, msgspec.structs.replace(done, timings=work_item().timings, cache=None)]


def how(job: MemoryJob) -> str | None:
    assert isinstance(job.last, Done)
    return job.last.cache


def test_the_same_prompt_gets_the_same_frames_without_the_generator() -> None:
    desk = Desk()
    first, second = desk.ask(), desk.ask()
    assert (how(first), how(second), desk.speaker.asked) == ("miss", "hit", 1)
    assert said(first) == said(second)
    pieces = [frame.content for frame in second.frames if isinstance(frame, AnswerChunk)]
    assert pieces == ["Ten", " days.", " [1] [2]", " That is all."]
    assert second.last.cited == [1, 2]
    assert second.last.usage == Usage(prompt_tokens=100, completion_tokens=8)
    assert second.last.timings.tokens_per_second is None
    assert second.last.fingerprint == first.last.fingerprint


def test_without_a_cache_an_answer_has_its_fingerprint_too() -> None:
    speaker = Speaker(model="m", prompt="v1")
    job = MemoryJob(work_item(passages=PASSAGES, corpus="abc", retriever="milvus#1"))
    asyncio.run(generate_handler(speaker, GeneratorSettings(), lambda _: {})(job))
    assert how(job) == "off"
    assert job.last.fingerprint.startswith("corpus=abc retriever=milvus#1 prompt=v1 model=extractive:m#")
    assert job.last.fingerprint.endswith(" tools=none")


def test_a_query_can_do_without_the_cache() -> None:
    desk = Desk()
    desk.ask()
    job = desk.ask(work_item(passages=PASSAGES, cache=False))
    assert (how(job), desk.speaker.asked) == ("off", 2)
    fresh = Desk()
    fresh.ask(work_item(passages=PASSAGES, cache=False))
    assert not fresh.cache.values


@pytest.mark.parametrize(
    ("finish", "sampling", "kept"),
    [
        ("stop", Sampling(), True),
        ("length", Sampling(max_tokens=5), True),
        ("length", Sampling(), False),
        ("content_filter", Sampling(), False),
    ],
)
def test_only_answers_that_ended_as_they_should_are_kept(finish: Any, sampling: Sampling, kept: bool) -> None:
    desk = Desk(Speaker([Text("Ten."), Finish(finish)]))
    for _ in range(2):
        job = desk.ask(work_item(passages=PASSAGES, sampling=sampling))
    assert how(job) == ("hit" if kept else "miss")


def test_an_answer_with_tools_is_neither_kept_nor_looked_for() -> None:
    call = ToolCall(call_id="c1", name="leave_balance", arguments={})
    desk = Desk(Speaker([Text("Let me look."), Calls([call])]))
    desk.ask(live={"tools.default": [LEAVE]})
    assert not desk.cache.values
    turn = ToolTurn(calls=[call], results=[ToolOutcome(call_id="c1", name="leave_balance", ok=True, content="5")])
    desk.speaker.events = [Text("5 days."), Finish()]
    asked = len(desk.cache.asked)
    assert how(desk.ask(work_item(passages=PASSAGES, turns=[turn]))) == "miss"
    assert not desk.cache.values
    assert len(desk.cache.asked) == asked


def test_an_answer_that_failed_is_not_kept() -> None:
    desk = Desk(Speaker([Text(" "), Finish()]))
    with pytest.raises(Exception, match="empty answer"):
        desk.ask()
    assert not desk.cache.values


def test_what_another_generator_had_begun_is_not_kept() -> None:
    desk = Desk(Speaker([Continued(), Text(" days."), Finish()]))
    job = desk.ask(written=(status(), AnswerChunk(content="Ten")))
    assert job.answer == "Ten days."
    assert not desk.cache.values


def status() -> Status:
    return Status(stage="generating", content="Writing the answer")


@pytest.mark.parametrize("cut", ["T", "Ten", "Ten days. [1]", "Ten days. [1] [2] That is all."])
def test_a_hit_goes_on_where_a_lost_holder_stopped(cut: str) -> None:
    desk = Desk()
    whole = desk.ask().answer
    job = desk.ask(written=(status(), AnswerChunk(content=cut)))
    assert how(job) == "hit"
    assert job.answer == whole
    assert not any(isinstance(frame, AnswerReset) for frame in job.frames)
    assert job.last.citations == desk.ask().last.citations


def test_an_answer_that_does_not_go_on_from_what_the_user_has_is_not_taken() -> None:
    desk = Desk()
    desk.ask()
    job = desk.ask(written=(status(), AnswerChunk(content="Twelve")))
    assert (how(job), desk.speaker.asked) == ("miss", 2)


def test_an_event_of_another_version_is_a_miss() -> None:
    desk = Desk()
    desk.ask()
    (at,) = desk.cache.values
    for event in (KeptEvent("Sung", {}), KeptEvent("Finish", {"reason": "tired"})):
        desk.cache.values[at] = msgspec.msgpack.encode(KeptAnswer(events=["Ten", event]))
        assert how(desk.ask()) == "miss"


# --- what the key is made of ------------------------------------------------------------------------------------------

PROMPT = Prompt(
    question="And for contractors?",
    language="en",
    passages=PASSAGES,
    tools=[LEAVE],
    sampling=Sampling(seed=7),
    history=[PastTurn(query="How many days?", answer="Ten.")],
    standalone="How many days do contractors have?",
)
OTHER_PROMPTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "question": lambda text: {"question": PROMPT.question + text},
    "language": lambda text: {"language": "zh"},
    "standalone": lambda text: {"standalone": PROMPT.standalone + text},
    "history": lambda text: {"history": [PastTurn(query="How many days?", answer="Ten." + text)]},
    "no history": lambda text: {"history": []},
    "passage text": lambda text: {"passages": [PASSAGES[0], passage(2, "Five days." + text)]},
    "passage id": lambda text: {"passages": [PASSAGES[0], passage(2, "Five days.", id="p" + text)]},
    "passage title": lambda text: {"passages": [PASSAGES[0], passage(2, "Five days.", title="Document 2" + text)]},
    "order of passages": lambda text: {"passages": [passage(1, "Five days."), passage(2, "Ten days.")]},
    "fewer passages": lambda text: {"passages": PASSAGES[:1]},
    "seed": lambda text: {"sampling": Sampling(seed=8)},
    "temperature": lambda text: {"sampling": Sampling(seed=7, temperature=0.0)},
    "stop": lambda text: {"sampling": Sampling(seed=7, stop=[text])},
    "tools": lambda text: {"tools": []},
    "a tool's description": lambda text: {"tools": [msgspec.structs.replace(LEAVE, description=text)]},
}


@pytest.mark.parametrize("ingredient", OTHER_PROMPTS)
@given(text=st.text(min_size=1, max_size=5).filter(str.strip))
def test_another_ingredient_is_another_answer(ingredient: str, text: str) -> None:
    other = dataclasses.replace(PROMPT, **OTHER_PROMPTS[ingredient](text))
    assert answer_key(other, "f", "ann", "1") != answer_key(PROMPT, "f", "ann", "1")


@given(parts=st.tuples(*[st.text(max_size=3)] * 3), others=st.tuples(*[st.text(max_size=3)] * 3))
def test_users_fingerprints_and_releases_are_never_mixed_up(
    parts: tuple[str, str, str], others: tuple[str, str, str]
) -> None:
    assert (answer_key(PROMPT, *parts) == answer_key(PROMPT, *others)) == (parts == others)


ITEM = work_item(passages=PASSAGES, corpus="c1", retriever="r1", top_k=5)
SAME_ITEMS: list[dict[str, Any]] = [
    {"key": "1" * 32, "request_id": "r2", "shard": 3},
    {"received_ms": 5_000_000, "queued_ms": 5_000_010, "deadline_ms": 5_120_000},
    {"conversation_id": "another", "traceparent": "00-1-2-01", "place": 9, "lane": "2" * 32},
    {"passages": [msgspec.structs.replace(one, score=0.123) for one in PASSAGES]},
    {"extra": {"newer": 1}, "on_disconnect": "cancel"},
]
OTHER_ITEMS: list[dict[str, Any]] = [
    {"corpus": "c2"},
    {"corpus": ""},
    {"retriever": "r2"},
    {"owner": "somebody else"},
    {"top_k": 6},
    {"filters": {"year": 2026}},
    {"sampling": Sampling(seed=1)},
    {"query": "How many?"},
    {"standalone": "How many days are there?"},
    {"history": [PastTurn(query="q", answer="a")]},
    {"language": "zh"},
    {"variant": "b", "varied": ["generate"]},
]


@pytest.mark.parametrize("changes", SAME_ITEMS)
def test_ids_times_and_scores_make_no_difference(changes: dict[str, Any]) -> None:
    desk = Desk()
    desk.ask(ITEM)
    assert how(desk.ask(msgspec.structs.replace(ITEM, **changes))) == "hit"


@pytest.mark.parametrize("changes", OTHER_ITEMS)
def test_what_changes_an_answer_makes_a_difference(changes: dict[str, Any]) -> None:
    desk = Desk()
    desk.ask(ITEM)
    assert how(desk.ask(msgspec.structs.replace(ITEM, **changes))) == "miss"


def test_another_model_prompt_setting_or_release_makes_a_difference() -> None:
    cache = MemoryCache()
    Desk(cache=cache).ask()
    for speaker in (Speaker(model="m2", prompt="v1"), Speaker(model="m", prompt="v2"), Speaker(model="m")):
        assert how(Desk(speaker, cache).ask()) == "miss"
    newer = Desk(cache=cache)
    newer.answers = Answers(cache, CacheSettings(), "1.1")
    assert how(newer.ask()) == "miss"
    assert how(Desk(cache=cache).ask()) == "hit"


def test_users_share_where_all_see_every_document() -> None:
    desk = Desk(cache_scope="all")
    desk.ask(msgspec.structs.replace(ITEM, owner="ann"))
    assert how(desk.ask(msgspec.structs.replace(ITEM, owner="bob"))) == "hit"


# --- the fingerprint --------------------------------------------------------------------------------------------------


def fingerprint(settings: GeneratorSettings, item: WorkItem = ITEM, tools: Any = (), **identity: str) -> dict[str, str]:
    text = Fingerprints(Speaker(**identity), settings).of(item, prompt_of(item, tools))
    return dict(part.split("=", 1) for part in text.split(" "))


def prompt_of(item: WorkItem, tools: Any = ()) -> Prompt:
    return Prompt(question=item.query, language=item.language, tools=tools, sampling=item.sampling)


def test_a_fingerprint_changes_in_the_part_that_changed() -> None:
    base = fingerprint(GeneratorSettings(), model="m", prompt="v1#1")

    def changed(other: dict[str, str]) -> set[str]:
        assert other.keys() == base.keys()
        return {name for name in base if base[name] != other[name]}

    settings = GeneratorSettings
    assert changed(fingerprint(settings(), model="m2", prompt="v1#1")) == {"model"}
    assert changed(fingerprint(settings(), model="m", prompt="v1#2")) == {"prompt"}
    assert changed(fingerprint(settings(llm_url="http://other/v1"), model="m", prompt="v1#1")) >= {"model"}
    assert changed(fingerprint(settings(max_tool_turns=1), model="m", prompt="v1#1")) == {"settings"}
    assert changed(fingerprint(settings(), tools=[LEAVE], model="m", prompt="v1#1")) == {"tools"}
    for changes, part in (
        ({"corpus": "c2"}, "corpus"),
        ({"retriever": "r2"}, "retriever"),
        ({"sampling": Sampling(temperature=1)}, "settings"),
    ):
        item = msgspec.structs.replace(ITEM, **changes)
        assert changed(fingerprint(settings(), item, model="m", prompt="v1#1")) == {part}


def test_what_changes_no_answer_changes_no_fingerprint() -> None:
    slow = GeneratorSettings(
        chunk_delay_ms=100, first_token_timeout_s=1, token_timeout_s=1, llm_api_key="secret", llm_continue="vllm"
    )
    assert fingerprint(slow, model="m") == fingerprint(GeneratorSettings(), model="m")


def test_a_generator_that_says_nothing_is_known_by_its_name() -> None:
    class Foreign:
        def generate(self, prompt: Prompt) -> AsyncIterator[Event]:
            raise NotImplementedError

    settings = GeneratorSettings(generator="my.module:open")
    text = Fingerprints(Foreign(), settings).of(work_item(), prompt_of(work_item()))
    assert text.startswith("corpus=unknown retriever=unknown prompt=unknown model=my.module:open#")


def test_sampling_can_be_read() -> None:
    assert sampling_text(Sampling()) == "default"
    assert sampling_text(Sampling(seed=7, temperature=0.0)) == "seed:7,temperature:0"
    assert sampling_text(Sampling(stop=["a b", "c"])).startswith("stop:")


@given(
    passages=st.lists(st.text(max_size=10), max_size=3),
    pieces=st.lists(st.text(max_size=8), min_size=1, max_size=8),
)
def test_whatever_is_said_is_said_again_frame_by_frame(passages: list[str], pieces: list[str]) -> None:
    desk = Desk(Speaker([*map(Text, [*pieces, "."]), Finish()]))
    item = work_item(passages=[_passage(n, text) for n, text in enumerate(passages, start=1)])
    first, second = desk.ask(item), desk.ask(item)
    assert (how(first), how(second)) == ("miss", "hit")
    assert said(first) == said(second)


def _passage(n: int, text: str) -> Passage:
    return passage(n, text)


def test_the_model_of_the_settings_is_in_the_fingerprint() -> None:
    model = fingerprint(GeneratorSettings(generator="openai", llm_model="Qwen/Qwen2.5-7B"), prompt="p")["model"]
    assert model.startswith("openai:Qwen/Qwen2.5-7B#")
    assert fingerprint(GeneratorSettings(generator="openai", llm_model="other"), prompt="p")["model"] != model
