"""The tools stage: runs the calls of one turn side by side and hands the baton back to a generator."""

from __future__ import annotations

import asyncio
import time
from types import MappingProxyType

import msgspec

from baton_proto.messages import (
    Status,
    ToolCall,
    ToolCalled,
    ToolOutcome,
    ToolResult,
    ToolTurn,
    WorkItem,
)
from services.common.calls import observing, outcome_of, result_frame, unique_calls
from services.common.config import ToolsSettings
from services.common.job import Handler, Job
from services.common.wording import choose, shorten

from .port import ToolContext
from .runner import Runner
from .toolbox import Toolbox

MAX_PROGRESS_CHARS = 300
MAX_PROGRESS_LINES = 50
"""Lines of progress that one call may show; further ones are dropped."""

_Event = ToolOutcome | Status


def tools_handler(toolbox: Toolbox, settings: ToolsSettings) -> Handler:
    """The handler of a stage `tools.<set>` that serves what is in `toolbox`."""
    runner = Runner(
        toolbox,
        timeout_s=settings.timeout_s,
        max_result_chars=settings.max_result_chars,
        concurrency=settings.concurrency,
    )

    async def handle(job: Job) -> None:
        await _Turn(job, runner, settings.turn_timeout_s).run()

    return handle


class _Turn:
    """One round of calls. Only `run` writes to the log, so frames stay in order however the calls overlap."""

    def __init__(self, job: Job, runner: Runner, timeout_s: float) -> None:
        self._job = job
        self._runner = runner
        self._until = time.monotonic() + timeout_s
        self._calls = unique_calls(job.item.calls)
        self._announced = {frame.call_id for frame in job.written if isinstance(frame, ToolCalled)}
        self._outcomes = {frame.call_id: outcome_of(frame) for frame in job.written if isinstance(frame, ToolResult)}
        # Bounded: one outcome and at most MAX_PROGRESS_LINES lines for each call.
        self._events: asyncio.Queue[_Event] = asyncio.Queue()

    async def run(self) -> None:
        await self._announce()
        open_calls = [call for call in self._calls if call.call_id not in self._outcomes]
        if not open_calls:
            await self._job.hand_over(self._all_there(), self._next_item())
            return
        tasks = []
        try:
            for call in open_calls:
                if call.call_id in self._announced and not self._may_repeat(call):
                    self._events.put_nowait(_interrupted(call, self._job.item))
                else:
                    tasks.append(asyncio.create_task(self._run(call)))
            await self._relay(len(open_calls))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _announce(self) -> None:
        """Write the calls before any of them runs. Where one must not run twice, wait until they are stored: should
        this holder be lost, the next one recognises by its frame that it may have run."""
        for call in self._calls:
            if call.call_id not in self._announced:
                await self._job.write(ToolCalled(call_id=call.call_id, name=call.name, arguments=call.arguments))
        if not all(self._may_repeat(call) for call in self._calls):
            await self._job.flush()

    def _may_repeat(self, call: ToolCall) -> bool:
        """A tool that is not there now may have been when the call was made, and may be back in a moment."""
        spec = self._runner.spec(call.name)
        return spec is not None and spec.idempotent

    async def _run(self, call: ToolCall) -> None:
        item = self._job.item
        context = ToolContext(
            call_id=call.call_id,
            owner=item.owner,
            language=item.language,
            progress=_Progress(self._events, call.call_id),
            claims=MappingProxyType(item.claims),
        )
        with observing(call, known=self._runner.spec(call.name) is not None) as observed:
            outcome = await self._runner.run(call, context, self._until - time.monotonic())
            observed.ended(ok=outcome.ok, result=outcome.content)
        self._events.put_nowait(outcome)

    async def _relay(self, count: int) -> None:
        """Write what the calls report, in the order in which it happens, until `count` of them have ended."""
        while True:
            event = await self._events.get()
            if isinstance(event, Status):
                if event.call_id not in self._outcomes:
                    await self._job.write(event)
                continue
            self._outcomes[event.call_id] = event
            count -= 1
            frame = result_frame(event)
            if count == 0:
                await self._job.hand_over(frame, self._next_item())
                return
            await self._job.write(frame)

    def _next_item(self) -> WorkItem:
        item = self._job.item
        turn = ToolTurn(
            calls=self._calls, results=[self._outcomes[call.call_id] for call in self._calls], text=item.text
        )
        timings = msgspec.structs.replace(item.timings, tool_calls=item.timings.tool_calls + len(self._calls))
        return msgspec.structs.replace(
            item, stage="generate", turns=[*item.turns, turn], calls=[], text="", timings=timings
        )

    def _all_there(self) -> Status:
        language = self._job.item.language
        content = choose(language, zh="工具结果已就绪。", en="The tools' results are in.")
        return Status(stage="tool", content=content, count=len(self._calls))


class _Progress:
    """A call's `progress`: never blocks, may be called from any thread, and drops what is too much."""

    def __init__(self, events: asyncio.Queue[_Event], call_id: str) -> None:
        self._events = events
        self._call_id = call_id
        self._loop = asyncio.get_running_loop()
        self._left = MAX_PROGRESS_LINES

    def __call__(self, text: str) -> None:
        if self._left > 0 and not self._loop.is_closed():
            self._left -= 1
            status = Status(stage="tool", content=shorten(str(text), MAX_PROGRESS_CHARS), call_id=self._call_id)
            self._loop.call_soon_threadsafe(self._events.put_nowait, status)


def _interrupted(call: ToolCall, item: WorkItem) -> ToolOutcome:
    content = choose(
        item.language,
        zh="interrupted：调用被中断，结果未知；为避免重复执行，没有再次运行。",
        en="interrupted: the call was cut off, and its result is unknown; it was not run again, because it might then "
        "happen twice.",
    )
    return ToolOutcome(call_id=call.call_id, name=call.name, ok=False, content=content)
