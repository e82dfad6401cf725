from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
import pytest

from baton_proto import codec
from baton_proto.messages import Announcement, ToolOutcome
from services.tools.adjusted import Adjustment
from services.tools.conformance import MAX_SPEC_BYTES
from services.tools.port import Tool, ToolContext
from services.tools.runner import Runner
from services.tools.toolbox import Toolbox
from tests.jobs import call
from tests.sample_tools import SampleTool, echo, returning


class Coming:
    """A source whose tools a test sets."""

    def __init__(self, *tools: Any) -> None:
        self.now: list[Any] = list(tools)

    def tools(self) -> list[Any]:
        return self.now


class Failing:
    def tools(self) -> list[Tool]:
        raise RuntimeError("the server is away")


def names(toolbox: Toolbox) -> list[str]:
    return [tool.spec.name for tool in toolbox.tools()]


def run(toolbox: Toolbox, name: str, claims: dict[str, Any] | None = None, **arguments: Any) -> ToolOutcome:
    async def once() -> ToolOutcome:
        context = ToolContext(call_id="c1", owner="o", language="en", progress=lambda text: None, claims=claims or {})
        return await Runner(toolbox, timeout_s=60, max_result_chars=200).run(call(name, **arguments), context, 60)

    return asyncio.run(once())


def test_the_fixed_tools_come_first_and_a_source_s_as_they_are_now() -> None:
    source = Coming()
    toolbox = Toolbox([SampleTool("fixed", echo)], [source])
    assert names(toolbox) == ["fixed"]
    source.now = [SampleTool("late", returning("here"))]
    assert names(toolbox) == ["fixed", "late"]
    assert run(toolbox, "late").content == "here"
    source.now = []
    assert names(toolbox) == ["fixed"]
    assert run(toolbox, "late").content == "There is no tool named late. Available: fixed."


def test_the_first_tool_of_a_name_is_served_and_the_other_is_told_of_once(caplog) -> None:
    first, second = SampleTool("same", returning("first")), SampleTool("same", returning("second"))
    toolbox = Toolbox([first], [Coming(second)])
    assert [names(toolbox) for _ in range(3)] == [["same"]] * 3
    assert run(toolbox, "same").content == "first"
    assert [record.message for record in caplog.records] == [
        "a second tool named same is left out: the first one is served"
    ]


def test_arguments_are_checked_by_the_schema_of_now() -> None:
    source = Coming(SampleTool("t", echo, parameters={"type": "object", "required": ["text"]}))
    toolbox = Toolbox([], [source])
    assert run(toolbox, "t").content == "The argument text is missing."
    source.now = [SampleTool("t", echo, parameters={"type": "object"})]
    assert run(toolbox, "t").ok


def test_a_checker_is_made_once_for_equal_specs() -> None:
    source = Coming(SampleTool("t", echo))
    toolbox = Toolbox([], [source])
    first = toolbox.find("t")
    source.now = [SampleTool("t", echo)]
    again = toolbox.find("t")
    assert first is not None
    assert again is not None
    assert first.checker is again.checker
    assert again.tool is source.now[0]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (object(), "no `spec` that is a ToolSpec"),
        (SampleTool("no spaces", echo), "must be letters, digits, _ and -"),
        (SampleTool("bad", echo, parameters={"type": "objekt"}), "no JSON Schema"),
        (SampleTool("bad", echo, parameters={"type": "object", "title": "x" * MAX_SPEC_BYTES}), "at most"),
        (SampleTool("bad", echo, timeout_s=0), "`timeout_s`"),
    ],
)
def test_a_source_s_tool_that_does_not_fit_is_left_out_and_told_of_once(bad: object, why: str, caplog) -> None:
    toolbox = Toolbox([], [Coming(bad, SampleTool("good", echo))])
    assert [names(toolbox) for _ in range(3)] == [["good"]] * 3
    assert len(caplog.records) == 1
    assert why in caplog.text


def test_a_source_that_fails_takes_nobody_with_it(caplog) -> None:
    toolbox = Toolbox([SampleTool("fixed", echo)], [Failing(), Coming(SampleTool("other", echo))])
    assert [names(toolbox) for _ in range(3)] == [["fixed", "other"]] * 3
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "the server is away" in caplog.text


def test_what_is_served_always_fits_into_an_announcement() -> None:
    large = {"type": "object", "title": "x" * (MAX_SPEC_BYTES - 1_000)}
    toolbox = Toolbox([], [Coming(*(SampleTool(f"t{n}", echo, parameters=large) for n in range(30)))])
    tools = toolbox.tools()
    assert 5 < len(tools) < 30
    codec.encode(
        Announcement(worker="w", stage="tools.default", slots=1, running=0, tools=[tool.spec for tool in tools])
    )


# --- groups and time-outs from the YAML file --------------------------------------------------------------------------


def test_groups_and_time_out_of_an_entry_replace_those_of_a_tool() -> None:
    tool = SampleTool("t", returning("ok"), timeout_s=5)
    adjusted: Any = Adjustment(("hr",), 1.5).of(tool)
    assert (adjusted.spec.groups, adjusted.timeout_s, tool.spec.groups) == (["hr"], 1.5, [])
    assert run(Toolbox([adjusted]), "t", {"groups": ["hr"]}).content == "ok"


def test_groups_of_an_entry_hold_for_all_tools_of_its_source() -> None:
    tool = SampleTool("t", returning("ok"))
    tool.spec = msgspec.structs.replace(tool.spec, groups=["own"])
    source: Any = Adjustment(("hr",), None).of(Coming(tool))
    toolbox = Toolbox([], [source])
    assert toolbox.tools()[0].spec.groups == ["hr"]
    assert not run(toolbox, "t", {"groups": ["own"]}).ok


def test_an_empty_list_of_groups_opens_a_tool_to_everybody() -> None:
    tool = SampleTool("t", returning("ok"))
    tool.spec = msgspec.structs.replace(tool.spec, groups=["own"])
    adjusted: Any = Adjustment((), None).of(tool)
    assert run(Toolbox([adjusted]), "t").ok


def test_a_call_of_a_tool_for_others_is_refused_and_nothing_runs() -> None:
    tool = SampleTool("salaries", returning("secret"))
    tool.spec = msgspec.structs.replace(tool.spec, groups=["board"])
    outcome = run(Toolbox([tool]), "salaries", {"groups": ["staff"]}, groups=["board"])
    assert (outcome.ok, outcome.content) == (False, "The tool salaries is not available to this user.")
    assert tool.calls == 0


def test_an_unknown_name_is_answered_with_the_tools_of_this_user() -> None:
    hidden, shown = SampleTool("hidden", echo), SampleTool("shown", echo)
    hidden.spec = msgspec.structs.replace(hidden.spec, groups=["board"])
    assert run(Toolbox([hidden, shown]), "hiden").content == "There is no tool named hiden. Available: shown."
