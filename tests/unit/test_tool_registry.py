from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.common.config import ToolsSettings
from services.common.settings import SettingsError
from services.tools.registry import open_tools
from tests import sample_tools


def names(settings: ToolsSettings) -> list[str]:
    async def once() -> list[str]:
        async with open_tools(settings) as tools:
            return [tool.spec.name for tool in tools]

    return asyncio.run(once())


def problems(settings: ToolsSettings) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        names(settings)
    return raised.value.problems


def yaml_file(folder: Path, text: str) -> ToolsSettings:
    path = folder / "tools.yaml"
    path.write_text(text, encoding="utf-8")
    return ToolsSettings(tools=str(path))


def test_a_tool_that_is_not_configured_is_not_offered() -> None:
    assert names(ToolsSettings()) == ["calculator", "date_time"]
    assert names(ToolsSettings(leave_url="http://hr.example:8100/api")) == ["calculator", "date_time", "leave_balance"]


def test_tools_of_one_s_own_come_from_the_yaml_file(tmp_path: Path) -> None:
    settings = yaml_file(
        tmp_path,
        """
        tools:
          - python: tests.sample_tools:make_greeter
            settings: {greeting: 你好}
          - python: tests.sample_tools:open_greeter
            settings: {name: opened}
        """,
    )
    assert names(settings) == ["calculator", "date_time", "greeter", "opened"]
    assert "opened" in sample_tools.closed


def test_what_was_opened_is_closed_when_the_start_fails(tmp_path: Path) -> None:
    settings = yaml_file(
        tmp_path,
        """
        tools:
          - {python: "tests.sample_tools:open_greeter", settings: {name: closed_again}}
          - {python: "tests.sample_tools:make_failure"}
        """,
    )
    assert len(problems(settings)) == 1
    assert "closed_again" in sample_tools.closed


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tools: [", "is not YAML"),
        ("", "expected one key `tools`"),
        ("- a", "expected one key `tools`"),
        ("tools: {a: b}", "expected one key `tools`"),
        ("tools: []\nother: 1", "expected one key `tools`"),
        ("tools: [calculator]", "tools[0]: expected a mapping with `python: module:attribute`"),
        ("tools: [{python: json}]", "expected module:attribute"),
        ("tools: [{python: 'no_such_module:x'}]", "No module named 'no_such_module'"),
        ("tools: [{python: 'json:nothing'}]", "has no attribute 'nothing'"),
        ("tools: [{python: 'json:dumps', url: x}]", "unknown url; known: python, settings"),
        ("tools: [{python: 'json:dumps', settings: 3}]", "`settings` must be a mapping"),
        ("tools: [{python: 'tests.sample_tools:make_nothing'}]", "no `spec` that is a ToolSpec"),
        ("tools: [{python: 'tests.sample_tools:make_bad_schema'}]", "no JSON Schema"),
        ("tools: [{python: 'tests.sample_tools:make_too_deep'}]", "the spec cannot be announced"),
        ("tools: [{python: 'tests.sample_tools:make_failure'}]", "RuntimeError: no licence"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    settings = yaml_file(tmp_path, text)
    (found,) = problems(settings)
    assert found.startswith(f"BATON_TOOLS={settings.tools}: ")
    assert problem in found


def test_two_tools_of_one_name_are_refused(tmp_path: Path) -> None:
    entry = "  - python: tests.sample_tools:make_greeter\n"
    (found,) = problems(yaml_file(tmp_path, f"tools:\n{entry}{entry}"))
    assert "tools[1]: there is already a tool named greeter" in found


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.yaml")
    found = problems(ToolsSettings(tools=missing, leave_url="hr.example", timezone="Mars/Base"))
    assert len(found) == 3
    for problem, part in zip(found, ["BATON_TIMEZONE", "BATON_LEAVE_URL", "cannot be read"], strict=True):
        assert part in problem
