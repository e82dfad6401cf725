from __future__ import annotations

from typing import Any

import pytest

from baton_proto.messages import ToolSpec
from services.common.permission import may_call


def spec(*groups: str) -> ToolSpec:
    return ToolSpec(name="t", description="t", parameters={"type": "object"}, groups=list(groups))


@pytest.mark.parametrize("claims", [{}, {"groups": ["hr"]}, {"groups": None}])
def test_a_tool_without_groups_is_for_everybody(claims: dict[str, Any]) -> None:
    assert may_call(spec(), claims)


@pytest.mark.parametrize("groups", [["hr"], ["sales", "hr"], "hr", ("hr",)])
def test_a_tool_with_groups_is_for_their_users(groups: object) -> None:
    assert may_call(spec("finance", "hr"), {"groups": groups})


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"groups": None},
        {"groups": []},
        {"groups": ""},
        {"groups": ["sales"]},
        {"groups": "h"},
        {"groups": "hr sales"},
        {"groups": ["HR"]},
        {"groups": {"hr": True}},
        {"groups": [["hr"], {"name": "hr"}, 1, None]},
        {"group": ["hr"]},
        {"groups": True},
    ],
)
def test_nobody_else_may_call_it(claims: dict[str, Any]) -> None:
    assert not may_call(spec("hr"), claims)
