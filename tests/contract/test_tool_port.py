"""What every tool promises, whoever wrote it."""

from __future__ import annotations

import asyncio
import copy
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from jsonschema import Draft202012Validator

from baton_proto import codec
from baton_proto.messages import Announcement, Language
from services.common.config import ToolsSettings
from services.tools.calculator import Calculator
from services.tools.clock import DateTime
from services.tools.conformance import what_is_wrong
from services.tools.http import open_entry as open_http_entry
from services.tools.leave_balance import LeaveBalance
from services.tools.port import Tool, ToolContext, ToolError
from tests.servers.hr_system import demo_erp


@dataclass(frozen=True)
class Case:
    """A tool with arguments that work, some that its schema allows and that cannot work, and some that it refuses."""

    name: str
    works: tuple[dict[str, Any], ...]
    fails: tuple[dict[str, Any], ...]
    refused: tuple[dict[str, Any], ...]
    speaks: bool = True
    """Whether its results are sentences in the language of the request."""


CASES = [
    Case(
        "calculator",
        works=({"expression": "1 + 1"}, {"expression": "(128+72)×3"}),
        fails=({"expression": "1 / 0"}, {"expression": "import os"}, {"expression": "9**9**9"}),
        refused=({}, {"expression": 2}, {"expression": ""}, {"expression": "1" * 501}, {"formula": "1"}),
        speaks=False,
    ),
    Case(
        "date_time",
        works=({}, {"operation": "add_days", "days": -3}, {"operation": "difference", "until": "2026-12-24"}),
        fails=({"timezone": "Mars/Base"}, {"date": "2026-02-30"}, {"operation": "add_days"}),
        refused=({"operation": "yesterday"}, {"days": "3"}, {"days": 10**9}, {"date": "tomorrow"}, {"zone": "UTC"}),
    ),
    Case(
        "leave_balance",
        works=({}, {"leave_type": "annual"}, {"leave_type": "sick"}),
        fails=(),
        refused=({"leave_type": "holiday"}, {"employee": "lin.yue"}, {"owner": "lin.yue"}),
    ),
    Case(
        "declared",
        works=({"employee": "lin.yue"}, {"employee": "anonymous"}),
        fails=({"employee": "nobody"}, {"employee": "lin.yue/.."}, {"employee": ""}),
        refused=({}, {"employee": 5}, {"employee": "lin.yue", "owner": "lin.yue"}),
        speaks=False,
    ),
]


def declared(hr_url: str) -> dict[str, Any]:
    """A tool that is nothing but YAML."""
    return {
        "http": {
            "name": "declared",
            "description": "Leave of an employee.",
            "url": f"{hr_url}/employees/{{employee}}/leave",
            "hosts": [urlsplit(hr_url).netloc],
            "private": ["127.0.0.0/8"],
            "parameters": {"properties": {"employee": {"type": "string"}}, "required": ["employee"]},
            "progress": {"zh": "正在查询…", "en": "Asking…"},
        }
    }


@asynccontextmanager
async def opened(name: str, hr_url: str):
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        open_http_entry(declared(hr_url), "here", ToolsSettings()) as http_tool,
    ):
        yield {
            "declared": http_tool,
            "calculator": Calculator(),
            "date_time": DateTime("Asia/Shanghai", lambda: datetime(2026, 11, 22, 8, 0, tzinfo=UTC)),
            "leave_balance": LeaveBalance(client, hr_url),
        }[name]


@pytest.fixture(scope="module")
def hr_url():
    with demo_erp() as url:
        yield url


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request) -> Case:
    return request.param


def context(language: Language = "en", progress=lambda text: None) -> ToolContext:
    return ToolContext(call_id="c1", owner="anonymous", language=language, progress=progress)


def on(case: Case, hr_url: str, check) -> None:
    """Run `check(tool)` with the tool open."""

    async def run() -> None:
        async with opened(case.name, hr_url) as tool:
            await check(tool)

    asyncio.run(run())


def test_a_tool_fits_the_port(case: Case, hr_url: str) -> None:
    async def check(tool: Tool) -> None:
        assert what_is_wrong(tool) is None
        assert tool.spec.name == case.name
        assert tool.spec.parameters["additionalProperties"] is False

    on(case, hr_url, check)


def test_a_spec_travels_in_an_announcement(case: Case, hr_url: str) -> None:
    async def check(tool: Tool) -> None:
        announcement = Announcement(worker="w", stage="tools.default", slots=1, running=0, tools=[tool.spec])
        assert codec.decode(codec.encode(announcement), Announcement) == announcement
        json.dumps(tool.spec.parameters)

    on(case, hr_url, check)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_call_gives_text_in_the_language_of_the_request(case: Case, hr_url: str, language: Language) -> None:
    async def check(tool: Tool) -> None:
        for arguments in case.works:
            text = await tool.call(dict(arguments), context(language))
            assert isinstance(text, str)
            assert 0 < len(text) < 2_000
            if case.speaks:
                assert any("\u4e00" <= char <= "\u9fff" for char in text) == (language == "zh")

    on(case, hr_url, check)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_call_that_cannot_work_says_why(case: Case, hr_url: str, language: Language) -> None:
    async def check(tool: Tool) -> None:
        for arguments in case.fails:
            assert Draft202012Validator(tool.spec.parameters).is_valid(arguments)
            with pytest.raises(ToolError) as raised:
                await tool.call(dict(arguments), context(language))
            assert 0 < len(str(raised.value)) < 500
            assert "Traceback" not in str(raised.value)

    on(case, hr_url, check)


def test_the_schema_allows_what_works_and_refuses_the_rest(case: Case, hr_url: str) -> None:
    async def check(tool: Tool) -> None:
        schema = Draft202012Validator(tool.spec.parameters)
        assert all(schema.is_valid(arguments) for arguments in case.works)
        assert not any(schema.is_valid(arguments) for arguments in case.refused)

    on(case, hr_url, check)


def test_calls_at_the_same_time_do_not_disturb_each_other(case: Case, hr_url: str) -> None:
    async def check(tool: Tool) -> None:
        alone = [await tool.call(dict(arguments), context()) for arguments in case.works]
        together = await asyncio.gather(*(tool.call(dict(arguments), context()) for arguments in case.works * 10))
        assert together == alone * 10

    on(case, hr_url, check)


def test_a_call_leaves_its_arguments_and_its_spec_alone(case: Case, hr_url: str) -> None:
    async def check(tool: Tool) -> None:
        spec = copy.deepcopy(tool.spec)
        for arguments in case.works:
            given = copy.deepcopy(arguments)
            await tool.call(given, context())
            assert given == arguments
        assert tool.spec == spec

    on(case, hr_url, check)


def test_progress_is_short_text(case: Case, hr_url: str) -> None:
    lines: list[str] = []

    async def check(tool: Tool) -> None:
        for arguments in case.works:
            await tool.call(dict(arguments), context("zh", lines.append))

    on(case, hr_url, check)
    assert all(isinstance(line, str) and 0 < len(line) < 200 for line in lines)
