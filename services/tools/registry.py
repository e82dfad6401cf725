"""Which tools a worker offers: those that ship with Baton and are configured, and those of the YAML file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast
from urllib.parse import urlsplit

import httpx

from services.common.config import ToolsSettings
from services.common.settings import SettingsError

from .adjusted import is_source
from .calculator import Calculator
from .clock import DateTime
from .leave_balance import LeaveBalance
from .port import REQUEST_SHARE, Tool, ToolSource
from .toolbox import Toolbox
from .tools_file import open_entry, read_tools_file

BUILTIN = ("calculator", "date_time", "leave_balance")


@asynccontextmanager
async def open_tools(settings: ToolsSettings) -> AsyncIterator[Toolbox]:
    """The tools that `settings` ask for, open until the context ends.

    Raises:
        SettingsError: a setting or the YAML file is wrong; with all that is, not only the first.
    """
    async with AsyncExitStack() as stack:
        problems: list[str] = []
        file = read_tools_file(settings.tools, problems)
        fixed = await _built_in(settings, file.builtin, stack, problems)
        sources: list[ToolSource] = []
        for place, entry in file.entries:
            opened = await open_entry(entry, place, settings, stack, problems)
            if opened is None:
                continue
            if is_source(opened):
                sources.append(opened)
                continue
            tool = cast(Tool, opened)
            if any(tool.spec.name == other.spec.name for other in fixed):
                problems.append(f"{place}: there is already a tool named {tool.spec.name}")
            fixed.append(tool)
        if problems:
            raise SettingsError(problems)
        yield Toolbox(fixed, sources)


async def _built_in(
    settings: ToolsSettings, chosen: Collection[str] | None, stack: AsyncExitStack, problems: list[str]
) -> list[Tool]:
    """Baton's own tools that are chosen; where none are, all that are configured."""
    where = f"BATON_TOOLS={settings.tools}"
    if unknown := sorted(set(chosen or ()) - set(BUILTIN)):
        problems.append(f"{where}: `builtin`: there is no {', '.join(unknown)}; known: {', '.join(BUILTIN)}")
    wanted = set(BUILTIN if chosen is None else chosen)
    tools: list[Tool] = [Calculator()] if "calculator" in wanted else []
    if "date_time" in wanted:
        try:
            tools.append(DateTime(settings.timezone))
        except ValueError as error:
            problems.append(f"BATON_TIMEZONE={settings.timezone!r}: {error}")
    if "leave_balance" in wanted:
        if not settings.leave_url:
            if chosen is not None:
                problems.append(f"{where}: `builtin`: leave_balance needs the setting BATON_LEAVE_URL")
        elif not _is_http(settings.leave_url):
            problems.append(
                f"BATON_LEAVE_URL={settings.leave_url!r}: expected an address such as http://hr.example:8100"
            )
        else:
            # Without the environment's proxies: an HR system is inside, and settings come from BATON_ names only.
            client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
            tools.append(LeaveBalance(client, settings.leave_url, min(10.0, REQUEST_SHARE * settings.timeout_s)))
    return tools


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
