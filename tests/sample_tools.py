"""Tools that misbehave in one way each, and a few that behave."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from baton_proto.messages import ToolSpec
from services.tools.port import ToolContext, ToolError

Body = Callable[[dict[str, Any], ToolContext], Awaitable[Any]]


class SampleTool:
    """A tool whose `call` is `body`."""

    def __init__(
        self,
        name: str,
        body: Body,
        *,
        parameters: dict[str, Any] | None = None,
        timeout_s: float = 5.0,
        idempotent: bool = True,
    ) -> None:
        parameters = parameters or {"type": "object"}
        self.spec = ToolSpec(name=name, description=name, parameters=parameters, idempotent=idempotent)
        self.timeout_s = timeout_s
        self.calls = 0
        self.started = asyncio.Event()
        self.cancelled = 0
        self._body = body

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> str:
        self.calls += 1
        self.started.set()
        try:
            return await self._body(arguments, context)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def returning(value: Any) -> Body:
    async def body(arguments: dict[str, Any], context: ToolContext) -> Any:
        return value

    return body


def raising(error: BaseException) -> Body:
    async def body(arguments: dict[str, Any], context: ToolContext) -> Any:
        raise error

    return body


async def echo(arguments: dict[str, Any], context: ToolContext) -> str:
    return str(arguments.get("text", ""))


async def hang(arguments: dict[str, Any], context: ToolContext) -> str:
    await asyncio.Event().wait()
    raise AssertionError


async def stubborn(arguments: dict[str, Any], context: ToolContext) -> str:
    """Ignores the first cancellation for as long as it is allowed to live."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.Event().wait()
    raise AssertionError


async def exit_process(arguments: dict[str, Any], context: ToolContext) -> str:
    sys.exit(3)


# --- factories, as a YAML file names them -----------------------------------------------------------------------------

closed: list[str] = []


def make_greeter(settings: dict[str, Any]) -> SampleTool:
    return SampleTool("greeter", returning(settings.get("greeting", "hello")))


@asynccontextmanager
async def open_greeter(settings: dict[str, Any]):
    try:
        yield SampleTool(settings["name"], returning("hello"))
    finally:
        closed.append(settings["name"])


def make_nothing(settings: dict[str, Any]) -> object:
    return object()


def make_bad_schema(settings: dict[str, Any]) -> SampleTool:
    return SampleTool("bad_schema", echo, parameters={"type": "objekt"})


def make_too_deep(settings: dict[str, Any]) -> SampleTool:
    parameters: dict[str, Any] = {"type": "object"}
    for _ in range(20):
        parameters = {"type": "object", "properties": {"inner": parameters}}
    return SampleTool("too_deep", echo, parameters=parameters)


def make_failure(settings: dict[str, Any]) -> SampleTool:
    raise RuntimeError("no licence")


def refuse(text: str) -> Body:
    return raising(ToolError(text))
