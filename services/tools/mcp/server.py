"""One MCP server for as long as the worker lives: connected, watched, connected again, its tools listed and called."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from mcp import Client, MCPError, types
from mcp.types import METHOD_NOT_FOUND, Implementation
from mcp.types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from baton_proto.messages import Language
from services.common.process import package_version
from services.common.wording import choose, shorten
from services.tools.port import RetryableError, Tool, ToolContext, ToolError

from .entry import McpEntry
from .http import reached
from .listing import MAX_TOOLS, Offered, listing
from .results import progress_text, result_text
from .sifting import sifted
from .stdio import started
from .tool import McpTool

log = logging.getLogger(__name__)

RESTART_S = 1.0
"""How long a server usually takes to be there again; a call that may be repeated waits so long."""
MAX_CALLS = 32
"""Calls of one server that run at once; further ones wait."""
_MAX_PAGES = 50
_MAX_TOLD = 500
_SHOWN_CHARS = 500


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds. A server that ends is noticed at once; one that hangs within `check_every_s` + `check_s` when it is
    idle, otherwise after a silence of two time-outs of a call."""

    connect_s: float = 60.0
    check_every_s: float = 15.0
    check_s: float = 10.0
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    settled_s: float = 60.0
    """A connection that lasted so long was a good one: after it, waits begin with the shortest again."""
    relist_s: float = 1.0
    """At least so long between two listings, however often a server says that its tools have changed."""


class McpServer:
    """A `ToolSource`. Only the task that runs `keep` opens and closes connections: the scopes inside belong to it."""

    def __init__(self, entry: McpEntry, timeout_s: float, pace: Pace | None = None) -> None:
        self._entry = entry
        self._timeout_s = timeout_s
        self._pace = pace or Pace()
        self._client: Client | None = None
        self._tools: Sequence[Tool] = ()
        self._slots = asyncio.Semaphore(MAX_CALLS)
        self._running = 0
        self._heard = time.monotonic()
        self._version: str | None = None
        self._told: set[str] = set()
        self._wake = asyncio.Event()
        self._trouble = self._changed = self._stopping = False
        self._life = anyio.CancelScope()

    @property
    def name(self) -> str:
        return self._entry.name

    @property
    def protocol_version(self) -> str | None:
        """The version that is spoken now; None while the server is away."""
        return None if self._client is None else self._version

    def tools(self) -> Sequence[Tool]:
        """None while the server is away."""
        return self._tools

    # --- the connection ------------------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Connect, and again whenever the connection is lost, until `stop` is called."""
        failures = 0
        try:
            with self._life:
                while not self._stopping:
                    began = time.monotonic()
                    reason = await self._one_connection()
                    if self._stopping:
                        break
                    failures = 1 if time.monotonic() - began > self._pace.settled_s else failures + 1
                    wait_s = self._wait_s(failures)
                    log.warning("MCP server %s is away: %s; next attempt in %.1f s", self.name, reason, wait_s)
                    await anyio.sleep(wait_s)
        finally:
            if not self._stopping:
                log.error("MCP server %s: nothing keeps its connection any more; restart this worker", self.name)

    def stop(self, *, now: bool = False) -> None:
        """Make `keep` end: with a good-bye to the server, or `now` without."""
        self._stopping = True
        self._wake.set()
        if now or self._client is None:
            self._life.cancel()

    def _wait_s(self, failures: int) -> float:
        """Twice as long after each failure, and never the same for all workers that lost the same server."""
        longest = min(self._pace.longest_wait_s, self._pace.first_wait_s * 2.0 ** min(failures - 1, 16))
        return longest * random.uniform(0.5, 1.0)

    async def _one_connection(self) -> str:
        """A connection from its beginning to its end, and why it ended."""
        self._wake.clear()
        self._trouble = self._changed = False
        self._version = None
        try:
            with anyio.CancelScope(deadline=anyio.current_time() + self._pace.connect_s) as scope:
                async with self._connecting() as client:
                    self._version = client.protocol_version
                    offered = await self._list(client)
                    scope.deadline = math.inf
                    try:
                        self._up(client, offered)
                        async with self._listening(client):
                            await self._watch(client)
                    finally:
                        self._client, self._tools = None, ()
                return "it was told to stop"
            return f"it was not ready within {self._pace.connect_s:g} seconds"
        except Exception as error:
            return _reason(error)

    def _connecting(self) -> Client:
        transport = (started if self._entry.command else reached)(self._entry, self._on_trouble)
        return Client(
            sifted(transport, lambda: self._version, self._tell, self._on_anything),
            mode="legacy" if self._entry.handshake else "auto",
            cache=None,
            client_info=Implementation(name="baton", version=package_version()),
            logging_callback=self._on_log,
            message_handler=self._on_message,
        )

    def _up(self, client: Client, offered: Sequence[Offered]) -> None:
        info = client.server_info
        about = f"{info.name} {info.version}" if info else "without a name"
        log.info(
            "MCP server %s: connected to %s, protocol %s, %d tools",
            self.name,
            shorten(about, 200),
            client.protocol_version,
            len(offered),
        )
        self._client = client
        self._show(offered)

    def _show(self, offered: Sequence[Offered]) -> None:
        self._tools = tuple(McpTool(self, self._entry, one, self._timeout_s) for one in offered)

    # --- what happens meanwhile ----------------------------------------------------------------------------------

    def _on_anything(self) -> None:
        self._heard = time.monotonic()

    def _on_trouble(self) -> None:
        self._trouble = True
        self._wake.set()

    def _on_change(self) -> None:
        self._changed = True
        self._wake.set()

    async def _on_message(self, message: object) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self._on_change()

    async def _on_log(self, params: types.LoggingMessageNotificationParams) -> None:
        if log.isEnabledFor(logging.DEBUG):
            log.debug("MCP server %s, %s: %s", self.name, params.level, shorten(str(params.data), _SHOWN_CHARS))

    @asynccontextmanager
    async def _listening(self, client: Client) -> AsyncIterator[None]:
        """Hear of changed tools. Up to 2025-11-25 a server just says so, later one must ask for it."""
        tools = client.server_capabilities.tools
        if not _is_modern(client) or tools is None or not tools.list_changed:
            yield
            return

        async def listen() -> None:
            while True:
                try:
                    async with client.listen(tools_list_changed=True) as events:
                        async for _ in events:
                            self._on_change()
                except (MCPError, RuntimeError) as error:
                    log.info("MCP server %s no longer tells of changed tools: %s", self.name, _reason(error))
                self._on_trouble()
                await anyio.sleep(self._pace.check_every_s)
                self._on_change()  # nobody told

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            yield
            group.cancel_scope.cancel()

    async def _watch(self, client: Client) -> None:
        """Look after the connection until it is to end. Raises what shows that it is lost."""
        while not self._stopping:
            woken = await self._woken()
            if self._changed:
                self._changed = False
                with _patience(self._pace.connect_s):
                    self._show(await self._list(client))
                await anyio.sleep(self._pace.relist_s)
            elif self._trouble or (not woken and self._should_answer()):
                self._trouble = False
                with _patience(self._pace.check_s):
                    await _check(client)

    def _should_answer(self) -> bool:
        """Whether the server could answer a question now: it may be deaf while it works, but not for ever."""
        return not self._running or time.monotonic() - self._heard > 2 * self._timeout_s

    async def _woken(self) -> bool:
        with anyio.move_on_after(self._pace.check_every_s):
            await self._wake.wait()
        woken = self._wake.is_set()
        self._wake.clear()
        return woken

    async def _list(self, client: Client) -> Sequence[Offered]:
        """All pages of the server's tools, as far as they are offered; what is wrong is logged once."""
        tools: list[types.Tool] = []
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            page = await client.list_tools(cursor=cursor)
            tools += page.tools
            cursor = page.next_cursor
            if cursor is None or len(tools) > MAX_TOOLS:
                break
        found = listing(tools, self._entry)
        for problem in found.problems:
            self._tell(problem)
        return found.offered

    def _tell(self, problem: str) -> None:
        if problem not in self._told and len(self._told) < _MAX_TOLD:
            self._told.add(problem)
            log.warning("MCP server %s: %s", self.name, problem)

    # --- calls ---------------------------------------------------------------------------------------------------

    async def call(
        self, name: str, arguments: dict[str, Any], meta: dict[str, Any] | None, context: ToolContext
    ) -> str:
        """Call the server's tool `name`. Cancelling this cancels the request at the server, and nothing else.

        Raises ToolError; RetryableError where the server is away or went away.
        """
        async with self._slots:
            client = self._client
            if client is None:
                raise RetryableError(self._away(context.language), RESTART_S)
            self._running += 1
            try:
                result = await client.call_tool(
                    name, arguments, progress_callback=_Progress(context), meta=_as_meta(meta)
                )
            except MCPError as error:
                if error.code == types.CONNECTION_CLOSED:
                    raise RetryableError(self._lost(error, context.language), RESTART_S) from None
                raise ToolError(self._failed(error, context.language)) from None
            except (ValidationError, RuntimeError, ExceptionGroup) as error:
                log.warning("MCP server %s: a result of %s cannot be used: %s", self.name, name, _reason(error))
                raise ToolError(self._not_understood(context.language)) from None
            finally:
                self._running -= 1
        text = result_text(result, context.language)
        if result.is_error:
            raise ToolError(text)
        return text

    def _away(self, language: Language) -> str:
        return choose(
            language,
            zh=f"工具服务器 {self.name} 目前无法连接，请稍后再试。",
            en=f"The tool server {self.name} cannot be reached at the moment; try again later.",
        )

    def _lost(self, error: MCPError, language: Language) -> str:
        said = shorten(error.message, _SHOWN_CHARS)
        return choose(
            language,
            zh=f"与工具服务器 {self.name} 的连接在调用期间中断，结果未知（{said}）。",
            en=f"The connection to the tool server {self.name} was lost during the call, and its result is unknown "
            f"({said}).",
        )

    def _failed(self, error: MCPError, language: Language) -> str:
        said = shorten(error.message, _SHOWN_CHARS)
        return choose(
            language,
            zh=f"工具服务器 {self.name} 报告了错误：{said}",
            en=f"The tool server {self.name} reported an error: {said}",
        )

    def _not_understood(self, language: Language) -> str:
        return choose(
            language,
            zh=f"看不懂工具服务器 {self.name} 的答复。",
            en=f"The answer of the tool server {self.name} could not be understood.",
        )


class _Progress:
    def __init__(self, context: ToolContext) -> None:
        self._context = context

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        if (text := progress_text(progress, total, message)) is not None:
            self._context.progress(text)


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError:
        raise TimeoutError(f"it did not answer within {seconds:g} seconds") from None


async def _check(client: Client) -> None:
    """Make the server show that it lives; raises where it does not."""
    if _is_modern(client):
        await client.session.send_discover(client.protocol_version)
        return
    try:
        await client.session.send_ping()
    except MCPError as error:
        if error.code != METHOD_NOT_FOUND:
            raise
        await client.list_tools()  # it has no ping


def _is_modern(client: Client) -> bool:
    return client.protocol_version in MODERN_PROTOCOL_VERSIONS


def _as_meta(meta: dict[str, Any] | None) -> types.RequestParamsMeta | None:
    return None if not meta else types.RequestParamsMeta(**meta)  # type: ignore[typeddict-item]


def _reason(error: BaseException) -> str:
    """The innermost causes in one line."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(_reason(one) for one in error.exceptions[:3]))
    text = shorten(str(error), 200)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
