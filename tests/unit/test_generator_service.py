"""The generate stage: what goes into the log, whoever began to write it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from prometheus_client import REGISTRY

from baton_proto.messages import (
    AnswerChunk,
    AnswerReset,
    Citation,
    Done,
    Sampling,
    Status,
    Timings,
    ToolCall,
    ToolOutcome,
    ToolSpec,
    ToolTurn,
    Usage,
)
from services.common.config import GeneratorSettings
from services.common.errors import ServiceError
from services.generator.port import Calls, Continued, Event, Finish, Offered, Prompt, Text, Thinking
from services.generator.service import generate_handler
from tests.answer_job import MemoryJob, passage, work_item

LEAVE = ToolSpec(name="leave_balance", description="", parameters={"type": "object"})
CLOCK = ToolSpec(name="date_time", description="", parameters={"type": "object"})
PASSAGES = [passage(1, "Ten days."), passage(2, "Five days.")]


class Script:
    """A generator that says what it was given, one list of events for each time it is asked."""

    def __init__(self, *turns: list[Event]) -> None:
        self.turns = list(turns)
        self.prompts: list[Prompt] = []
        self.closed = 0

    async def generate(self, prompt: Prompt) -> AsyncIterator[Event]:
        self.prompts.append(prompt)
        try:
            for event in self.turns.pop(0):
                yield event
        finally:
            self.closed += 1


def call(name: str, call_id: str = "c1") -> ToolCall:
    return ToolCall(call_id=call_id, name=name, arguments={})


def turn(text: str = "") -> ToolTurn:
    result = ToolOutcome(call_id="c1", name="leave_balance", ok=True, content="5 days")
    return ToolTurn(calls=[call("leave_balance")], results=[result], text=text)


def run(job: MemoryJob, script: Script, live=None, clock=lambda: 1000.5, **settings) -> MemoryJob:
    handler = generate_handler(script, GeneratorSettings(**settings), lambda _: live or {}, clock)
    asyncio.run(handler(job))
    return job


def test_an_answer_is_streamed_and_ends_with_its_citations_usage_and_timings():
    script = Script(
        [
            Text("\n Ten"),
            Text(" days. [1"),
            Text("][7] [2]"),
            Finish("stop", Usage(prompt_tokens=100, completion_tokens=8)),
        ]
    )
    item = work_item(passages=PASSAGES, timings=Timings(queue_ms=3, retrieval_ms=20, ttfb_ms=9), variant="b")
    job = run(MemoryJob(item), script)

    assert job.stages() == ["generating"]
    assert [frame.content for frame in job.frames[1:-1]] == ["Ten", " days.", " [1] [2]"]
    done = job.last
    assert isinstance(done, Done)
    assert (done.finish_reason, done.cited, done.cache, done.variant) == ("stop", [1, 2], "off", "b")
    assert done.citations == [Citation(n=1, start=10, end=13), Citation(n=2, start=14, end=17)]
    assert done.usage == Usage(prompt_tokens=100, completion_tokens=8)
    assert (done.timings.queue_ms, done.timings.retrieval_ms, done.timings.ttfb_ms) == (3, 20, 9)
    assert done.timings.ttft_ms == 500


def test_calls_are_handed_to_their_tool_set_with_what_was_said():
    script = Script(
        [Text("Let me look."), Calls([call("leave_balance")], Usage(prompt_tokens=10, completion_tokens=2))]
    )
    job = run(MemoryJob(work_item(language="zh")), script, {"tools.default": [LEAVE]})

    assert job.stages() == ["generating", "tool"]
    assert job.last.content == "正在调用 leave_balance…"
    assert job.last.call_id == "c1"
    following = job.next_item
    assert (following.stage, following.text, following.turns) == ("tools.default", "Let me look.", [])
    assert following.calls == [call("leave_balance")]
    assert following.usage == Usage(prompt_tokens=10, completion_tokens=2)
    assert following.timings.ttft_ms == 500


def test_an_answer_goes_on_after_tools_in_a_paragraph_of_its_own():
    script = Script([Text("You have 5 days. [2]"), Finish("stop", Usage(prompt_tokens=20, completion_tokens=5))])
    item = work_item(
        passages=PASSAGES,
        turns=[turn("One moment. [1]")],
        usage=Usage(prompt_tokens=10, completion_tokens=2),
        timings=Timings(ttft_ms=77, generation_ms=40),
    )
    job = run(MemoryJob(item), script)

    assert job.answer == "\n\nYou have 5 days. [2]"
    whole = "One moment. [1]" + job.answer
    done = job.last
    assert [whole[at.start : at.end] for at in done.citations] == ["[1]", "[2]"]
    assert done.cited == [1, 2]
    assert done.usage == Usage(prompt_tokens=30, completion_tokens=7)
    assert (done.timings.ttft_ms, done.timings.tool_calls) == (77, 1)
    assert done.timings.generation_ms >= 40


def test_calls_of_two_sets_are_handed_over_one_set_after_the_other():
    live = {"tools.clock": [CLOCK], "tools.hr": [LEAVE]}
    calls = [call("leave_balance", "a"), call("date_time", "b"), call("leave_balance", "c")]
    job = run(MemoryJob(work_item()), Script([Calls(calls)]), live)
    assert job.next_item.stage == "tools.hr"
    assert [one.call_id for one in job.next_item.calls] == ["a", "c"]


def test_a_call_that_nobody_serves_is_answered_at_once():
    script = Script([Calls([call("nothing")])], [Text("I cannot look that up."), Finish()])
    job = run(MemoryJob(work_item()), script)
    (asked,) = script.prompts[1].turns
    assert asked.results[0].ok is False
    assert "nothing" in asked.results[0].content
    assert job.answer == "I cannot look that up."
    assert job.last.timings.tool_calls == 1


def test_a_call_that_nobody_serves_does_not_hold_up_one_that_is_served():
    calls = [call("nothing", "a"), call("leave_balance", "b")]
    job = run(MemoryJob(work_item()), Script([Text("Hm."), Calls(calls)]), {"tools.default": [LEAVE]})
    assert [one.call_id for one in job.next_item.calls] == ["b"]
    assert [one.call_id for one in job.next_item.turns[0].calls] == ["a"]
    assert (job.next_item.turns[0].text, job.next_item.text) == ("", "Hm.")


SALARIES = ToolSpec(name="salaries", description="", parameters={"type": "object"}, groups=["hr"])
SEARCH = ToolSpec(name="search_documents", description="", parameters={"type": "object"})


def test_only_tools_that_the_user_may_call_are_offered():
    live = {"tools.default": [LEAVE, SALARIES]}
    for claims, names in (({}, ["leave_balance"]), ({"groups": ["hr"]}, ["leave_balance", "salaries"])):
        script = Script([Text("Fine."), Finish()])
        run(MemoryJob(work_item(claims=claims)), script, live)
        assert [spec.name for spec in script.prompts[0].tools] == names


def test_a_tool_that_was_not_offered_is_refused_like_one_that_nobody_serves():
    def refusal(live, name):
        script = Script([Calls([call(name)])], [Text("I cannot."), Finish()])
        job = run(MemoryJob(work_item()), script, live)
        assert job.next_item is None
        return script.prompts[1].turns[0].results[0].content.replace(name, "it")

    assert refusal({"tools.default": [SALARIES]}, "salaries") == refusal({}, "nothing")


def test_a_tool_that_two_sets_serve_is_taken_from_the_one_that_the_user_may_use():
    locked = ToolSpec(name="date_time", description="", parameters={"type": "object"}, groups=["hr"])
    live = {"tools.a": [locked], "tools.b": [CLOCK]}
    assert run(MemoryJob(work_item()), Script([Calls([call("date_time")])]), live).next_item.stage == "tools.b"


@pytest.mark.parametrize(("language", "says"), [("en", "Searching the documents again"), ("zh", "正在再次检索文档…")])
def test_a_wish_to_search_again_goes_to_the_retrievers(language, says):
    live = {"retrieve": [SEARCH], "tools.default": [LEAVE]}
    calls = [call("search_documents", "a"), call("leave_balance", "b")]
    job = run(MemoryJob(work_item(language=language, passages=PASSAGES)), Script([Calls(calls)]), live)
    assert job.next_item.stage == "retrieve"
    assert [one.call_id for one in job.next_item.calls] == ["a"]
    assert (job.last.stage, job.last.content, job.last.call_id) == ("tool", says, "a")


def test_only_passages_that_the_model_reads_may_be_cited():
    script = Script(
        [Offered(frozenset({2, 9})), Text("One [1], two [2]"), Calls([call("nothing")])],
        [Text(" and one [1]."), Finish()],
    )
    job = run(MemoryJob(work_item(passages=PASSAGES)), script)
    assert job.answer == "One, two [2]\n\nand one [1]."
    assert job.last.cited == [2, 1]


def test_citations_that_are_taken_out_are_counted():
    def dropped():
        return REGISTRY.get_sample_value("baton_citations_dropped_total")

    before = dropped()
    run(MemoryJob(work_item(passages=PASSAGES)), Script([Text("A [7][8] and [1]."), Finish()]))
    assert dropped() - before == 2


@pytest.mark.parametrize(("language", "says"), [("en", "The model is thinking"), ("zh", "模型正在思考…")])
def test_the_user_is_told_once_that_the_model_thinks(language, says):
    job = run(MemoryJob(work_item(language=language)), Script([Thinking(), Thinking(), Text("Fine."), Finish()]))
    statuses = [frame.content for frame in job.frames if isinstance(frame, Status)]
    assert (statuses[1:], job.stages()) == ([says], ["generating", "generating"])
    assert job.answer == "Fine."


@pytest.mark.parametrize(
    "stored", [[Status(stage="generating", content="The model is thinking")], [AnswerChunk(content="Fi")]]
)
def test_who_goes_on_does_not_say_again_that_the_model_thinks(stored):
    begun = [Status(stage="generating", content="Writing the answer"), *stored]
    job = run(MemoryJob(work_item(), begun), Script([Thinking(), Text("Fine."), Finish()]))
    assert job.stages() == []
    assert job.answer == "Fine."


def test_the_answer_is_in_the_question_s_language_and_statuses_in_the_request_s():
    script = Script([Text("十天。"), Finish()], [Text("Ten."), Finish()], [Text("OK."), Finish()])
    for query, language in (("年假几天?", "en"), ("How many days of leave?", "zh"), ("?", "zh")):
        job = run(MemoryJob(work_item(query, language=language)), script)
        assert job.frames[0].content == ("正在撰写回答…" if language == "zh" else "Writing the answer")
    assert [prompt.language for prompt in script.prompts] == ["zh", "en", "zh"]


def test_a_request_is_sampled_within_the_server_s_limits():
    script = Script([Text("Fine."), Finish()])
    item = work_item(sampling=Sampling(max_tokens=5_000, stop=["x"]))
    run(MemoryJob(item), script, max_tokens=100, temperature=0.5)
    assert script.prompts[0].sampling == Sampling(max_tokens=100, stop=["x"], temperature=0.5)


def test_tools_are_not_offered_beyond_the_bound():
    script = Script([Text("Enough."), Finish()])
    run(MemoryJob(work_item(turns=[turn(), turn()])), script, {"tools.default": [LEAVE]}, max_tool_turns=2)
    assert script.prompts[0].tools == []


def test_a_generator_that_never_stops_calling_tools_fails():
    script = Script(*[[Calls([call("nothing")])] for _ in range(9)])
    with pytest.raises(ServiceError, match="after 2 rounds") as caught:
        run(MemoryJob(work_item()), script, max_tool_turns=2)
    assert caught.value.code == "model_failed"


@pytest.mark.parametrize("events", [[], [Text("Half an answ")], [Finish()], [Text(" \n"), Finish()]])
def test_a_missing_end_or_an_empty_answer_is_a_failure(events):
    script = Script(events)
    with pytest.raises(ServiceError) as caught:
        run(MemoryJob(work_item()), script)
    assert (caught.value.code, caught.value.retryable) == ("model_failed", True)
    assert script.closed == 1


def test_an_answer_that_a_filter_emptied_says_so():
    assert run(MemoryJob(work_item()), Script([Finish("content_filter")])).last.finish_reason == "content_filter"


# --- fail-over --------------------------------------------------------------------------------------------------------

BEGUN = Status(stage="generating", content="…", seq=3, timestamp="1970-01-01T00:16:40.250Z")
ANSWER = [Text("Ten "), Text("days "), Text("a year. [1]"), Finish()]


def chunk(text: str) -> AnswerChunk:
    return AnswerChunk(content=text, timestamp="1970-01-01T00:16:40.300Z")


@pytest.mark.parametrize("length", range(len("Ten days a year. [1]") + 1))
def test_the_same_answer_is_continued_where_it_was_cut_off(length):
    stored = [BEGUN, chunk("Ten days a year. [1]"[:length])] if length else [BEGUN]
    job = run(MemoryJob(work_item(passages=PASSAGES), stored), Script(ANSWER))
    assert job.answer == "Ten days a year. [1]"
    assert job.stages() == []
    assert not any(isinstance(frame, AnswerReset) for frame in job.frames)
    assert job.last.citations == [Citation(n=1, start=17, end=20)]
    assert job.last.timings.ttft_ms == (300 if length else 500)


@pytest.mark.parametrize("stored", ["Ten weeks", "Ten days a year. [1] And more", "X"])
def test_another_answer_starts_again_with_the_earlier_turns(stored):
    item = work_item(passages=PASSAGES, turns=[turn("One moment.\n")])
    job = run(MemoryJob(item, [BEGUN, chunk(stored)]), Script(ANSWER))
    assert job.answer == "One moment.\nTen days a year. [1]"
    assert sum(isinstance(frame, AnswerReset) for frame in job.frames) == 1
    at = job.last.citations[0]
    assert job.answer[at.start : at.end] == "[1]"


@pytest.mark.parametrize("after", ["", "One mo", "One moment.\n", "One moment.\nTen d"])
def test_what_follows_an_earlier_reset_is_continued_too(after):
    stored = [BEGUN, chunk("Nonsense"), AnswerReset(), *([chunk(after)] if after else [])]
    item = work_item(passages=PASSAGES, turns=[turn("One moment.\n")])
    job = run(MemoryJob(item, stored), Script(ANSWER))
    assert job.answer == "One moment.\nTen days a year. [1]"
    assert not any(isinstance(frame, AnswerReset) for frame in job.frames)


def test_stored_text_goes_when_the_next_holder_only_calls_a_tool():
    job = run(
        MemoryJob(work_item(), [BEGUN, chunk("Let me")]),
        Script([Calls([call("leave_balance")])]),
        {"tools.default": [LEAVE]},
    )
    assert [type(frame) for frame in job.frames] == [AnswerReset, Status]
    assert job.answer == ""


class Continuing(Script):
    """Goes on from what is written in a fixed answer, as a server with a prefix does."""

    def __init__(self, whole: str, *turns: list[Event]) -> None:
        super().__init__(*turns)
        self.whole = whole

    async def generate(self, prompt: Prompt) -> AsyncIterator[Event]:
        self.prompts.append(prompt)
        assert self.whole.startswith(prompt.written)
        if prompt.written:
            yield Continued()
        for char in self.whole[len(prompt.written) :]:
            yield Text(char)
        yield self.turns.pop(0)[0] if self.turns else Finish()


SHOWN = "Ten [1] days [2] are [2020] (see [12). [1][2]"


@pytest.mark.parametrize("length", range(1, len(SHOWN) + 1))
@pytest.mark.parametrize("earlier", ["", "One moment. [2]", "One moment.\n"])
def test_a_continued_answer_is_as_if_one_holder_had_written_it(length, earlier):
    item = work_item(passages=PASSAGES, turns=[turn(earlier)] if earlier else [])
    undisturbed = run(MemoryJob(item), Continuing(SHOWN))
    script = Continuing(SHOWN)
    job = run(MemoryJob(item, [BEGUN, chunk(undisturbed.answer[:length])]), script)
    assert job.answer == undisturbed.answer
    assert not any(isinstance(frame, AnswerReset) for frame in job.frames)
    assert (job.last.cited, job.last.citations) == (undisturbed.last.cited, undisturbed.last.citations)
    assert script.prompts[0].written == undisturbed.answer[:length].lstrip()


def test_only_this_turn_s_text_is_continued_after_a_reset():
    item = work_item(passages=PASSAGES, turns=[turn("One moment.\n")])
    stored = [BEGUN, chunk("Nonsense"), AnswerReset(), chunk("One moment.\nTen [1] d")]
    script = Continuing(SHOWN)
    job = run(MemoryJob(item, stored), script)
    assert script.prompts[0].written == "Ten [1] d"
    assert job.answer == f"One moment.\n{SHOWN}"
    assert job.last.timings.ttft_ms == 300


def test_text_before_tool_calls_is_handed_over_whole_though_two_holders_wrote_it():
    script = Continuing("Let me look.", [Calls([call("leave_balance")])])
    job = run(MemoryJob(work_item(), [BEGUN, chunk("Let me")]), script, {"tools.default": [LEAVE]})
    assert job.next_item.text == "Let me look."
    assert job.answer == "Let me look."


def test_a_continued_answer_that_was_complete_only_ends():
    job = run(MemoryJob(work_item(passages=PASSAGES), [BEGUN, chunk(SHOWN)]), Continuing(SHOWN))
    assert [type(frame) for frame in job.frames] == [Done]
    assert job.last.cited == [1, 2]


def test_the_time_of_the_lost_holder_counts_where_its_text_does():
    later = AnswerChunk(content=" [1]", timestamp="1970-01-01T00:21:40.250Z")
    stored = [BEGUN, chunk("Ten"), later]
    job = run(MemoryJob(work_item(passages=PASSAGES), stored), Continuing(SHOWN))
    assert 300_000 <= job.last.timings.generation_ms < 360_000
    again = run(MemoryJob(work_item(passages=PASSAGES), stored), Script([Text(SHOWN), Finish()]))
    assert again.last.timings.generation_ms < 60_000


def test_a_cancelled_handler_closes_the_generator():
    class Endless(Script):
        async def generate(self, prompt: Prompt) -> AsyncIterator[Event]:
            try:
                yield Text("on and on")
                await asyncio.Event().wait()
            finally:
                self.closed += 1

    class Watched(MemoryJob):
        async def write(self, frame):
            await super().write(frame)
            if isinstance(frame, AnswerChunk):
                begun.set()

    begun = asyncio.Event()

    async def scenario() -> Script:
        script = Endless()
        task = asyncio.create_task(generate_handler(script, GeneratorSettings(), lambda _: {})(Watched(work_item())))
        await asyncio.wait_for(begun.wait(), 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return script

    assert asyncio.run(scenario()).closed == 1
