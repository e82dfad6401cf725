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
        async with open_tools(settings) as toolbox:
            return [tool.spec.name for tool in toolbox.tools()]

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
        ("", "expected a key `tools`"),
        ("- a", "expected a key `tools`"),
        ("tools: {a: b}", "`tools` must be a list"),
        ("tools: []\nother: 1", "expected a key `tools`"),
        ("tools: [calculator]", "tools[0]: expected a mapping with one of the keys python, http, mcp"),
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
    for problem, part in zip(found, ["cannot be read", "BATON_TIMEZONE", "BATON_LEAVE_URL"], strict=True):
        assert part in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("builtin: []", []),
        ("builtin: [date_time]", ["date_time"]),
        ("builtin: [date_time, calculator]\ntools: []", ["calculator", "date_time"]),
        ("builtin: []\ntools: [{python: 'tests.sample_tools:make_greeter'}]", ["greeter"]),
        ("tools: []", ["calculator", "date_time"]),
    ],
)
def test_a_worker_may_serve_some_of_baton_s_own_tools(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert names(yaml_file(tmp_path, text)) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("builtin: calculator", "`builtin` must be a list of names"),
        ("builtin: [calculater]", "there is no calculater; known: calculator, date_time, leave_balance"),
        ("builtin: [leave_balance]", "leave_balance needs the setting BATON_LEAVE_URL"),
        ("tools: []\ntools: []", "stands twice"),
        ("tools: [{python: 'a:b', http: {}}]", "expected a mapping with one of the keys"),
        ("tools: [{python: 'tests.sample_tools:make_greeter', groups: hr}]", "`groups` must be a list"),
        ("tools: [{python: 'tests.sample_tools:make_greeter', groups: [1]}]", "`groups` must be a list"),
        ("tools: [{python: 'tests.sample_tools:make_greeter', timeout_s: 0}]", "`timeout_s` must be"),
        ("tools: [{python: 'tests.sample_tools:make_greeter', timeout_s: 21}]", "BATON_TOOL_TIMEOUT_S, which is 20"),
        ("tools: [{python: 'tests.sample_tools:make_greeter', timeout_s: .nan}]", "`timeout_s` must be"),
    ],
)
def test_what_is_wrong_beside_the_tools_is_told(tmp_path: Path, text: str, problem: str) -> None:
    (found,) = problems(yaml_file(tmp_path, text))
    assert problem in found


def test_groups_and_time_out_stand_in_an_entry(tmp_path: Path) -> None:
    settings = yaml_file(
        tmp_path,
        """
        builtin: []
        tools:
          - python: tests.sample_tools:make_greeter
            groups: [support, hr]
            timeout_s: 2.5
        """,
    )

    async def once() -> None:
        async with open_tools(settings) as toolbox:
            (tool,) = toolbox.tools()
            assert (tool.spec.groups, tool.timeout_s) == (["support", "hr"], 2.5)

    asyncio.run(once())


def test_several_bad_entries_are_told_together(tmp_path: Path) -> None:
    text = (
        "builtin: [x]\ntools: [{python: 'json:no', groups: 1, more: 2}, 7, {python: 'tests.sample_tools:make_failure'}]"
    )
    found = problems(yaml_file(tmp_path, text))
    assert len(found) == 5
