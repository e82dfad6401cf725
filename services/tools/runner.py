"""Runs tool calls: whatever a tool does, an outcome comes back in time and in bounds."""

from __future__ import annotations

import asyncio
import logging
import time
from copy import deepcopy

from baton_proto.messages import Language, ToolCall, ToolOutcome, ToolSpec
from services.common.permission import may_call
from services.common.wording import choose, clean, shorten

from .port import RetryableError, Tool, ToolContext, ToolError
from .retries import Retries
from .toolbox import Served, Toolbox

log = logging.getLogger(__name__)

STOP_GRACE_S = 2.0
"""How long a cancelled tool may take to clean up before it is left behind."""


class _Broken(Exception):
    """A tool failed in a way that nobody but the operator should read about; it has been logged."""


class Runner:
    """Runs calls of the tools in `toolbox`, at most `concurrency` at once over all requests of this process.

    Args:
        timeout_s: seconds one call may take, for tools that allow themselves more.
        max_result_chars: characters of a result that are kept, its mark included.
    """

    def __init__(self, toolbox: Toolbox, *, timeout_s: float, max_result_chars: int, concurrency: int = 16) -> None:
        self._toolbox = toolbox
        self._timeout_s = timeout_s
        self._max_chars = max_result_chars
        self._slots = asyncio.Semaphore(concurrency)
        self._left_behind: set[asyncio.Task[object]] = set()
        self._retries = Retries()

    def spec(self, name: str) -> ToolSpec | None:
        served = self._toolbox.find(name)
        return None if served is None else served.tool.spec

    async def run(self, call: ToolCall, context: ToolContext, wait_s: float) -> ToolOutcome:
        """The outcome of one call; every failure but cancellation is one too.

        Args:
            wait_s: seconds until the outcome is needed, waiting for a free slot included.
        """
        until = time.monotonic() + wait_s
        served = self._toolbox.find(call.name)
        if served is None:
            return self._failed(call, self._unknown(call.name, context))
        if not may_call(served.tool.spec, context.claims):
            return self._failed(call, _not_for_this_user(call.name, context.language))
        tool = served.tool
        try:
            async with asyncio.timeout(wait_s):
                await self._slots.acquire()
        except TimeoutError:
            return self._failed(call, _no_slot(context.language))
        started = time.monotonic()
        try:
            text = await self._checked(served, call, context, min(tool.timeout_s, self._timeout_s, until - started))
            ok = True
        except ToolError as error:
            text, ok = str(error) or _broken(call.name, context.language), False
        except _Broken:
            text, ok = _broken(call.name, context.language), False
        except Exception:
            log.exception("call %s of the tool %s failed outside of the tool", call.call_id, call.name)
            text, ok = _broken(call.name, context.language), False
        finally:
            self._slots.release()
        elapsed_ms = round((time.monotonic() - started) * 1000)
        content = self._bounded(text, context.language)
        return ToolOutcome(call_id=call.call_id, name=call.name, ok=ok, content=content, elapsed_ms=elapsed_ms)

    async def _checked(self, served: Served, call: ToolCall, context: ToolContext, timeout_s: float) -> str:
        problem = served.checker.problem(call.arguments, context.language)
        if problem is not None:
            raise ToolError(problem)
        result = await self._repeated(served.tool, call, context, timeout_s)
        if not isinstance(result, str):
            log.error("the tool %s returned %s instead of text", call.name, type(result).__name__)
            raise _Broken
        return result

    async def _repeated(self, tool: Tool, call: ToolCall, context: ToolContext, timeout_s: float) -> object:
        """The result of the first attempt that does not fail in passing. A tool that is not idempotent gets one only.

        Raises:
            ToolError: as the last attempt did, or because there is no time left.
            _Broken
        """
        until = time.monotonic() + timeout_s
        self._retries.begun(call.name)
        attempt = 1
        while True:
            try:
                return await self._in_time(tool, call, context, until - time.monotonic())
            except TimeoutError:
                raise ToolError(_too_slow(call.name, timeout_s, context.language)) from None
            except RetryableError as error:
                left = until - time.monotonic()
                pause = self._retries.pause_s(call.name, attempt, error.after_s, left) if tool.spec.idempotent else None
                if pause is None:
                    raise
                log.info("call %s of the tool %s is made again in %.1f s: %s", call.call_id, call.name, pause, error)
            await asyncio.sleep(pause)
            attempt += 1

    async def _in_time(self, tool: Tool, call: ToolCall, context: ToolContext, timeout_s: float) -> object:
        """The call's result. It runs in a task of its own, so that one that ignores its cancellation holds up nobody.

        Raises:
            TimeoutError: it took too long.
            ToolError: by the tool.
            _Broken
        """
        task = asyncio.create_task(_guarded(tool, call, context), name=f"tool {call.name}")
        try:
            await asyncio.wait([task], timeout=max(0.0, timeout_s))
            if not task.done():
                raise TimeoutError
        finally:
            await self._stop(task, call.name)
        if task.cancelled():
            log.error("the tool %s cancelled itself", call.name)
            raise _Broken
        return task.result()

    async def _stop(self, task: asyncio.Task[object], name: str) -> None:
        if task.done():
            return
        task.cancel()
        self._left_behind.add(task)
        task.add_done_callback(self._gone)
        _, pending = await asyncio.wait([task], timeout=STOP_GRACE_S)
        if pending:
            log.error("the tool %s ignores its cancellation and is left behind", name)

    def _gone(self, task: asyncio.Task[object]) -> None:
        self._left_behind.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as seen

    def _bounded(self, text: str, language: Language) -> str:
        if len(text) <= self._max_chars:
            return clean(text)
        room = self._max_chars - len(_cut(self._max_chars, len(text), language))
        return clean(text[: max(0, room)] + _cut(max(0, room), len(text), language))

    def _failed(self, call: ToolCall, text: str) -> ToolOutcome:
        return ToolOutcome(call_id=call.call_id, name=call.name, ok=False, content=text)

    def _unknown(self, name: str, context: ToolContext) -> str:
        """Names the tools that the user may call: a model that misspelt one finds it there."""
        specs = [tool.spec for tool in self._toolbox.tools()]
        names = sorted(spec.name for spec in specs if may_call(spec, context.claims))
        known, name = shorten(", ".join(names), 1_000), shorten(name, 64)
        return choose(
            context.language,
            zh=f"没有名为 {name} 的工具。可用的工具：{known or '无'}。",
            en=f"There is no tool named {name}. Available: {known or 'none'}.",
        )


async def _guarded(tool: Tool, call: ToolCall, context: ToolContext) -> object:
    """The tool's own result, with every failure that is not meant for a reader logged here and replaced."""
    try:
        return await tool.call(deepcopy(call.arguments), context)
    except RetryableError as error:
        raise RetryableError(str(error), error.after_s) from None
    except ToolError as error:
        raise ToolError(str(error)) from None
    except (Exception, SystemExit):
        # SystemExit as well: a tool must not end the process, and a task that lets it out would.
        log.exception("the tool %s failed in call %s", call.name, call.call_id)
        raise _Broken from None


def _cut(kept: int, total: int, language: Language) -> str:
    return choose(
        language,
        zh=f"\n…（结果过长：共 {total} 个字符，只保留了前 {kept} 个）",
        en=f"\n… (result cut: the first {kept} of {total} characters)",
    )


def _broken(name: str, language: Language) -> str:
    return choose(
        language,
        zh=f"工具 {name} 运行失败，详情已写入日志。",
        en=f"The tool {name} failed; its operator finds the reason in the logs.",
    )


def _not_for_this_user(name: str, language: Language) -> str:
    return choose(language, zh=f"当前用户不能使用工具 {name}。", en=f"The tool {name} is not available to this user.")


def _too_slow(name: str, timeout_s: float, language: Language) -> str:
    return choose(
        language,
        zh=f"工具 {name} 在 {timeout_s:.1f} 秒内没有完成，已停止。",
        en=f"The tool {name} did not finish within {timeout_s:.1f} seconds and was stopped.",
    )


def _no_slot(language: Language) -> str:
    return choose(
        language,
        zh="正在运行的工具太多，这次调用没有开始。",
        en="Too many tools are running; this call was not started.",
    )
