"""The generate stage: one work item in, answer frames out, ending in `done` or in a hand-off to tools.

How calls are run: the calls of one turn that belong to the tool set of the first of them are handed over together.
Calls for another set are left out of that hand-off; the generator is asked again with the first set's results and
repeats what it still needs, so sets run one after the other and a work item never carries calls of two sets. Calls
that no live worker serves are answered here, with a failed result, and cost no hand-off. So are those of tools that
the user may not call: nobody learns by asking that such a tool exists.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from baton_proto.language import guess_language
from baton_proto.messages import Done, Status, ToolCall, ToolOutcome, ToolSpec, ToolTurn, Usage, WorkItem
from services.common import metrics
from services.common.config import GeneratorSettings
from services.common.errors import ServiceError
from services.common.job import Handler, Job
from services.common.permission import may_call

from . import phrases
from .caching import Answers
from .citations import CitationChecker
from .fingerprint import Fingerprints
from .port import Calls, Continued, Event, Finish, Generator, Offered, Prompt, Text, Thinking
from .sampling import effective_sampling
from .watching import watching
from .written import AnswerLog, has_status

LiveTools = Callable[[WorkItem], Mapping[str, Sequence[ToolSpec]]]
"""For each stage that serves tools to an item (`tools.default`, `retrieve`) those that a live worker announces now."""

_TURN_BREAK = "\n\n"


def generate_handler(
    generator: Generator,
    settings: GeneratorSettings,
    live_tools: LiveTools,
    clock: Callable[[], float] = time.time,
    answers: Answers | None = None,
) -> Handler:
    """The handler of the stage `generate`.

    Args:
        clock: seconds since the epoch.
        answers: those that were given before; without them every question is answered anew.
    """
    known = answers or Answers()
    fingerprints = Fingerprints(generator, settings)

    async def handle(job: Job) -> None:
        answer = _Answer(job, generator, settings, live_tools, clock, known, fingerprints)
        try:
            await answer.run()
        finally:
            metrics.CITATIONS_DROPPED.inc(answer.dropped)

    return handle


class _Answer:
    """One work item's way through the generator."""

    def __init__(
        self,
        job: Job,
        generator: Generator,
        settings: GeneratorSettings,
        live_tools: LiveTools,
        clock: Callable[[], float],
        answers: Answers,
        fingerprints: Fingerprints,
    ) -> None:
        item = job.item
        self._job = job
        self._generator = generator
        self._settings = settings
        self._max_turns = settings.max_tool_turns
        self._live_tools = live_tools
        self._clock = clock
        self._answers = answers
        self._fingerprints = fingerprints
        self._turns = list(item.turns)
        self._usage = item.usage
        self._timings = item.timings
        self._sampling = effective_sampling(item.sampling, settings)
        self._numbers = frozenset(passage.n for passage in item.passages)
        self._checker = CitationChecker(self._numbers)
        # The earlier turns' text has been checked and written; it is counted here for the offsets and `cited`.
        earlier = "".join(self._checker.feed(turn.text) + self._checker.flush() for turn in item.turns)
        self._ends_in = earlier[-1:]
        self._log = AnswerLog(job, earlier)
        if self._log.first_chunk_ms is not None:
            self._first_text(self._log.first_chunk_ms)

    @property
    def dropped(self) -> int:
        """How many numbers were cited that had not been offered."""
        return self._checker.dropped

    async def run(self) -> None:
        item = self._job.item
        if not has_status(self._job.written):
            await self._job.write(Status(stage="generating", content=phrases.generating(item.language)))
        await self._log.open()
        while True:
            text, event = await self._turn()
            if isinstance(event, Finish):
                await self._finish(event)
                return
            if await self._run_tools(event.calls, text):
                return

    async def _turn(self) -> tuple[str, Calls | Finish]:
        """Ask the generator once; the checked text of this turn and the event that ended it."""
        item = self._job.item
        tools = self._served() if len(self._turns) < self._max_turns else {}
        self._checker.offer(self._numbers)
        turn = _Turn(self._checker, self._ends_in)
        written = turn.begun_in(self._log.ahead)
        prompt = Prompt(
            question=item.query,
            language=guess_language(item.query, item.language),
            passages=item.passages,
            tools=[spec for _, spec in tools.values()],
            turns=self._turns,
            sampling=self._sampling,
            written=written,
            history=item.history,
            standalone=item.standalone or item.query,
        )
        self._fingerprint = self._fingerprints.of(item, prompt)
        self._lookup = self._answers.lookup(item, prompt, self._fingerprint)
        started = time.perf_counter()
        earlier_ms = 0
        offered = self._numbers
        thought = False
        known = await self._lookup.events()
        async with (
            watching(prompt, self._settings, kept=known is not None) as watch,
            _closing(known or self._generator.generate(prompt)) as events,
        ):
            async for event in events:
                self._lookup.heard(event)
                if isinstance(event, Text):
                    watch.text()
                    await self._say(turn.feed(event.content))
                    continue
                if isinstance(event, Offered):
                    offered = event.passages & self._numbers
                    self._checker.offer(offered)
                    continue
                if isinstance(event, Thinking):
                    if not thought:
                        thought = True
                        await self._tell_thinking()
                    continue
                if isinstance(event, Continued):
                    # Said as if the generator had: checked, counted and passed over like a repetition. The lost holder
                    # may have offered other numbers.
                    self._checker.offer(self._numbers)
                    await self._say(turn.feed(written))
                    self._checker.offer(offered)
                    earlier_ms = self._log.stored_ms
                    continue
                await self._say(turn.flush())
                watch.ended(event, turn.text)
                self._usage = _sum(self._usage, event.usage)
                elapsed_ms = earlier_ms + round((time.perf_counter() - started) * 1000)
                self._timings = msgspec.structs.replace(
                    self._timings, generation_ms=self._timings.generation_ms + elapsed_ms
                )
                return turn.text, event
        raise ServiceError("model_failed", "The model stopped without finishing its answer.", retryable=True)

    def _served(self) -> dict[str, tuple[str, ToolSpec]]:
        """Stage and spec of each tool that a live worker serves and this user may call."""
        return _by_name(self._live_tools(self._job.item), self._job.item.claims)

    async def _tell_thinking(self) -> None:
        """So that the user sees why nothing comes; not again where a lost holder has said it."""
        status = Status(stage="generating", content=phrases.thinking(self._job.item.language))
        said = any(isinstance(frame, Status) and frame.content == status.content for frame in self._job.written)
        if not said and not self._log.ahead:
            await self._job.write(status)

    async def _say(self, text: str) -> None:
        if text:
            self._first_text(round(self._clock() * 1000))
            self._ends_in = text[-1]
            await self._log.say(text)

    def _first_text(self, at_ms: int) -> None:
        if self._timings.ttft_ms is None:
            ttft = max(0, at_ms - self._job.item.received_ms)
            self._timings = msgspec.structs.replace(self._timings, ttft_ms=ttft)

    async def _finish(self, event: Finish) -> None:
        await self._log.close()
        if event.reason == "stop" and not self._ends_in:
            raise ServiceError("model_failed", "The model gave an empty answer.", retryable=True)
        seconds = self._timings.generation_ms / 1000
        # What comes from the cache comes at no speed that would say something of the model.
        tokens = 0 if self._lookup.said == "hit" else self._usage.completion_tokens
        await self._job.finish(
            Done(
                finish_reason=event.reason,
                cited=self._checker.cited,
                citations=self._checker.citations,
                usage=self._usage,
                timings=msgspec.structs.replace(
                    self._timings,
                    tokens_per_second=round(tokens / seconds, 2) if tokens and seconds else None,
                    tool_calls=sum(len(turn.calls) for turn in self._turns),
                ),
                fingerprint=self._fingerprint,
                cache=self._lookup.said,
                variant=self._job.item.variant or None,
            )
        )
        self._lookup.keep()

    async def _run_tools(self, calls: Sequence[ToolCall], text: str) -> bool:
        """Hand over the calls that a worker serves (True), or answer them all here (False: ask the generator again)."""
        if len(self._turns) >= self._max_turns or not calls:
            raise ServiceError(
                "model_failed",
                f"The model still asked for tools after {len(self._turns)} rounds instead of answering.",
                retryable=True,
            )
        served = self._served()
        unserved = [call for call in calls if call.name not in served]
        stage = next((served[call.name][0] for call in calls if call.name in served), None)
        if unserved:
            # Their text stays with the calls that are handed over, where there are any.
            self._turns.append(self._refused(unserved, "" if stage else text))
        if stage is None:
            return False
        await self._hand_over(stage, [call for call in calls if served.get(call.name, ("",))[0] == stage], text)
        return True

    def _refused(self, calls: Sequence[ToolCall], text: str) -> ToolTurn:
        language = self._job.item.language
        results = [
            ToolOutcome(call_id=call.call_id, name=call.name, ok=False, content=phrases.not_served(call.name, language))
            for call in calls
        ]
        return ToolTurn(calls=list(calls), results=results, text=text)

    async def _hand_over(self, stage: str, calls: list[ToolCall], text: str) -> None:
        await self._log.close()
        item = self._job.item
        frame = Status(
            stage="tool",
            content=phrases.calling(calls, stage, item.language),
            count=len(calls),
            call_id=calls[0].call_id if len(calls) == 1 else None,
        )
        await self._job.hand_over(frame, self._next_item(stage, calls, text))

    def _next_item(self, stage: str, calls: list[ToolCall], text: str) -> WorkItem:
        item: WorkItem = msgspec.structs.replace(
            self._job.item,
            stage=stage,
            calls=calls,
            text=text,
            turns=self._turns,
            usage=self._usage,
            timings=self._timings,
            queued_ms=round(self._clock() * 1000),
        )
        return item


class _Turn:
    """The checked text of one turn. It begins without white space, and in a paragraph of its own after earlier text."""

    def __init__(self, checker: CitationChecker, ends_in: str) -> None:
        self._checker = checker
        self._break = _TURN_BREAK if ends_in and not ends_in.isspace() else ""
        self._begun = False
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def begun_in(self, stored: str) -> str:
        """What an earlier holder has stored of this turn's own text; nothing where it cannot be told apart."""
        return stored.removeprefix(self._break) if stored.startswith(self._break) else ""

    def feed(self, text: str) -> str:
        if not self._begun:
            text = text.lstrip()
            if not text:
                return ""
            self._begun, text = True, self._break + text
        return self._keep(self._checker.feed(text))

    def flush(self) -> str:
        return self._keep(self._checker.flush())

    def _keep(self, text: str) -> str:
        self._parts.append(text)
        return text


def _by_name(live: Mapping[str, Sequence[ToolSpec]], claims: Mapping[str, Any]) -> dict[str, tuple[str, ToolSpec]]:
    """Stage and spec of each tool that the user may call; where two sets serve a name, the set that comes first by
    name does it."""
    tools: dict[str, tuple[str, ToolSpec]] = {}
    for stage in sorted(live):
        for spec in live[stage]:
            if may_call(spec, claims):
                tools.setdefault(spec.name, (stage, spec))
    return tools


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        prompt_tokens=one.prompt_tokens + other.prompt_tokens,
        completion_tokens=one.completion_tokens + other.completion_tokens,
    )


@asynccontextmanager
async def _closing(events: AsyncIterator[Event]) -> AsyncIterator[AsyncIterator[Event]]:
    """Closes the iterator however it is left; plain iterators without `aclose` are allowed."""
    try:
        yield events
    finally:
        aclose = getattr(events, "aclose", None)
        if aclose is not None:
            await aclose()
